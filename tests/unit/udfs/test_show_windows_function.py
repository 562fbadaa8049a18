"""The function that shows live windows: what is old, damaged or in the way of a Redis that is away."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
import redis

from plantwire.platform import window_show
from plantwire.platform.window_show import LIVE_FOR_MS
from plantwire.schemas.windows import Window, WindowValues, pack_windows
from plantwire.udfs.live_windows import ShowWindows
from tests.unit.udfs.flink_fakes import FakeFlink

VALUES = {"a": {"x": WindowValues(1.0, 1.0, 1.0, 1)}, "b": {"x": WindowValues(2.0, 2.0, 2.0, 1)}}


class _Redis:
    """In place of `LiveWindows`: notes what is published, is away when told so."""

    def __init__(self, _client: object) -> None:
        self.published: list[tuple[str, int, Mapping[str, Mapping[str, WindowValues]]]] = []
        self.tries = 0
        self.away = False
        self.news = 2

    def publish(self, window: Window, end_ms: int, devices: Mapping[str, Mapping[str, WindowValues]]) -> int:
        self.tries += 1
        if self.away:
            raise redis.ConnectionError("away")
        self.published.append((window.name, end_ms, devices))
        return self.news


@pytest.fixture
def flink() -> FakeFlink:
    return FakeFlink()


@pytest.fixture
def function(flink: FakeFlink, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(window_show, "LiveWindows", _Redis)
    function = ShowWindows("redis://127.0.0.1:1/0")
    function.open(flink)
    return function


def _show(function: Any, end_s: int, packed: str | None = None, window: str = "1s") -> None:
    row = (window, end_s, pack_windows(VALUES) if packed is None else packed)
    assert list(function.process_element(row, None)) == []


def test_windows_are_shown_with_their_end(function: Any, flink: FakeFlink) -> None:
    end_s = int(time.time())
    _show(function, end_s)
    function._show._windows.news = 0
    _show(function, end_s, window="5m")
    assert function._show._windows.published == [("1s", end_s * 1000, VALUES), ("5m", end_s * 1000, VALUES)]
    assert flink.counts == {"windows_shown": 2, "windows_already_shown": 2}


def test_windows_of_long_ago_are_no_news(function: Any, flink: FakeFlink) -> None:
    _show(function, int(time.time()) - LIVE_FOR_MS // 1000 - 1)
    assert function._show._windows.published == []
    assert flink.counts["windows_too_old"] == 2


def test_a_redis_that_is_away_is_left_alone_for_a_while(
    function: Any, flink: FakeFlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(window_show.time, "monotonic", lambda: now_s)
    function._show._windows.away = True
    end_s = int(time.time())
    _show(function, end_s)
    _show(function, end_s)
    assert function._show._windows.tries == 1
    assert flink.counts["windows_left_out"] == 4
    function._show._windows.away = False
    now_s += window_show.RETRY_AFTER_S
    _show(function, end_s)
    assert [end_ms for _, end_ms, _ in function._show._windows.published] == [end_s * 1000]


def test_damaged_records_are_counted(function: Any, flink: FakeFlink) -> None:
    _show(function, int(time.time()), packed=pack_windows(VALUES) + "\x1edamaged")
    assert flink.counts["windows_rejected"] == 1
    assert len(function._show._windows.published) == 1

"""The bench's watch finds rows when they are committed, each once."""

from __future__ import annotations

import time

import pytest

from bench.freshness import FreshnessWatch
from plantwire.schemas.records import Metric
from plantwire.storage.tables import TelemetryTables
from tests.integration.storage.storage_rig import keeping_for_ever, write_all
from tests.telemetry_truth import frame, record


def test_each_frame_is_timed_once_and_an_overtaken_one_is_only_counted(
    plain_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.freshness.SETTLE_S", 1.0)
    tables = TelemetryTables(keeping_for_ever(plain_database))
    tables.ready()
    now_ms = time.time_ns() // 1_000_000
    watch = FreshnessWatch(plain_database, ["press-1", "press-2"], "a", (now_ms - 1000, now_ms + 1000))
    watch.start()

    def write(device_id: str, *times_ms: int) -> None:
        write_all(tables, [record(frame(device_id, at_ms, Metric("a", 1.0))) for at_ms in times_ms], 100)

    write("press-1", now_ms - 2000, now_ms - 500, now_ms - 400)  # the first is before the window
    write("press-2", now_ms - 300)
    write("press-3", now_ms - 300)  # not watched
    deadline_s = time.monotonic() + 10
    while len(watch._ages_ms) < 3:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)  # paces the question
    write("press-1", now_ms - 450)
    found = watch.result()
    tables.close()
    assert found.unseen == 1
    assert found.age_ms is not None
    assert found.age_ms.count == 3
    assert found.age_ms.p50 >= 300
    assert found.looks > 10

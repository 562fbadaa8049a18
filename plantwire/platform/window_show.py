"""Live windows on their way to Redis, while they are news.

In: the windows of one moment. Out: Redis (`platform.live_windows`).
Guarantees: never holds its caller back for longer than the socket time-out, and, while Redis is away, not
even that more than once per `RETRY_AFTER_S`. A window that cannot be shown then is counted and left out: the
next one is more to the point, and all of them are in the database.
Not here: how the windows come about (the engines).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import redis
import structlog

from plantwire.platform.live_windows import LiveWindows
from plantwire.schemas.windows import Window, WindowValues

SOCKET_TIMEOUT_S: Final = 1.0
RETRY_AFTER_S: Final = 1.0
LIVE_FOR_MS: Final = 60_000
"""A window that ended longer ago is no news: its maker is catching up with what came while it was away."""

_log = structlog.get_logger(__name__)


class WindowShow:
    """`counters` makes a counter (anything with `inc(number)`) of a name."""

    def __init__(self, redis_url: str, counters: Callable[[str], Any]) -> None:
        self._windows = LiveWindows(
            redis.Redis.from_url(
                redis_url,
                socket_timeout=SOCKET_TIMEOUT_S,
                socket_connect_timeout=SOCKET_TIMEOUT_S,
                socket_keepalive=True,
            )
        )
        self._retry_at_s = 0.0
        self._count_shown = counters("windows_shown")
        self._count_known = counters("windows_already_shown")
        self._count_left_out = counters("windows_left_out")
        self._count_old = counters("windows_too_old")

    def show(
        self, window: Window, end_ms: int, devices: Mapping[str, Mapping[str, WindowValues]], now_ms: int
    ) -> None:
        """Show the windows that ended at `end_ms`, device → metric → values."""
        if now_ms - end_ms > LIVE_FOR_MS:
            self._count_old.inc(len(devices))
            return
        news = self._publish(window, end_ms, devices)
        if news is None:
            self._count_left_out.inc(len(devices))
        else:
            self._count_shown.inc(news)
            self._count_known.inc(len(devices) - news)

    def _publish(
        self, window: Window, end_ms: int, devices: Mapping[str, Mapping[str, WindowValues]]
    ) -> int | None:
        """Of how many devices the window was news; None where Redis is away."""
        now_s = time.monotonic()
        if now_s < self._retry_at_s:
            return None
        try:
            return self._windows.publish(window, end_ms, devices)
        except redis.RedisError as error:
            self._retry_at_s = now_s + RETRY_AFTER_S
            _log.warning("live-windows", redis="away", reason=str(error))
            return None

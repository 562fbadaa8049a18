"""Live windows as a Flink function: packed windows → Redis.

In: rows of (window, end in s, packed values). Out: Redis (`platform.live_windows`); nothing downstream.
Guarantees: never holds the job back for longer than the socket time-out, and, while Redis is away, not even
that more than once per `RETRY_AFTER_S`. A window that cannot be shown then is counted and left out: the next
one is more to the point, and all of them are in the database.
Not here: the windows themselves (`jobs.telemetry_aggregation`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import redis
import structlog
from pyflink.datastream import ProcessFunction

from plantwire.platform.live_windows import LiveWindows
from plantwire.schemas.windows import WINDOWS, unpack_windows

SOCKET_TIMEOUT_S: Final = 1.0
RETRY_AFTER_S: Final = 1.0
LIVE_FOR_MS: Final = 60_000
"""A window that ended longer ago is no news: the job is catching up with what came while it was away."""

_log = structlog.get_logger(__name__)


class ShowWindows(ProcessFunction):
    """Writes each row's windows to Redis."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url

    def open(self, runtime_context: Any) -> None:
        self._windows = LiveWindows(
            redis.Redis.from_url(
                self._redis_url,
                socket_timeout=SOCKET_TIMEOUT_S,
                socket_connect_timeout=SOCKET_TIMEOUT_S,
                socket_keepalive=True,
            )
        )
        self._retry_at_s = 0.0
        metrics = runtime_context.get_metrics_group().add_group("plantwire")
        self._count_shown = metrics.counter("windows_shown")
        self._count_known = metrics.counter("windows_already_shown")
        self._count_left_out = metrics.counter("windows_left_out")
        self._count_old = metrics.counter("windows_too_old")
        self._count_rejected = metrics.counter("windows_rejected")

    def process_element(self, row: Any, ctx: Any) -> Iterator[Any]:  # noqa: ARG002 - Flink's signature
        devices, rejected = unpack_windows(row[2])
        if rejected:
            self._count_rejected.inc(rejected)
        end_ms = row[1] * 1000
        if time.time_ns() // 1_000_000 - end_ms > LIVE_FOR_MS:
            self._count_old.inc(len(devices))
            return
        news = self._show(row[0], end_ms, devices)
        if news is None:
            self._count_left_out.inc(len(devices))
        else:
            self._count_shown.inc(news)
            self._count_known.inc(len(devices) - news)
        yield from ()

    def _show(self, window: str, end_ms: int, devices: Any) -> int | None:
        """Of how many devices the window was news; None where Redis is away."""
        now_s = time.monotonic()
        if now_s < self._retry_at_s:
            return None
        try:
            return self._windows.publish(WINDOWS[window], end_ms, devices)
        except redis.RedisError as error:
            self._retry_at_s = now_s + RETRY_AFTER_S
            _log.warning("live-windows", redis="away", reason=str(error))
            return None

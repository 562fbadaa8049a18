"""Live windows as a Flink function: packed windows → Redis.

In: rows of (window, end in s, packed values). Out: Redis (`platform.window_show`); nothing downstream.
Guarantees: never holds the job back, see there.
Not here: the windows themselves (`jobs.telemetry_aggregation`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pyflink.datastream import ProcessFunction

from plantwire.platform.window_show import WindowShow
from plantwire.schemas.windows import WINDOWS, unpack_windows


class ShowWindows(ProcessFunction):
    """Writes each row's windows to Redis."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url

    def open(self, runtime_context: Any) -> None:
        counter = runtime_context.get_metrics_group().add_group("plantwire").counter
        self._show = WindowShow(self._redis_url, counter)
        self._count_rejected = counter("windows_rejected")

    def process_element(self, row: Any, ctx: Any) -> Iterator[Any]:  # noqa: ARG002 - Flink's signature
        devices, rejected = unpack_windows(row[2])
        if rejected:
            self._count_rejected.inc(rejected)
        self._show.show(WINDOWS[row[0]], row[1] * 1000, devices, time.time_ns() // 1_000_000)
        yield from ()

"""How old a sample is when a query first finds it: from a device's intended time to a row.

In: a database, device ids, the window. Out: `Freshness`.
Guarantees: one device's frame counts once, when a query after it was committed has answered, so the time of
the asking and the pause between two askings are in the figure. `unseen` frames came after a newer one of
their device; they are in the database, and not in the figure.
Not here: the load (`bench.load_generator`), the run (`bench.latency_run`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import psycopg

from bench.spread import Distribution, distribution

PAUSE_S: Final = 0.02
SETTLE_S: Final = 5.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NEWER: Final = """
SELECT d.place, r.time
FROM unnest(%s::text[], %s::timestamptz[]) WITH ORDINALITY AS d (device_id, after, place)
CROSS JOIN LATERAL (
    SELECT time FROM device_telemetry
    WHERE device_id = d.device_id AND metric = %s AND time > d.after AND time < %s
) r"""
_ALL: Final = """
SELECT count(*) FROM device_telemetry
WHERE device_id = ANY (%s) AND metric = %s AND time > %s AND time < %s"""


class Freshness(msgspec.Struct, frozen=True):
    """What was seen of the frames with a time in the window."""

    age_ms: Distribution | None
    unseen: int
    looks: int
    look_ms: Distribution | None
    """How long one query took."""


class FreshnessWatch:
    """Asks the database on a thread of its own. `start` it, then `result`."""

    def __init__(
        self, database: str, devices: Sequence[str], metric: str, window_ms: tuple[int, int]
    ) -> None:
        self._database = database
        self._devices = list(devices)
        self._metric = metric
        self._begin, self._end = (_EPOCH + timedelta(milliseconds=at_ms) for at_ms in window_ms)
        self._ages_ms: list[float] = []
        self._looks_ms: list[float] = []
        self._failure: psycopg.Error | None = None
        self._unseen = 0
        self._thread = threading.Thread(target=self._run, name="freshness", daemon=True)

    def start(self) -> None:
        """Begin to ask; call it before the window."""
        self._thread.start()

    def result(self) -> Freshness:
        """What was seen, some seconds after the window's end; raises psycopg.Error."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return Freshness(
            distribution(self._ages_ms), self._unseen, len(self._looks_ms), distribution(self._looks_ms)
        )

    def _run(self) -> None:
        try:
            with psycopg.connect(self._database, autocommit=True) as connection:
                self._watch(connection)
        except psycopg.Error as error:
            self._failure = error

    def _watch(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        newest = [self._begin] * len(self._devices)
        pause = threading.Event()
        while datetime.now(UTC) < self._end + timedelta(seconds=SETTLE_S):
            began_s = time.perf_counter()
            rows = connection.execute(_NEWER, (self._devices, newest, self._metric, self._end)).fetchall()
            now = datetime.now(UTC)
            self._looks_ms.append((time.perf_counter() - began_s) * 1000)
            for place, at in rows:
                self._ages_ms.append((now - at) / timedelta(milliseconds=1))
                newest[place - 1] = max(newest[place - 1], at)
            pause.wait(PAUSE_S)
        found = connection.execute(_ALL, (self._devices, self._metric, self._begin, self._end)).fetchone()
        self._unseen = (found[0] if found is not None else 0) - len(self._ages_ms)

"""What the tables need beside being written: rollups without TimescaleDB, and deleting what is old.

In: settings, a database. Out: computed tiers, fewer old rows.
Guarantees: a failure is counted and tried again; nothing old is deleted before the tiers above were computed
in the same round. Several processes may do it: each step is one process's at a time.
Not here: the steps (`rollups`, `retention`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import psycopg
import structlog

from plantwire.storage.metrics import StorageMetrics
from plantwire.storage.migration import Connection, SchemaError, Variant, require_current
from plantwire.storage.retention import ROWS_PER_STEP, delete_old, kept
from plantwire.storage.rollups import MARKS_PER_STEP, ROLLUPS, Rollup, roll_up
from plantwire.storage.settings import StorageSettings
from plantwire.storage.tables import describe, open_connection

EVERY_S: Final = {"telemetry_1m": 2.0, "telemetry_1h": 20.0, "telemetry_1d": 120.0}
"""How far each tier may be behind; the higher, the more a bucket costs."""
RETENTION_EVERY_S: Final = 600.0
TICK_S: Final = 1.0
RETRY_S: Final = 5.0

log = structlog.get_logger()


class Upkeep:
    """`run` it on a thread of its own until `stopping` is set."""

    def __init__(
        self,
        settings: StorageSettings,
        metrics: StorageMetrics,
        stopping: threading.Event,
        connect: Callable[[StorageSettings, str], Connection] = open_connection,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._stopping = stopping
        self._connect = connect
        self._clock = clock
        self._due_s: dict[str, float] = {}

    def run(self) -> None:
        """Work until `stopping`; the database may be away."""
        while not self._stopping.is_set():
            try:
                with self._connect(self._settings, "plantwire-storage-upkeep") as connection:
                    variant = require_current(connection)
                    while not self._stopping.wait(TICK_S):
                        self.step(connection, variant)
            except (psycopg.Error, SchemaError) as error:
                self._metrics.failures.labels("upkeep").inc()
                log.info("upkeep_failed", reason=describe(error))
                self._stopping.wait(RETRY_S)

    def step(self, connection: Connection, variant: Variant) -> None:
        """What is due now; raises psycopg.Error."""
        if variant is Variant.POSTGRESQL:
            for rollup in ROLLUPS:
                if self._is_due(rollup.tier, EVERY_S[rollup.tier]):
                    self._roll_up(connection, rollup)
        if self._is_due("retention", RETENTION_EVERY_S):
            if variant is Variant.POSTGRESQL:
                for rollup in ROLLUPS:
                    self._roll_up(connection, rollup)
            for keep in kept(self._settings, variant):
                rows = ROWS_PER_STEP
                while rows == ROWS_PER_STEP and not self._stopping.is_set():
                    rows = delete_old(connection, keep)
                    self._metrics.deleted.labels(keep.table).inc(rows)

    def _roll_up(self, connection: Connection, rollup: Rollup) -> None:
        marks = MARKS_PER_STEP
        while marks == MARKS_PER_STEP and not self._stopping.is_set():
            marks, buckets = roll_up(connection, rollup)
            self._metrics.rolled_up.labels(rollup.tier).inc(buckets)

    def _is_due(self, what: str, every_s: float) -> bool:
        now_s = self._clock()
        if now_s < self._due_s.get(what, 0.0):
            return False
        self._due_s[what] = now_s + every_s
        return True

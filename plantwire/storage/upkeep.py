"""What the tables need beside being written: rollups without TimescaleDB, and deleting what is old.

In: settings, a database. Out: computed tiers, fewer old rows, refresh policies that reach as far as they may.
Guarantees: what fails is counted, stands in /readyz, and is tried again; it holds up only what relies on it:
a tier loses no old rows unless all tiers were computed in the same round. A step that takes too long is tried
again with less. Several processes may do it: each step is one process's at a time.
Not here: the steps (`rollups`, `retention`, `policies`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

import psycopg
import structlog

from plantwire.platform.health import Health
from plantwire.storage.metrics import StorageMetrics
from plantwire.storage.migration import Connection, SchemaError, Variant, require_current
from plantwire.storage.pace import Pace
from plantwire.storage.policies import apply_policies
from plantwire.storage.retention import EPOCH, ROWS_PER_STEP, Keep, delete_old, kept, note_gone
from plantwire.storage.rollups import MARKS_PER_STEP, ROLLUPS, Rollup, roll_up
from plantwire.storage.settings import StorageSettings
from plantwire.storage.tables import describe, open_connection

UPKEEP: Final = "upkeep"
EVERY_S: Final = {"telemetry_1m": 2.0, "telemetry_1h": 20.0, "telemetry_1d": 120.0}
"""How far each tier may be behind; the higher, the more a bucket costs."""
RETENTION_EVERY_S: Final = 600.0
FROM_THE_START_EVERY_S: Final = 86_400.0
"""How often a delete looks for rows older than where the last one ended."""
TICK_S: Final = 1.0
RETRY_S: Final = 5.0
_ROLLED_UP: Final = frozenset(table for rollup in ROLLUPS for table in (rollup.below, rollup.tier))

log = structlog.get_logger()


class Upkeep:
    """`run` it on a thread of its own until `stopping` is set."""

    def __init__(
        self,
        settings: StorageSettings,
        metrics: StorageMetrics,
        health: Health,
        stopping: threading.Event,
        connect: Callable[[StorageSettings, str], Connection] = open_connection,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._health = health
        self._stopping = stopping
        self._connect = connect
        self._clock = clock
        self._due_s: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._rollup_paces = {rollup.tier: Pace(MARKS_PER_STEP) for rollup in ROLLUPS}
        self._delete_pace = Pace(ROWS_PER_STEP)
        self._since: dict[str, datetime] = {}

    def run(self) -> None:
        """Work until `stopping`; the database may be away."""
        self._health.report(UPKEEP, None)
        while not self._stopping.is_set():
            try:
                with self._connect(self._settings, "plantwire-storage-upkeep") as connection:
                    variant = require_current(connection)
                    while not self._stopping.wait(TICK_S):
                        self.step(connection, variant)
            except (psycopg.Error, SchemaError) as error:
                self._metrics.failures.labels(UPKEEP).inc()
                log.info("upkeep_failed", reason=describe(error))
                self._stopping.wait(RETRY_S)

    def step(self, connection: Connection, variant: Variant) -> None:
        """What is due now; raises psycopg.Error where the connection is lost."""
        self._roll_up_due(connection, variant)
        if not self._is_due("retention", RETENTION_EVERY_S):
            return
        rolled_up = True
        if variant is Variant.POSTGRESQL:
            for rollup in ROLLUPS:
                rolled_up &= self._roll_up(connection, rollup)
        elif self._settings.storage_migrate:
            self._attempt(connection, "policies", lambda: apply_policies(connection, self._settings))
        if self._is_due("from the start", FROM_THE_START_EVERY_S):
            self._since.clear()
        for keep in kept(self._settings, variant):
            if rolled_up or keep.table not in _ROLLED_UP:
                self._delete(connection, variant, keep)

    def _roll_up_due(self, connection: Connection, variant: Variant) -> None:
        if variant is Variant.POSTGRESQL:
            for rollup in ROLLUPS:
                if self._is_due(rollup.tier, EVERY_S[rollup.tier]):
                    self._roll_up(connection, rollup)

    def _roll_up(self, connection: Connection, rollup: Rollup) -> bool:
        """Whether no mark is left."""
        pace = self._rollup_paces[rollup.tier]

        def step() -> bool:
            size, began_s = pace.size, self._clock()
            marks, buckets = roll_up(connection, rollup, size)
            pace.took(self._clock() - began_s)
            self._metrics.rolled_up.labels(rollup.tier).inc(buckets)
            return marks == size

        return self._repeat(connection, rollup.tier, step, pace)

    def _delete(self, connection: Connection, variant: Variant, keep: Keep) -> None:
        before: datetime | None = None

        def step() -> bool:
            nonlocal before
            if before is None:
                before = note_gone(connection, keep.table, keep.days)
            began_s = self._clock()
            since = self._since.get(keep.table, EPOCH)
            deleted = delete_old(connection, keep, since, before, self._delete_pace.size)
            self._delete_pace.took(self._clock() - began_s)
            self._since[keep.table] = deleted.since
            self._metrics.deleted.labels(keep.table).inc(deleted.rows)
            if deleted.more:
                self._roll_up_due(connection, variant)
            return deleted.more

        self._repeat(connection, f"deleting from {keep.table}", step, self._delete_pace)

    def _repeat(self, connection: Connection, what: str, step: Callable[[], bool], pace: Pace) -> bool:
        """Do steps until one says that nothing is left; whether one did."""
        while not self._stopping.is_set():
            more = self._attempt(connection, what, step, pace)
            if not more:
                return more is False
        return False

    def _attempt(
        self, connection: Connection, what: str, work: Callable[[], bool], pace: Pace | None = None
    ) -> bool | None:
        """What `work` answers; None where it failed, True where it is to be tried again with less."""
        try:
            answer = work()
        except psycopg.Error as error:
            if connection.closed:
                raise
            self._metrics.failures.labels(UPKEEP).inc()
            reason = describe(error)
            self._failed[what] = reason
            log.warning("upkeep_failed", what=what, reason=reason)
            too_slow = isinstance(error, psycopg.errors.QueryCanceled)
            return True if too_slow and pace is not None and pace.given_up() else None
        else:
            self._failed.pop(what, None)
            return answer
        finally:
            failed = "; ".join(f"{one}: {reason}" for one, reason in self._failed.items())
            self._health.report(UPKEEP, failed or None)

    def _is_due(self, what: str, every_s: float) -> bool:
        now_s = self._clock()
        if now_s < self._due_s.get(what, 0.0):
            return False
        self._due_s[what] = now_s + every_s
        return True

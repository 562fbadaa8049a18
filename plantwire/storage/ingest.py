"""The way in: gather records, write them, settle them; again and again.

In: a source of records, the tables, the dead-letter topic. Out: rows; offsets committed after them.
Guarantees: a record is settled only when all its samples are durable, or it is a dead letter that Kafka has
acknowledged. While the database or Kafka is away nothing is fetched and nothing is lost: the batch in hand is
tried again, at growing intervals, until it is through or the process is told to stop. Batches are written one
after the other, in the order in which they were read. At most two are in memory: while the database works on
one, on a thread of its own, the next is gathered.
Not here: what is in a record (`reading`), how rows are written (`tables`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Final, Protocol

import structlog

from plantwire.platform.health import Health
from plantwire.storage.batch import MINUTE_MS, Batch, Island, Record, Refusal
from plantwire.storage.dead_letters import DeadLetterError
from plantwire.storage.metrics import StorageMetrics
from plantwire.storage.reach import Bounds, horizon_ms
from plantwire.storage.reading import RecordReader
from plantwire.storage.settings import StorageSettings
from plantwire.storage.supply import IDLE_PING_S, KAFKA, Source, Supply
from plantwire.storage.tables import DatabaseAwayError, RefusedError, Stored, TooSlowError

DATABASE: Final = "database"
REASON_REFUSED: Final = "refused-by-the-database"
BATCH_MAX_BYTES: Final = 32 * 1024 * 1024
"""Of rows; long texts reach it before the number of samples does."""
MOVED_MS: Final = 5 * MINUTE_MS
"""How far the time before which samples are too late may move on while a batch waits; a margin follows it."""
SILENCE_S: Final = 20.0
"""Without an answer for so long the database counts as away; a statement has a bound of its own."""
TAKE_S: Final = 0.01
"""How long to wait for further records while the database works on the batch before."""

log = structlog.get_logger()


class Tables(Protocol):
    """What `tables.TelemetryTables` offers."""

    def ready(self) -> None:
        """Raises DatabaseAwayError where it is not."""

    def bounds(self) -> Bounds:
        """What the database knows of retention; raises DatabaseAwayError."""

    def write(self, island: Island, partitions: list[int]) -> Stored:
        """One transaction."""

    def write_expired(self, island: Island) -> int:
        """Rows too old for the tiers."""


class Letters(Protocol):
    """What `dead_letters.DeadLetters` offers."""

    def send(self, refusals: list[Refusal], now_ms: int) -> None:
        """Raises DeadLetterError."""


class _Work:
    """A batch, and what of it is left to write."""

    def __init__(self, records: list[Record], batch: Batch) -> None:
        self.records = records
        self.failures = 0
        self.take(batch)

    def take(self, batch: Batch) -> None:
        """All of it is to be written."""
        self.batch = batch
        self.islands = batch.islands()
        self.expired = batch.expired()


class Ingest:
    """`run` it on a thread of its own until `stopping` is set. `executor` has the thread that writes."""

    def __init__(
        self,
        settings: StorageSettings,
        source: Source,
        tables: Tables,
        letters: Letters,
        metrics: StorageMetrics,
        health: Health,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._tables = tables
        self._letters = letters
        self._metrics = metrics
        self._stopping = stopping
        self._clock = clock
        self._executor = executor
        up = {DATABASE: metrics.database_up, KAFKA: metrics.kafka_up}
        self._supply = Supply(source, health, up, metrics.lag, stopping, clock)
        self._reader = RecordReader()
        self._bounds: Bounds = {}
        self._written_s = -IDLE_PING_S
        self._writing: tuple[_Work, Future[Exception | None]] | None = None

    def run(self) -> None:
        """Store what comes until `stopping`; raises SourceError."""
        with self._executor or ThreadPoolExecutor(1, thread_name_prefix="writer") as executor:
            while not self._stopping.is_set():
                work = self._gather()
                self._supply.look()
                if not self._finish(executor):
                    return
                # With nothing to write the database is asked whether it is there, now and then.
                if work.records or self._clock() - self._written_s >= IDLE_PING_S:
                    self._writing = work, executor.submit(self._attempt, work)
            self._finish(executor)

    def _gather(self) -> _Work:
        batch, records = Batch(), []
        deadline_s = self._clock() + self._settings.storage_batch_ms / 1000
        while not self._stopping.is_set():
            left_s = deadline_s - self._clock()
            some = self._source.take(left_s if left_s > 0 else TAKE_S if self._busy() else 0.0)
            records += some
            self._reader.read(some, self._horizon_ms(), batch)
            full = (
                batch.samples >= self._settings.storage_batch_samples or batch.size_bytes >= BATCH_MAX_BYTES
            )
            if full or (self._clock() >= deadline_s and not self._busy()):
                break
        return _Work(records, batch)

    def _busy(self) -> bool:
        return self._writing is not None and not self._writing[1].done()

    def _finish(self, executor: Executor) -> bool:
        """Whether what was being written is through; False only when told to stop."""
        while self._writing is not None:
            work, attempt = self._writing
            error = self._answer(attempt)
            self._supply.report(DATABASE, str(error) if isinstance(error, DatabaseAwayError) else None)
            if error is None:
                self._writing = None
                self._written_s = self._clock()
                self._source.resume()
                if work.records:
                    self._source.settle(work.records)
                    self._count(work.batch)
                return True
            if isinstance(error, DeadLetterError):
                self._supply.report(KAFKA, str(error))
            self._metrics.failures.labels(
                DATABASE if isinstance(error, DatabaseAwayError) else "dead-letters"
            ).inc()
            work.failures += 1
            if not self._supply.wait(work.failures, self._settings.storage_retry_max_s):
                return False
            self._writing = work, executor.submit(self._attempt, work)
        return True

    def _answer(self, attempt: Future[Exception | None]) -> Exception | None:
        """What an attempt came to. While the database is silent the health says so, and the process stays a
        living member of its consumer group.
        """
        began_s = self._clock()
        while True:
            try:
                return attempt.result(SILENCE_S)
            except TimeoutError:
                if attempt.done():
                    raise
            silence_s = self._clock() - began_s
            self._supply.report(DATABASE, f"no answer for {silence_s:.0f} s")
            self._source.pause()
            self._source.wait(0.1)

    def _attempt(self, work: _Work) -> Exception | None:
        """Write what is left of a batch; what stood in the way, None when it is through."""
        try:
            if not work.islands and work.expired is None:
                self._tables.ready()
            else:
                self._bounds = self._tables.bounds()
                self._judge_again(work)
            batch = work.batch
            while work.islands:
                self._write(work.islands, batch)
            if work.expired is not None:
                self._write_expired(work.expired, batch)
                work.expired = None
            self._letters.send(batch.refused, _now_ms())
        except (DatabaseAwayError, DeadLetterError) as error:
            return error
        if batch.oldest_received_ms is not None:
            self._metrics.age_s.observe(max(0.0, (_now_ms() - batch.oldest_received_ms) / 1000))
        return None

    def _judge_again(self, work: _Work) -> None:
        """Read a batch anew where the rows beside its own may have been deleted since it was gathered: the
        database was away for long, or had not been asked yet.
        """
        if work.islands and work.islands[0].first_minute * MINUTE_MS < self._horizon_ms() - MOVED_MS:
            batch = Batch()
            RecordReader().read(work.records, self._horizon_ms(), batch)
            work.take(batch)

    def _horizon_ms(self) -> int:
        return horizon_ms(self._settings, self._bounds, _now_ms())

    def _write(self, islands: list[Island], batch: Batch) -> None:
        """The last island; one that is through, or divided, is off the list. Of two halves the first one
        goes first: of two samples with the same key the earlier one stays.
        """
        island = islands[-1]
        began_s = self._clock()
        try:
            stored = self._tables.write(island, sorted(batch.partitions))
        except RefusedError as error:
            islands.pop()
            if len(island.pieces) > 1:
                islands.extend(reversed(island.halves()))
            else:
                self._refuse(island, error, batch)
            return
        except TooSlowError:
            if len(island.pieces) > 1:
                islands[-1:] = reversed(island.halves())
            raise
        islands.pop()
        self._metrics.write_s.observe(self._clock() - began_s)
        self._metrics.samples.labels("stored").inc(stored.samples)
        self._metrics.samples.labels("duplicate").inc(island.samples - stored.samples)
        self._metrics.seconds.labels("new").inc(stored.seconds_new)
        self._metrics.seconds.labels("reopened").inc(stored.seconds_reopened)

    def _write_expired(self, island: Island, batch: Batch) -> None:
        todo = [island]
        while todo:
            part = todo.pop()
            try:
                stored = self._tables.write_expired(part)
            except RefusedError as error:
                if len(part.pieces) > 1:
                    todo.extend(reversed(part.halves()))
                else:
                    self._refuse(part, error, batch)
                continue
            self._metrics.samples.labels("expired").inc(stored)
            self._metrics.samples.labels("duplicate").inc(part.samples - stored)

    def _refuse(self, island: Island, error: RefusedError, batch: Batch) -> None:
        record = island.pieces[0].record
        log.warning("record_refused", partition=record.partition, offset=record.offset, reason=str(error))
        batch.refused.append(Refusal(record, REASON_REFUSED))

    def _count(self, batch: Batch) -> None:
        self._metrics.frames.inc(batch.frames)
        self._metrics.late.inc(batch.late_samples)
        for _, reason in batch.refused:
            self._metrics.refused_frames.labels(reason).inc()
        for reason, count in batch.refused_samples.items():
            self._metrics.refused_samples.labels(reason).inc(count)
        for reason, count in batch.left_out.items():
            self._metrics.left_out.labels(reason).inc(count)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

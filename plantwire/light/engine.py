"""What both processes of the engine have in common: go on from the state file, take, wake, save.

In: a `Work`, which says what becomes of records and timers. Out: its states and positions, saved together.
Guarantees: a record counts as taken only with the states that it changed, and these are saved only once Kafka
has what came of them; so a process that is killed at any moment does again what was not saved, and what comes
of it has the ids that it had. Timers wait until what had come meanwhile is read, or for `SETTLE_S`.
Not here: the work (`detection`, `live_picture`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from plantwire.light.kafka_source import Cluster, KafkaSource, ReadUp, Record
from plantwire.light.metrics import LightMetrics
from plantwire.light.saving import STATE, Saver
from plantwire.light.state_file import Positions, Progress, StateFile
from plantwire.light.states import States
from plantwire.light.timers import Timers
from plantwire.platform.health import Health

KAFKA: Final = "kafka"
PARTS: Final = (KAFKA, STATE)
TICK_S: Final = 0.25
LOOK_EVERY_S: Final = 5.0
SETTLE_S: Final = 60.0

_log = structlog.get_logger(__name__)


class Work(Protocol):
    """What the engine runs. Its methods are called from one thread."""

    topics: tuple[str, ...]
    """What is read from where it was left."""

    def prepare(self, cluster: Cluster, states: States, windows: bytes | None) -> bool:
        """Get ready, before the first record; False when told to stop meanwhile."""

    def add(self, topic: str, partition: int) -> None:
        """A partition is read from now on."""

    def take(self, record: Record) -> None:
        """A record came."""

    def read_up(self, topic: str, partition: int) -> None:
        """There is nothing more in a partition for now."""

    def wake(self, device_id: str, timer_ms: int) -> None:
        """A device's timer has come."""

    def tick(self) -> None:
        """Called after each round, and at least every `TICK_S`."""

    @property
    def mark(self) -> int:
        """How much has been sent so far."""

    def has_settled(self, mark: int) -> bool:
        """Whether what was sent up to a mark is where it shall be."""

    def open_windows(self) -> bytes | None:
        """What is open beside the states of devices, if anything is."""

    def finish(self, timeout_s: float) -> bool:
        """Wait for all that was sent; whether it is where it shall be."""

    def close(self) -> None:
        """Let go."""


class Engine:
    """`run` until `stopping`. `source` reads `work.topics` and whatever the work itself begins."""

    def __init__(
        self,
        work: Work,
        source: KafkaSource,
        file: StateFile,
        save_every_s: float,
        metrics: LightMetrics,
        health: Health,
        stopping: threading.Event,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._work = work
        self._source = source
        self._file = file
        self._save_every_s = save_every_s
        self._metrics = metrics
        self._health = health
        self._stopping = stopping
        self._clock_ms = clock_ms
        self._saver = Saver(file, health, source.commit)
        self._timers = Timers()
        self._positions: Positions = {}
        self._saved: Positions = {}
        self._behind: set[tuple[str, int]] = set()
        self._seen: Cluster | None = None
        self._ready_to_save: tuple[int, Progress] | None = None
        self._save_at_s = 0.0

    def run(self) -> None:
        """Go on from where it was, until told to stop. Raises SourceError, StateFileError, OutletError."""
        looking = threading.Thread(target=self._look, name="look", daemon=True)
        try:
            cluster = self._source.connect()
            if cluster is None:
                return
            self._file.open(cluster.id)
            self._positions = self._file.positions()
            self._saved = dict(self._positions)
            states = self._states = States(self._file.devices(), self._timers)
            if not self._work.prepare(cluster, states, self._file.windows()):
                return
            self._begin(cluster)
            self._saver.start()
            looking.start()
            self._health.report(KAFKA, None)
            _log.info("engine-started", devices=len(states.packed))
            self._loop()
            self._finish()
        finally:
            self._stopping.set()
            self._saver.close()
            if looking.is_alive():
                looking.join()
            self._work.close()
            self._file.close()
            self._source.close()

    def _begin(self, cluster: Cluster) -> None:
        for topic in self._work.topics:
            partitions = cluster.partitions.get(topic, frozenset())
            for partition in partitions:
                self._work.add(topic, partition)
                self._behind.add((topic, partition))
            self._source.begin(topic, partitions, self._positions)

    def _loop(self) -> None:
        settled_s = time.monotonic() + SETTLE_S
        while not self._stopping.is_set():
            for came in self._source.take(self._wait_s()):
                self._take(came)
            if self._behind and time.monotonic() > settled_s:
                self._behind.clear()
            if not self._behind:
                for device_id, timer_ms in self._timers.due(self._clock_ms()):
                    self._work.wake(device_id, timer_ms)
            self._work.tick()
            self._save()
            if self._seen is not None:
                self._add_partitions(self._seen)

    def _take(self, came: Record | ReadUp) -> None:
        if isinstance(came, Record):
            self._work.take(came)
            if came.topic in self._work.topics:
                self._positions[came.topic, came.partition] = came.offset + 1
        else:
            self._behind.discard((came.topic, came.partition))
            self._work.read_up(came.topic, came.partition)

    def _wait_s(self) -> float:
        next_ms = None if self._behind else self._timers.next_ms()
        if next_ms is None:
            return TICK_S
        return min(TICK_S, max(0.0, (next_ms - self._clock_ms()) / 1000))

    def _save(self) -> None:
        if self._ready_to_save is None:
            now_s = time.monotonic()
            if now_s < self._save_at_s or not self._saver.is_idle:
                return
            progress = self._progress()
            if progress is None:
                return
            self._save_at_s = now_s + self._save_every_s
            self._ready_to_save = self._work.mark, progress
        mark, progress = self._ready_to_save
        if self._work.has_settled(mark):
            self._saver.hand_over(progress)
            self._ready_to_save = None

    def _progress(self) -> Progress | None:
        """What changed since this was last asked; None where nothing did."""
        moved = {place: n for place, n in self._positions.items() if self._saved.get(place) != n}
        changed = self._states.take_changed()
        if not moved and not changed:
            return None
        self._saved.update(moved)
        return Progress(moved, changed, self._work.open_windows())

    def _finish(self) -> None:
        """Save all, where Kafka has all that was sent; else the next start does the last of it again."""
        if not self._work.finish(10.0):
            _log.warning("not-all-sent", advice="it is sent again at the next start")
            return
        waiting, self._ready_to_save = self._ready_to_save, None
        self._saver.close()
        if not self._saver.is_idle:
            return  # the disk fails: what came later must not be saved without it
        for progress in (None if waiting is None else waiting[1], self._progress()):
            if progress is not None:
                self._file.save(progress)
                self._source.commit(progress.positions)

    def _look(self) -> None:
        while not self._stopping.is_set():
            self._seen = self._source.look()
            obstacle = self._source.obstacle
            if self._health.report(KAFKA, obstacle):
                _log.warning("kafka-away", reason=obstacle) if obstacle else _log.info("kafka-back")
            self._metrics.lag.set(self._source.lag(dict(self._positions)))
            self._metrics.devices.set(len(self._states.packed))
            self._stopping.wait(LOOK_EVERY_S if obstacle is None else 1.0)

    def _add_partitions(self, cluster: Cluster) -> None:
        self._seen = None
        for topic in self._work.topics:
            for partition in self._source.unread(topic, cluster.partitions.get(topic, frozenset())):
                _log.info("partition-added", topic=topic, partition=partition)
                self._work.add(topic, partition)
                self._source.begin(topic, {partition}, self._positions)

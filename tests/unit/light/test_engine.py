"""The engine between Kafka, the work and the state file: what is saved when, and what waits for what."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plantwire.light.engine import KAFKA, PARTS, Engine
from plantwire.light.kafka_source import Cluster, ReadUp, Record
from plantwire.light.metrics import LightMetrics
from plantwire.light.state_file import Positions, StateFile
from plantwire.light.states import States
from plantwire.platform.health import Health

TOPIC = "frames"
WAIT_S = 20
Came = Record | ReadUp


def record(offset: int, partition: int = 0, key: str = "a") -> Record:
    return Record(TOPIC, partition, offset, key, b"%d" % offset)


class Source:
    """In place of a `KafkaSource`: what the test puts in, one batch at a time."""

    obstacle: str | None = None

    def __init__(self) -> None:
        self.partitions = {0}
        self.begun: dict[int, Positions] = {}
        self.told: Positions = {}
        self._batches: list[list[Came]] = []
        self._condition = threading.Condition()

    def put(self, *came: Came) -> None:
        """A batch; returns when it is fetched."""
        with self._condition:
            self._batches.append(list(came))
            assert self._condition.wait_for(lambda: not self._batches, WAIT_S)

    def connect(self) -> Cluster:
        return self.look()

    def look(self) -> Cluster:
        return Cluster("one", {TOPIC: frozenset(self.partitions)})

    def begin(self, _topic: str, partitions: Iterable[int], positions: Positions) -> None:
        self.begun.update({partition: dict(positions) for partition in partitions})

    def unread(self, _topic: str, partitions: Iterable[int]) -> frozenset[int]:
        return frozenset(partitions) - self.begun.keys()

    def take(self, _timeout_s: float) -> Iterator[Came]:
        with self._condition:
            batch = self._batches.pop(0) if self._batches else []
            self._condition.notify_all()
            if not batch:
                self._condition.wait(0.002)
        yield from batch

    def commit(self, positions: Positions) -> None:
        self.told.update(positions)

    def lag(self, _positions: Positions) -> int:
        return 0

    def close(self) -> None:
        pass


class Work:
    """Notes what it is given; each record is its device's state, and something that is sent."""

    topics = (TOPIC,)

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.woken: list[tuple[str, int]] = []
        self.added: list[int] = []
        self.mark = 0
        self.settled = 0
        self.found: dict[str, bytes] = {}

    def prepare(self, _cluster: Cluster, states: States, _windows: bytes | None) -> bool:
        self.states = states
        self.found = dict(states.packed)
        for device_id in states.packed:
            states.timers.set(device_id, 1)
        return True

    def add(self, _topic: str, partition: int) -> None:
        self.added.append(partition)

    def read_up(self, topic: str, partition: int) -> None:
        pass

    def take(self, record: Record) -> None:
        self.taken.append(record.offset)
        self.states.of(record.key or "").save(record.body or b"")
        self.mark += 1

    def wake(self, device_id: str, timer_ms: int) -> None:
        self.woken.append((device_id, timer_ms))

    def tick(self) -> None:
        pass

    def has_settled(self, mark: int) -> bool:
        return self.settled >= mark

    def open_windows(self) -> bytes | None:
        return None

    def finish(self, _timeout_s: float) -> bool:
        return self.settled >= self.mark

    def close(self) -> None:
        pass


class Running:
    """An engine in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.source, self.work, self.health = Source(), Work(), Health(PARTS)
        self._stopping = threading.Event()
        file: Any = StateFile(path)
        source: Any = self.source
        engine = Engine(self.work, source, file, 0.0, LightMetrics(), self.health, self._stopping)
        self._thread = threading.Thread(target=engine.run)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def until(self, condition: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline_s
            time.sleep(0.002)  # paces the question


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Running]]:
    running: list[Running] = []

    def started() -> Running:
        running.append(Running(tmp_path / "state.db"))
        return running[-1]

    yield started
    for one in running:
        one.stop()


def saved(path: Path) -> tuple[Positions, dict[str, bytes]]:
    file = StateFile(path)
    file.open("one")
    found = file.positions(), file.devices()
    file.close()
    return found


def test_nothing_is_saved_before_what_came_of_it_has_settled(
    start: Callable[[], Running], tmp_path: Path
) -> None:
    first = start()
    first.source.put(record(0), record(1))
    first.until(lambda: first.work.taken == [0, 1])
    first.work.settled = 2
    first.until(lambda: first.source.told == {(TOPIC, 0): 2})
    first.source.put(record(2))
    first.until(lambda: first.work.taken == [0, 1, 2])
    # Kafka does not acknowledge the last one: neither its state nor its position may be kept.
    first.stop()
    assert saved(tmp_path / "state.db") == ({(TOPIC, 0): 2}, {"a": b"1"})
    second = start()
    second.until(lambda: second.work.added == [0])
    assert second.work.found == {"a": b"1"}
    assert second.source.begun[0] == {(TOPIC, 0): 2}
    second.work.settled = 10


def test_a_stop_saves_the_last(start: Callable[[], Running], tmp_path: Path) -> None:
    running = start()
    running.work.settled = 10
    running.source.put(record(0), record(1, key="b"))
    running.until(lambda: running.work.taken == [0, 1])
    running.stop()
    assert saved(tmp_path / "state.db") == ({(TOPIC, 0): 2}, {"a": b"0", "b": b"1"})


def test_timers_wait_for_what_had_come_meanwhile(start: Callable[[], Running]) -> None:
    first = start()
    first.work.settled = 10
    first.source.put(record(0))
    first.until(lambda: first.source.told == {(TOPIC, 0): 1})
    first.stop()
    second = start()
    second.work.settled = 10
    second.source.put(record(1))
    second.source.put()
    assert second.work.woken == []
    second.source.put(ReadUp(TOPIC, 0))
    second.until(lambda: second.work.woken == [("a", 1)])


def test_a_partition_that_is_added_is_read(
    start: Callable[[], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plantwire.light.engine.LOOK_EVERY_S", 0.01)
    running = start()
    running.until(lambda: running.work.added == [0])
    running.source.partitions.add(1)
    running.until(lambda: running.work.added == [0, 1])
    assert running.source.begun.keys() == {0, 1}


def test_a_kafka_that_is_away_is_told(start: Callable[[], Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plantwire.light.engine.LOOK_EVERY_S", 0.01)
    running = start()
    running.until(lambda: not running.health.obstacles())
    running.source.obstacle = "broken"
    running.until(lambda: running.health.obstacles() == [f"{KAFKA}: broken"])
    running.source.obstacle = None
    running.until(lambda: not running.health.obstacles())

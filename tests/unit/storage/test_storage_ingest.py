"""Nothing is settled before it is durable, whatever is away; what is never taken becomes a dead letter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from plantwire.platform.health import Health
from plantwire.schemas.records import Metric
from plantwire.storage import ingest
from plantwire.storage.batch import Island, Record, Refusal
from plantwire.storage.dead_letters import DeadLetterError
from plantwire.storage.ingest import DATABASE, REASON_REFUSED, Ingest
from plantwire.storage.metrics import StorageMetrics
from plantwire.storage.reach import MARGIN_MS, Bound, Bounds
from plantwire.storage.settings import StorageSettings
from plantwire.storage.supply import KAFKA
from plantwire.storage.tables import DatabaseAwayError, RefusedError, Stored, TooSlowError
from tests.telemetry_truth import frame, record

NOW_MS = 1_790_000_000_000


class AtOnce(Executor):
    """Writes before the next record is taken."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class World:
    """Source, tables and dead letters in one, with what happened to them in order."""

    obstacle: str | None = None

    def __init__(self, *batches: list[Record]) -> None:
        self.stopping = threading.Event()
        self.metrics = StorageMetrics()
        self.health = Health((DATABASE, KAFKA))
        self.batches = list(batches)
        self.records = sum(map(len, batches))
        self.happened: list[str] = []
        self.written: list[int] = []
        self.expired: list[int] = []
        self.known: Bounds = {}
        self.settled: list[int] = []
        self.letters: list[Refusal] = []
        self.database_fails = 0
        self.letters_fail = 0
        self.poison: set[int] = set()
        self.pieces_max = 1000
        self.now_s = 0.0
        self.on_wait: Callable[[], None] = lambda: None
        self.on_write: Callable[[], None] = lambda: None

    def run(self, executor: Executor | None = None, samples: int = 50_000) -> None:
        tiers = ("raw", "1s", "1m", "1h")
        for_ever: dict[str, Any] = {f"storage_keep_{tier}_days": 0 for tier in tiers}
        settings = StorageSettings(storage_batch_ms=1, storage_batch_samples=samples, **for_ever)
        Ingest(
            settings, self, self, self, self.metrics, self.health, self.stopping,
            clock=lambda: self.now_s, executor=executor or AtOnce(),
        ).run()  # fmt: skip

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"plantwire_storage_{name}", labels) or 0.0

    # Source
    def take(self, timeout_s: float) -> list[Record]:
        self.now_s += timeout_s
        if not self.batches:
            if len(self.settled) == self.records and not self.database_fails and not self.letters_fail:
                self.stopping.set()
            return []
        return self.batches.pop(0)

    def settle(self, records: list[Record]) -> None:
        self.happened.append("settled")
        self.settled += [one.offset for one in records]

    def pause(self) -> None:
        self.happened.append("paused")

    def resume(self) -> None:
        self.happened.append("resumed")

    def wait(self, timeout_s: float) -> None:
        self.now_s += timeout_s
        self.on_wait()

    def look(self, timeout_s: float) -> int | None:
        return 0

    # Tables
    def ready(self) -> None:
        self._touch()

    def bounds(self) -> Bounds:
        self._touch()
        return self.known

    def write(self, island: Island, partitions: list[int]) -> Stored:
        self.on_write()
        self._touch()
        offsets = [piece.record.offset for piece in island.pieces]
        if len(offsets) > self.pieces_max:
            raise TooSlowError("canceling statement due to statement timeout")
        if self.poison & set(offsets):
            raise RefusedError("no")
        self.happened.append("written")
        self.written += offsets
        return Stored(island.samples, 1, 0)

    def write_expired(self, island: Island) -> int:
        self.expired += [piece.record.offset for piece in island.pieces]
        return island.samples

    def _touch(self) -> None:
        if self.database_fails:
            self.database_fails -= 1
            raise DatabaseAwayError("it is away")

    # Dead letters
    def send(self, refusals: list[Refusal], now_ms: int) -> None:
        if self.letters_fail and refusals:
            self.letters_fail -= 1
            raise DeadLetterError("Kafka is away")
        self.letters += refusals


def records(*offsets: int) -> list[Record]:
    return [record(frame("press-1", NOW_MS + o, Metric("a", float(o))), o) for o in offsets]


def test_records_are_settled_after_they_are_written() -> None:
    world = World(records(0, 1), records(2))
    world.run()
    assert world.happened == ["written", "resumed", "settled"] * 2
    assert world.settled == world.written == [0, 1, 2]
    assert world.value("samples_total", outcome="stored") == 3
    assert world.value("frames_total") == 3
    assert world.health.obstacles() == []


def test_a_database_that_is_away_holds_the_batch_and_pauses_the_source() -> None:
    world = World(records(0, 1))
    world.database_fails = 3
    said: list[list[str]] = []
    world.on_wait = lambda: said.append(world.health.obstacles())
    world.run()
    assert world.happened == ["paused"] * 3 + ["written", "resumed", "settled"]
    assert world.settled == world.written == [0, 1]
    assert said[0] == ["database: it is away"]
    assert world.health.obstacles() == []
    assert world.value("failures_total", what="database") == 3


def test_a_stop_during_an_outage_settles_nothing() -> None:
    world = World(records(0, 1))
    world.database_fails = 1000
    world.on_wait = world.stopping.set
    world.run()
    assert world.settled == world.written == []


@pytest.mark.parametrize("poison", [{0}, {3}, {6}, {1, 2}, {0, 1, 2, 3, 4, 5, 6}])
def test_what_the_database_refuses_is_a_dead_letter_and_the_rest_is_stored(poison: set[int]) -> None:
    world = World(records(*range(7)))
    world.poison = poison
    world.run()
    assert world.written == sorted(set(range(7)) - poison)  # in order: the first of a key stays
    assert sorted(refusal.record.offset for refusal in world.letters) == sorted(poison)
    assert world.settled == list(range(7))
    assert world.value("frames_refused_total", reason=REASON_REFUSED) == len(poison)


def test_what_takes_too_long_is_written_in_smaller_parts() -> None:
    world = World(records(*range(7)))
    world.pieces_max = 2
    world.run()
    assert world.written == world.settled == list(range(7))
    assert world.happened.count("written") == 4
    assert world.happened.count("paused") == world.value("failures_total", what="database") == 3


def test_records_wait_for_their_dead_letters() -> None:
    world = World([record(b"\x01", 0, "press-1"), *records(1)])
    world.letters_fail = 2
    world.run()
    assert world.happened == ["written", "paused", "paused", "resumed", "settled"]
    assert [(r.record.offset, r.reason) for r in world.letters] == [(0, "undecodable")]
    assert world.settled == [0, 1]


def test_without_records_the_database_is_asked_whether_it_is_there() -> None:
    world = World([], [])
    world.database_fails = 1
    world.run()
    assert world.happened == ["paused", "resumed"]
    assert world.value("failures_total", what="database") == 1


def test_what_is_too_late_is_judged_again_when_the_database_is_back() -> None:
    world = World(records(0, 1, 2), records(3))
    world.batches[0][1] = record(frame("press-1", NOW_MS - 3 * MARGIN_MS, Metric("a", 1.0)), 1)
    world.database_fails = 3

    def delete() -> None:
        world.known = {"telemetry_1s": Bound(gone_before_ms=NOW_MS - 2 * MARGIN_MS)}

    world.on_wait = delete
    world.run()
    assert world.written == [0, 2, 3]
    assert world.expired == [1]
    assert world.settled == [0, 1, 2, 3]
    assert world.value("samples_total", outcome="stored") == 3
    assert world.value("samples_total", outcome="expired") == 1


class Working(Future[Any]):
    """Work that goes on until somebody waits for it, or has asked often enough."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self._work = work
        self._asked = 0

    def done(self) -> bool:
        self._asked += 1
        if self._asked == 50:
            self.set_result(self._work())
        return super().done()

    def result(self, timeout: float | None = None) -> Any:
        if not super().done():
            self.set_result(self._work())
        return super().result(timeout)


class UntilWaitedFor(Executor):
    """A database that is always at work while records are taken."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return Working(lambda: fn(*args, **kwargs))


def test_the_next_batch_is_gathered_while_the_database_works_on_one() -> None:
    world = World(*(records(n) for n in range(5)))
    world.run(UntilWaitedFor())
    assert world.written == world.settled == list(range(5))
    assert world.happened == ["written", "resumed", "settled"] * 2


def test_while_the_database_works_no_more_than_one_batch_is_gathered() -> None:
    world = World(*(records(n, n + 100) for n in range(4)))
    left: list[int] = []
    world.on_write = lambda: left.append(len(world.batches))
    world.run(UntilWaitedFor(), samples=2)
    assert left == [2, 1, 0, 0]
    assert world.written == world.settled == [0, 100, 1, 101, 2, 102, 3, 103]


def test_large_rows_end_a_batch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "BATCH_MAX_BYTES", 1)
    world = World(*(records(n) for n in range(3)))
    left: list[int] = []
    world.on_write = lambda: left.append(len(world.batches))
    world.run(UntilWaitedFor())
    assert left == [1, 0, 0]
    assert world.written == world.settled == [0, 1, 2]


def test_a_batch_that_fails_goes_before_the_one_gathered_meanwhile() -> None:
    world = World(*(records(n) for n in range(5)))
    world.database_fails = 2
    world.run(UntilWaitedFor())
    assert world.happened == ["paused", "paused"] + ["written", "resumed", "settled"] * 2
    assert world.written == world.settled == list(range(5))


class Silent(Working):
    """A database that does not answer for a while, nor end the connection."""

    silences = 3

    def done(self) -> bool:
        return not self.silences and super().done()

    def result(self, timeout: float | None = None) -> Any:
        if self.silences:
            assert timeout is not None
            self.silences -= 1
            raise TimeoutError
        return super().result(timeout)


class SilentAtFirst(Executor):
    submitted = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        kind = Silent if self.submitted == 1 else Working
        return kind(lambda: fn(*args, **kwargs))


def test_a_database_that_is_silent_is_told_of_and_its_batch_is_not_given_up() -> None:
    world = World(records(0, 1), records(2, 3))
    said: list[list[str]] = []
    world.on_wait = lambda: said.append(world.health.obstacles())
    world.run(SilentAtFirst(), samples=2)
    assert world.happened == ["paused"] * 3 + ["written", "resumed", "settled"] * 2
    assert [reasons[0].startswith("database: no answer for ") for reasons in said] == [True] * 3
    assert world.health.obstacles() == []
    assert world.written == world.settled == [0, 1, 2, 3]

"""A part's life under supervision, with a clock and a background that the test holds in its hands."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from plantwire.stack.child import Backoff, Child, State
from plantwire.stack.errors import StackError
from plantwire.stack.parts import Fixture


class FakePart(Fixture):
    """A part whose every answer the test sets."""

    def __init__(self) -> None:
        super().__init__("press")
        self.calls: list[str] = []
        self.answer: str | None = None
        self.end: str | None = None
        self.preparation: Exception | None = None

    def prepare(self) -> None:
        self.calls.append("prepare")
        if self.preparation is not None:
            raise self.preparation

    def start(self) -> None:
        self.calls.append("start")
        self.end = None

    def probe(self) -> str | None:
        return self.answer

    def ended(self) -> str | None:
        return self.end

    def clear_away(self) -> None:
        self.calls.append("clear away")


class Bench:
    """A child on a part, and the time."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.part = FakePart()
        self.held: list[Callable[[], None]] | None = None
        self.child = Child(
            self.part, frozenset({"kafka"}), clock=lambda: self.now_s, run=self._run, start_timeout_s=30.0
        )

    def _run(self, work: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()

        def finish() -> None:
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

        if self.held is None:
            finish()
        else:
            self.held.append(finish)
        return future

    def steps(self, count: int = 1, *, well: frozenset[str] = frozenset({"kafka"})) -> State:
        for _ in range(count):
            self.child.step(well)
        return self.child.state

    def ready(self) -> None:
        assert self.steps(4) is State.READY


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_waits_for_what_it_needs(bench: Bench) -> None:
    assert bench.steps(3, well=frozenset({"redis"})) is State.WAITING
    assert bench.part.calls == []
    assert bench.steps(1) is State.PREPARING


def test_it_is_ready_when_the_probe_is_content_and_not_before(bench: Bench) -> None:
    bench.part.answer = "still loading"
    assert bench.steps(5) is State.STARTING
    assert not bench.child.well
    bench.part.answer = None
    bench.now_s += 2.5
    assert bench.steps(2) is State.READY
    assert bench.child.well
    assert bench.child.started_after_s == pytest.approx(2.5)


def test_preparing_takes_as_long_as_it_takes(bench: Bench) -> None:
    bench.held = []
    assert bench.steps(10) is State.PREPARING
    bench.held[0]()
    assert bench.steps(1) is State.STARTING
    assert bench.part.calls == ["prepare", "start"]


def test_a_death_is_followed_by_a_start_at_once_and_counted(bench: Bench) -> None:
    bench.ready()
    bench.part.end = "it ended with signal SIGKILL"
    assert bench.steps(1) is State.PAUSING
    assert (bench.child.restarts, bench.child.last_end) == (1, "it ended with signal SIGKILL")
    assert not bench.child.well
    assert bench.steps(5) is State.READY
    assert bench.part.calls == ["prepare", "start", "clear away", "prepare", "start"]


def test_pauses_double_up_to_the_bound_and_start_anew_after_a_good_while(bench: Bench) -> None:
    pauses = []
    for _ in range(7):
        bench.ready()
        bench.part.end = "it ended with exit code 1"
        bench.steps(1)
        began_s = bench.now_s
        while bench.steps(1) is State.PAUSING:
            bench.now_s += 0.25
        pauses.append(bench.now_s - began_s)
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
    bench.ready()
    bench.now_s += 61
    bench.part.end = "it ended with exit code 1"
    bench.steps(1)
    assert bench.steps(1) is State.WAITING


def test_one_that_never_becomes_ready_is_started_again_after_the_time_limit(bench: Bench) -> None:
    bench.part.answer = "nothing answers"
    bench.steps(4)
    bench.now_s += 30.5
    assert bench.steps(1) is State.PAUSING
    assert bench.child.last_end == "it is not ready after 30 s: nothing answers"
    assert bench.child.failures_before_ready == 1
    assert "clear away" in bench.part.calls


def test_what_no_restart_can_mend_is_told_apart(bench: Bench) -> None:
    bench.part.preparation = StackError("There is no java on PATH")
    bench.steps(2)
    assert bench.child.fatal == "There is no java on PATH"
    assert bench.part.calls == ["prepare"]


def test_an_unwell_part_is_told_and_not_killed(bench: Bench) -> None:
    bench.ready()
    bench.part.answer = "Redis does not answer"
    bench.now_s += bench.part.probe_interval_s
    bench.steps(2)
    assert bench.child.state is State.READY
    assert not bench.child.well
    assert bench.child.unwell == "Redis does not answer"
    bench.part.answer = None
    bench.now_s += 1.0
    bench.steps(2)
    assert bench.child.well


def test_a_probe_that_hangs_is_not_asked_twice(bench: Bench) -> None:
    bench.ready()
    bench.held = []
    bench.now_s += 60
    bench.steps(5)
    assert len(bench.held) == 1


def test_a_late_answer_about_the_dead_one_does_not_make_the_new_one_ready(bench: Bench) -> None:
    bench.held = []
    bench.steps(1)
    bench.held.pop()()
    bench.steps(2)
    late = bench.held.pop()
    bench.part.end = "it ended with exit code 1"
    bench.steps(1)
    bench.held.pop()()  # what was left is cleared away
    bench.steps(2)
    bench.held.pop()()  # prepared
    bench.steps(1)
    late()
    assert bench.steps(1) is State.STARTING


def test_backoff_never_exceeds_its_bound() -> None:
    backoff = Backoff(first_s=0.5, longest_s=10.0)
    assert max(backoff.next_s(0.0) for _ in range(2000)) == 10.0

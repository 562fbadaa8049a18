"""How far the plant has come, by frames of several partitions: each case is a small history."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from plantwire.domain.live_windows import IDLE_MS
from plantwire.jobs.frame_tables import LIVE_WITHIN_MS, SETTLE_MS, WAIT_MS

BEGIN_MS = 1_700_000_000_000
TICK_MS = 50
Steps = list[list[int]]
UNKNOWN = -(2**63)


def history(span_ms: int, frames: Callable[[int], list[tuple[int, int]]], begin_ms: int = BEGIN_MS) -> Steps:
    """A question every `TICK_MS`, after the frames (partition, age in ms) of the time since the beginning."""
    steps: Steps = []
    for at_ms in range(0, span_ms, TICK_MS):
        now_ms = begin_ms + at_ms
        steps += [[partition, now_ms - age_ms, now_ms] for partition, age_ms in frames(at_ms)]
        steps.append([now_ms])
    return steps


def live(*partitions: int) -> Callable[[int], list[tuple[int, int]]]:
    return lambda _at_ms: [(partition, 0) for partition in partitions]


def another_has_a_backlog(at_ms: int) -> list[tuple[int, int]]:
    """Partition 0 is live; 1 is first read after two seconds, a minute behind, and takes 20 s for it."""
    behind_ms = max(0, 60_000 - 3 * (at_ms - 2_000))
    return [(0, 0)] if at_ms < 2_000 else [(0, 0), (1, behind_ms)]


def its_turn_comes_late(at_ms: int) -> list[tuple[int, int]]:
    """Partition 1 has a backlog of a minute that is read in two turns, 9 s apart; then it is silent."""
    return [(0, 0), *([(1, 60_000 - at_ms)] if at_ms in (0, 9_000) else [])]


def falls_silent(at_ms: int) -> list[tuple[int, int]]:
    return [(0, 200)] if at_ms < 5_000 else []


def one_falls_silent(at_ms: int) -> list[tuple[int, int]]:
    return [(0, 0), *([(1, 0)] if at_ms < 5_000 else [])]


def stands_still() -> Steps:
    """The process stops for 30 s; what came meanwhile is read partition by partition."""
    before = history(5_000, live(0, 1))
    after_ms = BEGIN_MS + 35_000
    between: Steps = [[after_ms]]
    for turn in range(4):
        now_ms = after_ms + TICK_MS * (turn + 1)
        between += [[0, now_ms - 20_000 + 5_000 * turn, now_ms], [now_ms]]
    # The other's turn comes now.
    return [*before, *between, [1, BEGIN_MS + 5_000, after_ms + 300], [after_ms + 300]]


SCENARIOS = {
    "live": history(10_000, live(0, 1)),
    "backlog": history(40_000, another_has_a_backlog),
    "turns": history(25_000, its_turn_comes_late),
    "silent": history(10_000, falls_silent),
    "one silent": history(10_000, one_falls_silent),
    "still": stands_still(),
    "out of order": history(10_000, lambda at_ms: [(0, at_ms * 7919 % 300)]),
    "nothing": [[BEGIN_MS], [BEGIN_MS + 60_000]],
    "all read": history(10_000, live(0, 1)),
    "unread": history(20_000, lambda _at_ms: [(0, 60_000)]),
}
PARTITIONS = {"all read": 2, "backlog": 2, "turns": 2}
"""Where there are not three of them, of which one is never read."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, int]]:
    """Scenario → time since the beginning → how far the plant has come, since the beginning."""
    folder = tmp_path_factory.mktemp("progress")
    (folder / "scenarios.json").write_bytes(
        orjson.dumps([[PARTITIONS.get(name, 3), steps] for name, steps in SCENARIOS.items()])
    )
    # A process of its own: a JVM in this one would outlive the tests.
    result = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("progress_steps.py")),
            str(folder / "scenarios.json"),
            str(folder / "answers.json"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    answers = orjson.loads((folder / "answers.json").read_bytes())
    found: dict[str, dict[int, int]] = {}
    for (name, steps), answer in zip(SCENARIOS.items(), answers, strict=True):
        times = [step[0] - BEGIN_MS for step in steps if len(step) == 1]
        found[name] = dict(zip(times, (a if a == UNKNOWN else a - BEGIN_MS for a in answer), strict=True))
    return found


def test_nothing_is_told_until_every_partition_has_shown_itself(told: dict[str, dict[int, int]]) -> None:
    assert set(told["nothing"].values()) == {UNKNOWN}
    for at_ms, reached_ms in told["live"].items():
        assert reached_ms == (UNKNOWN if at_ms < SETTLE_MS else at_ms)
    assert all(reached_ms == at_ms for at_ms, reached_ms in told["all read"].items())
    # Where there is a backlog, it is likely in the one that is not read yet, too.
    for at_ms, reached_ms in told["unread"].items():
        assert reached_ms == (UNKNOWN if at_ms < WAIT_MS else at_ms - 60_000)


def test_it_never_goes_back(told: dict[str, dict[int, int]]) -> None:
    for answers in told.values():
        assert list(answers.values()) == sorted(answers.values())


def test_a_backlog_holds_back_those_that_are_live(told: dict[str, dict[int, int]]) -> None:
    for at_ms, reached_ms in told["backlog"].items():
        behind_ms = max(0, 60_000 - 3 * (at_ms - 2_000))
        assert reached_ms == (UNKNOWN if at_ms < 2_000 else at_ms - behind_ms)


def test_a_partition_with_a_backlog_is_waited_for_but_not_for_ever(told: dict[str, dict[int, int]]) -> None:
    answers = told["turns"]
    assert {answers[at_ms] for at_ms in range(0, 9_000, TICK_MS)} == {-60_000}
    assert answers[9_000 + WAIT_MS - TICK_MS] == -51_000 + 9_000
    assert answers[9_000 + WAIT_MS + TICK_MS] == 9_000 + WAIT_MS + TICK_MS


def test_a_silent_partition_holds_nothing_back(told: dict[str, dict[int, int]]) -> None:
    answers, last_ms = told["one silent"], 5_000 - TICK_MS
    assert answers[last_ms + IDLE_MS - TICK_MS] == last_ms
    assert answers[last_ms + IDLE_MS + TICK_MS] == last_ms + IDLE_MS + TICK_MS


def test_the_time_of_a_silent_plant_goes_on(told: dict[str, dict[int, int]]) -> None:
    """Its own time: 200 ms behind this clock it stays."""
    answers, last_ms = told["silent"], 5_000 - TICK_MS
    assert answers[last_ms + IDLE_MS] == last_ms - 200
    assert answers[9_000] == 9_000 - 200 - IDLE_MS


def test_what_came_while_the_process_stood_still_is_waited_for(told: dict[str, dict[int, int]]) -> None:
    assert max(told["still"].values()) == 5_000
    assert LIVE_WITHIN_MS < 30_000


def test_frames_out_of_order_do_not_hold_it_back(told: dict[str, dict[int, int]]) -> None:
    lags_ms = [at_ms - reached_ms for at_ms, reached_ms in told["out of order"].items() if at_ms > SETTLE_MS]
    assert max(lags_ms) < 300

"""How Sparkplug's frames reach the intake: in order, in turns, and stale ones until they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from plantwire.gateway.buffer.entry import DropReason
from plantwire.gateway.forwarder import DeadLetter, Obstacle, UnavailableError
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.sparkplug import hand_over as module
from plantwire.gateway.sparkplug.hand_over import HandOver
from plantwire.schemas.records import QUALITY_GOOD, QUALITY_STALE, Metric, TelemetryFrame

FULL = UnavailableError(Obstacle.IN_FLIGHT_FULL, "full")
RETURNED, NO_ROOM = DropReason.RETURNED, DropReason.NO_ROOM


def frame(number: int, metrics: int = 1, quality: int = QUALITY_GOOD) -> TelemetryFrame:
    values = tuple(Metric(f"m{n}", 1.0, None, quality) for n in range(metrics))
    return TelemetryFrame("G:Press", "G", number, 1, 1, "sparkplug-b", False, values)


def stale(number: int, metrics: int = 1) -> TelemetryFrame:
    return frame(number, metrics, QUALITY_STALE)


class Intake:
    """Notes what it is given. Refuses `refusals` times, in turns at once and by its future."""

    def __init__(self) -> None:
        self.taken: list[int | None] = []
        self.dropped: list[int | None] = []
        self.attempts: list[DropReason] = []
        self.refusals = 0
        self.letters: list[DropReason] = []

    def put(self, frames: Sequence[TelemetryFrame], refusal: DropReason = RETURNED) -> asyncio.Future[None]:
        self.attempts.append(refusal)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.refusals:
            self.refusals -= 1
            if self.refusals % 2:
                raise FULL
            future.set_exception(FULL)
        else:
            self.taken += [one.sequence for one in frames]
            future.set_result(None)
        return future

    def put_or_drop(self, frames: Sequence[TelemetryFrame]) -> None:
        numbers = [one.sequence for one in frames]
        if self.refusals:
            self.dropped += numbers
        else:
            self.taken += numbers

    def put_dead_letter(self, letter: DeadLetter, refusal: DropReason = RETURNED) -> asyncio.Future[None]:
        self.letters.append(refusal)
        return asyncio.get_running_loop().create_future()


class Rig:
    def __init__(self) -> None:
        self.intake = Intake()
        self.metrics = GatewayMetrics()
        self.hand_over = HandOver(self.intake, self.metrics.unavailable)

    def unavailable(self) -> float:
        labels = {"transport": "sparkplug", "reason": "in-flight-full"}
        return self.metrics.registry.get_sample_value("plantwire_gateway_unavailable_total", labels) or 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - the loop's own timers bring it about
                await asyncio.sleep(0.001)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(module, "_RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(module, "_RETRY_LONGEST_S", 0.002)
    return Rig()


async def test_few_frames_go_at_once(rig: Rig) -> None:
    rig.hand_over.take([frame(1), frame(2)])
    assert rig.intake.taken == [1, 2]


async def test_many_go_one_slice_a_turn_and_later_ones_behind_them(rig: Rig) -> None:
    rig.hand_over.take([frame(n, metrics=1000) for n in range(4)])
    rig.hand_over.take([frame(4)])
    turns = [list(rig.intake.taken)]
    while len(rig.intake.taken) < 5:
        await asyncio.sleep(0)
        turns.append(list(rig.intake.taken))
    assert turns == [list(range(n)) for n in range(6)]
    rig.hand_over.take([frame(5)])
    assert rig.intake.taken[-1] == 5, "nothing waits any more"


async def test_beyond_the_bound_all_go_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_COST_MAX", 5000)
    rig.hand_over.take([frame(n, metrics=1000) for n in range(4)])
    assert rig.intake.taken == []
    rig.hand_over.take([frame(4, metrics=1000)])
    assert rig.intake.taken == [0, 1, 2, 3, 4]
    await asyncio.sleep(0)  # the turn that had been planned finds nothing
    assert rig.intake.taken == [0, 1, 2, 3, 4]


async def test_values_that_find_no_room_are_dropped(rig: Rig) -> None:
    rig.intake.refusals = 1
    rig.hand_over.take([frame(1)])
    assert rig.intake.dropped == [1]


@pytest.mark.parametrize("refusals", [1, 2, 5])
async def test_stale_ones_are_tried_until_they_are_kept(rig: Rig, refusals: int) -> None:
    rig.intake.refusals = refusals
    rig.hand_over.take([stale(1)])
    await rig.until(lambda: rig.intake.taken == [1])
    assert rig.intake.attempts == [RETURNED] * (refusals + 1), "each is accounted for as sent again"
    assert rig.unavailable() == refusals
    await rig.hand_over.close()


async def test_more_stale_ones_than_may_be_owed_are_dropped(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OWED_COST_MAX", 20)
    rig.intake.refusals = 10**9
    for number in range(4):
        rig.hand_over.take([stale(number)])
    assert rig.intake.dropped == [3]
    rig.intake.refusals = 0
    await rig.until(lambda: len(rig.intake.taken) == 3)
    await asyncio.sleep(0)  # a task tells of its end one turn later
    rig.intake.refusals = 1
    rig.hand_over.take([stale(4)])
    await rig.until(lambda: 4 in rig.intake.taken)  # what was kept is owed no longer


async def test_a_lost_broker_is_told_slice_by_slice(rig: Rig) -> None:
    answers: list[asyncio.Future[None]] = []

    def put(frames: Sequence[TelemetryFrame], refusal: DropReason = RETURNED) -> asyncio.Future[None]:
        answers.append(asyncio.get_running_loop().create_future())
        return answers[-1]

    rig.intake.put = put  # type: ignore[method-assign]
    telling = asyncio.create_task(rig.hand_over.tell_stale([stale(n, metrics=1000) for n in range(3)]))
    for number in range(3):
        await rig.until(lambda: len(answers) > number)  # noqa: B023 - awaited within the turn
        assert len(answers) == number + 1
        assert not telling.done()
        answers[-1].set_result(None)
    await telling


async def test_without_room_a_lost_broker_holds_nothing_up(rig: Rig) -> None:
    rig.intake.refusals = 10**9
    async with asyncio.timeout(5):
        await rig.hand_over.tell_stale([stale(n, metrics=1000) for n in range(3)])
    assert rig.intake.taken == []
    rig.intake.refusals = 0
    await rig.until(lambda: sorted(rig.intake.taken, key=int) == [0, 1, 2])  # type: ignore[arg-type]


async def test_at_a_stop_there_is_one_last_attempt(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_FIRST_S", 60.0)
    monkeypatch.setattr(module, "_RETRY_LONGEST_S", 60.0)
    rig.intake.refusals = 10**9 + 1
    rig.hand_over.take([stale(1)])
    async with asyncio.timeout(5):
        await rig.hand_over.tell_stale([stale(2)])
        rig.hand_over.stop_trying()
        await rig.hand_over.tell_stale([stale(3)])
        await rig.hand_over.close()
    assert rig.intake.attempts == [RETURNED, RETURNED, NO_ROOM, NO_ROOM, NO_ROOM]


async def test_what_waits_for_its_turn_goes_before_the_end(rig: Rig) -> None:
    rig.hand_over.take([frame(n, metrics=1000) for n in range(3)])
    await rig.hand_over.close()
    assert rig.intake.taken == [0, 1, 2]


async def test_a_dead_letter_without_room_is_dropped_for_that(rig: Rig) -> None:
    rig.hand_over.put_dead_letter(DeadLetter(b"x", Rejected(Reason.NOT_BORN, "no"), "sparkplug:t", 1))
    assert rig.intake.letters == [NO_ROOM]

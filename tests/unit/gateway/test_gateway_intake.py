"""The intake: who sees a frame, in which order, and what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from plantwire.gateway.buffer.entry import DropReason
from plantwire.gateway.buffer.ledger import Ledger
from plantwire.gateway.forwarder import DeadLetter, Obstacle, UnavailableError
from plantwire.gateway.intake import Intake, Observed
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.records import AlarmEvent, Metric, TelemetryFrame
from tests.builders import alarm_event

REFUSAL = UnavailableError(Obstacle.NOT_ACKNOWLEDGED, "no")


def frame(number: int, *, historical: bool = False) -> TelemetryFrame:
    return TelemetryFrame("press-1", "", number, 1, 1, "http", historical, (Metric("t", float(number)),))


class Store:
    """The durable forwarder's place."""

    def __init__(self) -> None:
        self.puts: list[tuple[list[TelemetryFrame], list[Sequence[AlarmEvent]], DropReason]] = []
        self.letters: list[tuple[DeadLetter, DropReason]] = []
        self.fails_at_once = False
        self.future: asyncio.Future[None] | None = None

    def put(
        self,
        frames: Sequence[TelemetryFrame],
        alarms: Sequence[Sequence[AlarmEvent]] = (),
        refusal: DropReason = DropReason.RETURNED,
    ) -> asyncio.Future[None]:
        if self.fails_at_once:
            raise REFUSAL
        self.puts.append((list(frames), list(alarms), refusal))
        self.future = asyncio.get_running_loop().create_future()
        return self.future

    def put_alarms(self, events: Sequence[AlarmEvent]) -> None:
        raise AssertionError("not the intake's to call")

    def put_dead_letter(
        self, letter: DeadLetter, refusal: DropReason = DropReason.RETURNED
    ) -> asyncio.Future[None]:
        self.letters.append((letter, refusal))
        return asyncio.get_running_loop().create_future()

    async def ready(self) -> str | None:
        return "as it says"


class Edge:
    """Edge detection's place: an alarm for every frame numbered 9, state on every frame numbered 8."""

    def __init__(self) -> None:
        self.seen: list[int | None] = []

    def observe(self, arrived: TelemetryFrame) -> Observed:
        self.seen.append(arrived.sequence)
        if arrived.sequence == 9:
            return Observed(arrived, [alarm_event()])
        if arrived.sequence == 8:
            return Observed(msgspec.structs.replace(arrived, edge_state=b"s"))
        return Observed(arrived)

    def on_spilled(self, device_id: str, order: int) -> None:
        raise AssertionError("not the intake's to call")

    def on_delivered_with_state(self, device_id: str, order: int) -> None:
        raise AssertionError("not the intake's to call")


class Thinner:
    """Report by exception's place: nothing is ever new, but for frames numbered below 5."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def thin(self, arrived: TelemetryFrame) -> TelemetryFrame | None:
        return arrived if (arrived.sequence or 0) < 5 else None

    def forget(self, device_id: str) -> None:
        self.forgotten.append(device_id)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


async def test_without_edge_and_thinning_frames_go_straight_on(store: Store, ledger: Ledger) -> None:
    intake = Intake(store, ledger)
    assert intake.put([frame(1)]) is store.future
    assert store.puts == [([frame(1)], [], DropReason.RETURNED)]
    assert await intake.ready() == "as it says"


async def test_edge_detection_sees_every_live_frame_before_any_is_left_out(
    store: Store, ledger: Ledger
) -> None:
    edge = Edge()
    intake = Intake(store, ledger, edge, Thinner())
    intake.put([frame(1), frame(7), frame(6, historical=True), frame(9)])
    assert edge.seen == [1, 7, 9]
    ((frames, alarms, _),) = store.puts
    assert [f.sequence for f in frames] == [1, 9]
    assert [len(events) for events in alarms] == [0, 1]
    assert ledger.counts()["http"].dropped == {"unchanged": 2}


async def test_what_carries_state_goes_whole(store: Store, ledger: Ledger) -> None:
    Intake(store, ledger, Edge(), Thinner()).put([frame(8)])
    ((frames, _, _),) = store.puts
    assert [f.edge_state for f in frames] == [b"s"]


async def test_a_frame_with_an_alarm_takes_along_what_thinning_adds(store: Store, ledger: Ledger) -> None:
    class Adding(Thinner):
        def thin(self, arrived: TelemetryFrame) -> TelemetryFrame | None:
            return msgspec.structs.replace(arrived, metrics=(Metric("held", 1.0), *arrived.metrics))

    Intake(store, ledger, Edge(), Adding()).put([frame(9)])
    ((frames, alarms, _),) = store.puts
    assert [metric.name for metric in frames[0].metrics] == ["held", "t"]
    assert len(alarms[0]) == 1


async def test_frames_that_say_nothing_new_are_settled_at_once(store: Store, ledger: Ledger) -> None:
    future = Intake(store, ledger, None, Thinner()).put([frame(7)])
    assert future.done()
    assert not store.puts
    counts = ledger.counts()["http"]
    assert (counts.received, counts.in_hand, counts.identity_holds) == (1, 0, True)


async def test_a_refused_frame_is_reported_again(store: Store, ledger: Ledger) -> None:
    thinner = Thinner()
    intake = Intake(store, ledger, None, thinner)
    store.fails_at_once = True
    with pytest.raises(UnavailableError):
        intake.put([frame(1)])
    assert thinner.forgotten == ["press-1"]
    store.fails_at_once = False
    future = intake.put([frame(1)])
    assert store.future is not None
    store.future.set_exception(REFUSAL)
    with pytest.raises(UnavailableError):
        await future
    await asyncio.sleep(0)
    assert thinner.forgotten == ["press-1"] * 2


async def test_a_sender_that_cannot_be_told_is_not_told(store: Store, ledger: Ledger) -> None:
    intake = Intake(store, ledger)
    intake.put_or_drop([frame(1)])
    assert store.puts[0][2] is DropReason.NO_ROOM
    assert store.future is not None
    store.future.set_exception(REFUSAL)
    await asyncio.sleep(0)  # an exception that nobody fetched would fail the test
    store.fails_at_once = True
    intake.put_or_drop([frame(2)])


async def test_what_a_refusal_counts_as_is_passed_on(store: Store, ledger: Ledger) -> None:
    intake = Intake(store, ledger)
    letter = DeadLetter(b"x", Rejected(Reason.BAD_SHAPE, "no"), "mqtt:t", 1)
    intake.put([frame(1)], DropReason.NO_ROOM)
    intake.put([frame(2)])
    assert [refusal for _, _, refusal in store.puts] == [DropReason.NO_ROOM, DropReason.RETURNED]
    intake.put_dead_letter(letter, DropReason.NO_ROOM)
    intake.put_dead_letter(letter)
    assert store.letters == [(letter, DropReason.NO_ROOM), (letter, DropReason.RETURNED)]

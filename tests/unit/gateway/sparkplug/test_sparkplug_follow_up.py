"""What follows from outcomes: frames in turns, timers, requests, counts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from plantwire.gateway.buffer.entry import DropReason
from plantwire.gateway.forwarder import DeadLetter
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.sparkplug.edge_nodes import EdgeNodes
from plantwire.gateway.sparkplug.follow_up import FollowUp, monotonic_ms
from plantwire.gateway.sparkplug.outcome import (
    EdgeNodeId,
    Outcome,
    RebirthReason,
    RequestRebirth,
    SetTimer,
)
from plantwire.gateway.sparkplug.rebirth_pace import RebirthPace
from plantwire.schemas.records import Metric, TelemetryFrame

PRESS = EdgeNodeId("G", "Press")


def frame(number: int) -> TelemetryFrame:
    return TelemetryFrame(f"G:{number}", "G", None, 1, 1, "sparkplug-b", False, (Metric("t", 1.0),))


class Intake:
    """Holds every put until it is let go."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.letters: list[DeadLetter] = []

    def put(
        self, frames: Sequence[TelemetryFrame], refusal: DropReason = DropReason.RETURNED
    ) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((len(frames), future))
        return future

    def put_or_drop(self, frames: Sequence[TelemetryFrame]) -> None:
        self.put(frames)

    def put_dead_letter(
        self, letter: DeadLetter, refusal: DropReason = DropReason.RETURNED
    ) -> asyncio.Future[None]:
        self.letters.append(letter)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


class Nodes:
    """Notes which node's timer came due."""

    def __init__(self) -> None:
        self.expired: list[EdgeNodeId] = []
        self.due = asyncio.Event()

    def expire(self, edge_node: EdgeNodeId, _received_us: int, _now_ms: int) -> Outcome:
        self.expired.append(edge_node)
        self.due.set()
        return Outcome()


class Rig:
    def __init__(self, waiting_max: int = 10) -> None:
        self.nodes = Nodes()
        self.intake = Intake()
        self.metrics = GatewayMetrics()
        pace = RebirthPace(1000, waiting_max, monotonic_ms())
        self.follow_up = FollowUp(cast(EdgeNodes, self.nodes), self.intake, self.metrics, pace)

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"plantwire_gateway_{name}", labels) or 0.0


async def test_the_frames_of_a_lost_broker_go_in_turns() -> None:
    rig = Rig()
    sizes = [100] * 5 + [1900] + [100]  # a node with many devices has many frames
    outcomes = (Outcome(frames=tuple(frame(n) for n in range(size))) for size in sizes)
    telling = asyncio.create_task(rig.follow_up.tell_stale(outcomes))
    told: list[int] = []
    while not telling.done():
        await asyncio.sleep(0)
        assert len(rig.intake.waiting) <= 1
        for size, future in rig.intake.waiting:
            told.append(size)
            future.set_result(None)
        rig.intake.waiting.clear()
    assert told == [250, 250, 250, 250, 250, 250, 250, 250, 250, 150, 100]  # each frame has one metric


async def test_a_later_timer_replaces_an_earlier_one_and_none_cancels_it() -> None:
    rig = Rig()
    now_ms = monotonic_ms()
    other = EdgeNodeId("G", "Other")
    for effect in (
        SetTimer(PRESS, now_ms + 1),
        SetTimer(other, now_ms + 1),
        SetTimer(other, None),
        SetTimer(PRESS, now_ms + 30),
    ):
        rig.follow_up.apply(Outcome(effects=(effect,)))
    await asyncio.wait_for(rig.nodes.due.wait(), 5)
    assert monotonic_ms() >= now_ms + 29
    await asyncio.sleep(0.02)  # time for what should not come
    assert rig.nodes.expired == [PRESS]


async def test_no_timer_outlives_the_connection() -> None:
    rig = Rig()
    rig.follow_up.apply(Outcome(effects=(SetTimer(PRESS, monotonic_ms() + 10),)))
    rig.follow_up.close_gate()
    await asyncio.sleep(0.03)  # time for what should not come
    assert rig.nodes.expired == []


async def test_requests_wait_for_the_gate_and_end_with_it() -> None:
    rig = Rig()
    sent: list[str] = []
    ask = Outcome(effects=(RequestRebirth(PRESS, RebirthReason.MALFORMED),))
    rig.follow_up.apply(ask)
    assert rig.counted("sparkplug_rebirths_waiting") == 1
    rig.follow_up.open_gate(lambda topic, _payload: sent.append(topic))
    assert sent == ["spBv1.0/G/NCMD/Press"]
    assert rig.counted("sparkplug_rebirths_requested_total", reason="malformed") == 1
    rig.follow_up.close_gate()
    rig.follow_up.apply(ask)
    rig.follow_up.close_gate()
    rig.follow_up.open_gate(lambda topic, _payload: sent.append(topic))
    assert len(sent) == 1
    assert rig.counted("sparkplug_rebirths_waiting") == 0
    rig.follow_up.close_gate()


async def test_a_request_that_finds_no_room_is_counted() -> None:
    rig = Rig(waiting_max=1)
    for node in ("A", "B"):
        request = RequestRebirth(EdgeNodeId("G", node), RebirthReason.BEFORE_BIRTH)
        rig.follow_up.apply(Outcome(effects=(request,)))
    assert rig.counted("sparkplug_notes_total", note="rebirth-not-queued") == 1


@pytest.mark.parametrize("reasons", [(Reason.NOT_BORN,), (Reason.INVALID_VALUE, Reason.UNKNOWN_METRIC)])
async def test_a_message_is_one_dead_letter_and_each_reason_is_counted(reasons: tuple[Any, ...]) -> None:
    rig = Rig()
    outcome = Outcome(rejected=tuple(Rejected(reason, "no") for reason in reasons))
    rig.follow_up.apply(outcome, "spBv1.0/G/NDATA/Press", b"bytes", 5_000_000)
    await asyncio.sleep(0)
    (letter,) = rig.intake.letters
    source = "sparkplug:spBv1.0/G/NDATA/Press"
    assert letter == DeadLetter(b"bytes", Rejected(reasons[0], "no"), source, 5000, "sparkplug-b")
    for reason in reasons:
        assert rig.counted("rejected_total", transport="sparkplug", reason=reason.value) == 1
    assert rig.counted("dead_letters_total", reason=reasons[0].value) == 1

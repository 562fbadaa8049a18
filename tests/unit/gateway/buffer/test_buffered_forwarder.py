"""The forwarder between a scripted Kafka and a buffer in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from plantwire.gateway.buffer.buffered_forwarder import BufferedForwarder
from plantwire.gateway.buffer.durability import Mode
from plantwire.gateway.buffer.entry import DropReason, EntryKind
from plantwire.gateway.buffer.ledger import SAVED_KEY, SOURCE_EDGE_ALARMS, counts_without_gateway
from plantwire.gateway.forwarder import DeadLetter, Obstacle, UnavailableError
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.settings import GatewaySettings
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import Metric, TelemetryFrame
from tests.builders import alarm_event
from tests.unit.gateway.buffer.buffer_fakes import MemoryBuffer, ScriptedProducer

TIMED_OUT = KafkaError(KafkaError._MSG_TIMED_OUT)


def frame(number: int = 1, **changes: Any) -> TelemetryFrame:
    now_ms = int(time.time() * 1000)
    fields: dict[str, Any] = {
        "device_id": "press-1",
        "site": "",
        "sequence": number,
        "event_time_ms": now_ms,
        "received_time_ms": now_ms,
        "protocol": "http",
        "historical": False,
        "metrics": (Metric("t", 1.0),),
        "gateway_in_us": now_ms * 1000,
    }
    return TelemetryFrame(**(fields | changes))


class Rig:
    """A started forwarder with everything around it."""

    def __init__(self) -> None:
        self.metrics = GatewayMetrics()
        self.ledger = self.metrics.ledger
        self.producer = ScriptedProducer()
        self.buffer = MemoryBuffer(self.ledger.handle_drop)
        self.told: list[tuple[str, str, int]] = []
        settings = GatewaySettings(gateway_spill_after_ms=200)
        self.forwarder = BufferedForwarder(
            settings, self.metrics, self.ledger, cast(Any, self.producer), self.buffer
        )
        self.forwarder.watch(self)

    def on_spilled(self, device_id: str, order: int) -> None:
        self.told.append(("spilled", device_id, order))

    def on_delivered_with_state(self, device_id: str, order: int) -> None:
        self.told.append(("delivered", device_id, order))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # the forwarder's own clock has no event to wait for

    async def until_buffering(self) -> None:
        await self.until(lambda: self.forwarder.mode is Mode.BUFFERING)

    def check_ledger(self) -> None:
        for counts in self.ledger.counts().values():
            assert counts.identity_holds


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    made.forwarder.start()
    yield made
    made.check_ledger()
    if not made.producer.closed:
        await made.forwarder.close(0.3)
    made.check_ledger()


async def test_a_put_resolves_when_kafka_has_all_of_it(rig: Rig) -> None:
    future = rig.forwarder.put([frame(1), frame(2)])
    rig.producer.answer(count=1)
    assert not future.done()
    rig.producer.answer()
    await future
    assert not rig.buffer.rows
    assert await rig.forwarder.ready() is None
    assert rig.forwarder.note() is None


async def test_a_silent_kafka_lets_the_buffer_settle_and_a_late_answer_empties_it(rig: Rig) -> None:
    future = rig.forwarder.put([frame()], [[alarm_event()]])
    body = rig.producer.sent[0].entry.body
    await future
    assert rig.forwarder.mode is Mode.BUFFERING
    assert "buffering since" in (rig.forwarder.note() or "")
    assert await rig.forwarder.ready() is None
    kept = list(rig.buffer.rows.values())
    assert [entry.kind for entry in kept] == [EntryKind.TELEMETRY, EntryKind.ALARM]
    assert kept[0].body is body, "encoded once"
    assert rig.told == [("spilled", "press-1", 1)]
    rig.producer.answer()
    await rig.until(lambda: not rig.buffer.rows)
    assert rig.ledger.counts()["http"].delivered_live == 1
    assert rig.ledger.counts()[SOURCE_EDGE_ALARMS].delivered_live == 1


async def test_what_kafka_never_answers_stays_for_the_drain_which_is_woken(rig: Rig) -> None:
    await rig.forwarder.put([frame()])
    rig.producer.answer(TIMED_OUT)
    await rig.until(lambda: rig.forwarder.mode is Mode.DIRECT)  # by a probe: nothing else is in flight
    rig.forwarder.moved.clear()
    async with asyncio.timeout(5):
        await rig.forwarder.moved.wait()
    assert rig.forwarder.drain_below() is None
    assert len(rig.buffer.rows) == 1


async def test_without_kafka_the_mode_stays(rig: Rig) -> None:
    rig.producer.finding = "Kafka does not answer"
    await rig.forwarder.put([frame()])
    rig.producer.answer(TIMED_OUT)
    await rig.until(lambda: rig.producer.asked >= 3)
    assert rig.forwarder.mode is Mode.BUFFERING
    assert await rig.forwarder.ready() is None, "the buffer takes everything"


async def test_what_both_refuse_fails_and_says_so(rig: Rig) -> None:
    rig.buffer.refuses = "disk full"
    rig.producer.finding = "Kafka does not answer"
    future = rig.forwarder.put([frame()], refusal=DropReason.NO_ROOM)
    await rig.until_buffering()
    rig.producer.answer(TIMED_OUT)
    with pytest.raises(UnavailableError, match="disk full") as refusal:
        await future
    assert refusal.value.obstacle is Obstacle.NOT_ACKNOWLEDGED
    assert rig.ledger.counts()["http"].dropped == {"no-room": 1}
    assert "disk full" in (await rig.forwarder.ready() or "")
    rig.buffer.refuses = None
    # Saving the counts is what notices, without traffic.
    await rig.until(lambda: SAVED_KEY in rig.buffer.kept)
    await asyncio.sleep(0)
    assert await rig.forwarder.ready() is None


async def test_without_room_in_flight_the_buffer_alone_takes_it(rig: Rig) -> None:
    rig.producer.room = False
    await rig.forwarder.put([frame()])
    assert not rig.producer.sent
    assert len(rig.buffer.rows) == 1


async def test_without_room_anywhere_the_refusal_comes_at_once(rig: Rig) -> None:
    rig.producer.room = False
    rig.buffer.refuses = "disk full"
    with pytest.raises(UnavailableError):
        await rig.forwarder.put([frame()])  # the first finds out
    with pytest.raises(UnavailableError) as refusal:
        rig.forwarder.put([frame()])
    assert refusal.value.obstacle is Obstacle.IN_FLIGHT_FULL
    assert rig.ledger.counts()["http"].dropped == {"returned": 2}


async def test_a_dead_letter_without_room_counts_as_its_sender_has_it(rig: Rig) -> None:
    rig.producer.room = False
    rig.buffer.refuses = "disk full"
    letter = DeadLetter(b"x", Rejected(Reason.NOT_BORN, "no"), "sparkplug:t", 1, "sparkplug-b")
    for refusal in (DropReason.NO_ROOM, DropReason.RETURNED):
        with pytest.raises(UnavailableError):
            await rig.forwarder.put_dead_letter(letter, refusal)
    assert rig.ledger.counts()["sparkplug-b"].dropped == {"no-room": 1, "returned": 1}


async def test_a_buffer_that_could_not_be_opened_leaves_kafka_alone() -> None:
    rig = Rig()
    rig.buffer.refuses = "the edge buffer could not be opened: EIO"
    rig.forwarder.start(rig.buffer.refuses)
    assert await rig.forwarder.ready() is None
    assert "without the edge buffer: " in (rig.forwarder.note() or "")
    future = rig.forwarder.put([frame()])
    rig.producer.answer()
    await future
    rig.producer.finding = "Kafka does not answer"
    assert "EIO" in (await rig.forwarder.ready() or "")
    await rig.until(lambda: "plantwire_gateway_buffer_refusing 1.0" in rig.metrics.exposition().decode())
    await rig.forwarder.close(0.3)
    rig.check_ledger()


async def test_dead_letters_go_the_same_way(rig: Rig) -> None:
    letter = DeadLetter(b"{", Rejected(Reason.NOT_JSON, "no"), "mqtt:devices/a/telemetry", 7, "mqtt-json")
    future = rig.forwarder.put_dead_letter(letter)
    await rig.until_buffering()
    await future
    (entry,) = rig.buffer.rows.values()
    assert (entry.kind, entry.source, entry.body) == (EntryKind.DEAD_LETTER, "mqtt-json", b"{")
    assert dict(entry.headers)["reason"] == b"not-json"


async def test_alarms_that_no_frame_caused_are_stored(rig: Rig) -> None:
    rig.forwarder.put_alarms([alarm_event()])
    await rig.until(lambda: bool(rig.buffer.rows))
    (entry,) = rig.buffer.rows.values()
    assert (entry.kind, entry.device_id) == (EntryKind.ALARM, "press-1")


async def test_a_frame_with_state_is_told_when_it_arrived_and_a_historical_one_never(rig: Rig) -> None:
    rig.forwarder.put([frame(edge_state=b"state"), frame(historical=True)])
    rig.producer.answer()
    assert rig.told == [("delivered", "press-1", 1)]
    rig.forwarder.put([frame(historical=True)])
    await rig.until_buffering()
    assert rig.told == [("delivered", "press-1", 1)]


async def test_a_producer_that_fails_for_good_leaves_everything_to_the_buffer(rig: Rig) -> None:
    future = rig.forwarder.put([frame()])
    rig.producer.fail_for_good()
    rig.producer.answer(KafkaError(KafkaError._PURGE_INFLIGHT))
    await future
    assert len(rig.buffer.rows) == 1


async def test_the_end_stores_what_is_in_hand_and_the_counts(rig: Rig) -> None:
    rig.forwarder.put([frame(1)])
    rig.producer.answer()
    future = rig.forwarder.put([frame(2)], [[alarm_event()]])
    assert await rig.forwarder.close(1) == 0
    await future
    assert len(rig.buffer.rows) == 2
    with pytest.raises(UnavailableError) as refusal:
        rig.forwarder.put([frame(3)])
    assert refusal.value.obstacle is Obstacle.CLOSING
    left = counts_without_gateway(rig.buffer.kept[SAVED_KEY], rig.buffer.stats().by_source)
    assert (left["http"].delivered_live, left["http"].buffered) == (1, 1)


async def test_the_end_says_what_nobody_took(rig: Rig) -> None:
    rig.buffer.refuses = "disk full"
    future = rig.forwarder.put([frame()])
    assert await rig.forwarder.close(0.3) == 0
    with pytest.raises(UnavailableError):
        await future
    assert rig.ledger.counts()["http"].dropped == {"returned": 1}


async def test_a_disk_that_hangs_does_not_hold_up_the_end(rig: Rig) -> None:
    rig.buffer.hangs = True
    future = rig.forwarder.put([frame()])
    async with asyncio.timeout(5):
        assert await rig.forwarder.close(0.1) == 1, "neither has it"
    assert not future.done()


async def test_counts_go_on_after_a_restart(rig: Rig) -> None:
    rig.forwarder.put([frame()])
    rig.producer.answer()
    await rig.until(lambda: SAVED_KEY in rig.buffer.kept)
    again = Rig()
    again.buffer.kept = rig.buffer.kept
    again.buffer.rows = {7: rig.forwarder._alarm(alarm_event(), None).entry}
    again.forwarder.start()
    counts = again.ledger.counts()
    assert counts["http"].received == counts["http"].delivered_live == 1
    assert counts[SOURCE_EDGE_ALARMS].buffered == 1
    report = again.forwarder.report()
    assert report.identity_holds
    assert (report.mode, report.total.received, report.buffer.entries) == ("direct", 2, 1)
    await again.forwarder.close(0.3)


async def test_an_unreadable_ledger_stops_nothing() -> None:
    rig = Rig()
    rig.buffer.kept[SAVED_KEY] = b"\xc1 no ledger"
    rig.buffer.rows = {1: rig.forwarder._alarm(alarm_event(), None).entry}
    rig.forwarder.start()
    assert rig.ledger.counts()[SOURCE_EDGE_ALARMS].buffered == 1
    rig.check_ledger()
    await rig.forwarder.close(0.3)


async def test_the_hop_stamp_is_that_of_the_hand_over(rig: Rig) -> None:
    rig.forwarder.put([frame()])
    sent = FRAME_CODEC.decode(rig.producer.sent[0].entry.body)
    assert sent.gateway_in_us <= sent.gateway_out_us <= time.time_ns() // 1000

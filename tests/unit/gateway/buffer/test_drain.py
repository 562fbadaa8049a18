"""The drain: order, doubt, refusals and failures, with a scripted producer; and the producer itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from plantwire.gateway.buffer.buffer_metrics import BufferMetrics
from plantwire.gateway.buffer.drain import Drain
from plantwire.gateway.buffer.drain_producer import DrainProducer, Fate, Pace
from plantwire.gateway.buffer.durability import Mode
from plantwire.gateway.buffer.entry import Entry, EntryKind
from plantwire.gateway.buffer.ledger import Ledger
from plantwire.gateway.kafka_record import alarm_entry, frame_entry
from plantwire.gateway.settings import GatewaySettings
from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import Metric, TelemetryFrame
from tests.builders import alarm_event
from tests.unit.gateway.buffer.buffer_fakes import MemoryBuffer


def telemetry(number: int, event_time_ms: int | None = None) -> Entry:
    now_ms = event_time_ms or int(time.time() * 1000)
    frame = TelemetryFrame("press-1", "", number, now_ms, now_ms, "http", False, (Metric("t", 1.0),), 1)
    return frame_entry(frame, 2)


def sequence(entry: Entry) -> int | None:
    return FRAME_CODEC.decode(entry.body).sequence


class Live:
    """What the drain asks of the forwarder."""

    def __init__(self) -> None:
        self.now = Mode.DIRECT
        self.asked = 0
        self.moved = asyncio.Event()
        self.below: int | None = None

    @property
    def mode(self) -> Mode:
        self.asked += 1
        return self.now

    def drain_below(self) -> int | None:
        return self.below


class Sender:
    """The `DrainProducer`'s place: `fate` decides on each entry."""

    def __init__(self) -> None:
        self.sent: list[list[Entry]] = []
        self.fate: Callable[[Entry], Fate] = lambda _entry: Fate.DELIVERED
        self.closed = False

    def send(self, entries: Sequence[Entry]) -> list[Fate]:
        self.sent.append(list(entries))
        return [self.fate(entry) for entry in entries]

    def close(self) -> None:
        self.closed = True


class Rig:
    def __init__(self) -> None:
        self.ledger = Ledger()
        self.buffer = MemoryBuffer(self.ledger.handle_drop)
        self.live = Live()
        self.sender = Sender()
        self.metrics = BufferMetrics(CollectorRegistry(), self.ledger)
        settings = GatewaySettings(gateway_drain_batch=3)
        self.drain = Drain(
            settings, self.metrics, self.ledger, self.buffer, self.live, cast(DrainProducer, self.sender)
        )

    def fill(self, *entries: Entry) -> None:
        for number, entry in enumerate(entries, 1):
            self.buffer.rows[number] = entry
        self.ledger.restore(None, self.buffer.stats().by_source)

    @asynccontextmanager
    async def draining(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.drain.run())
        self.live.moved.set()
        try:
            yield
        finally:
            assert await self.drain.close(5)
            await task
            assert self.sender.closed

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)  # the buffer in memory tells no one


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_everything_goes_in_order_alarms_first_in_batches(rig: Rig) -> None:
    rig.fill(telemetry(1), telemetry(2), alarm_entry(alarm_event()), telemetry(3), telemetry(4))
    async with rig.draining():
        await rig.until(lambda: not rig.buffer.rows)
    kinds = [[entry.kind for entry in batch] for batch in rig.sender.sent]
    assert kinds == [[EntryKind.ALARM, EntryKind.TELEMETRY, EntryKind.TELEMETRY], [EntryKind.TELEMETRY] * 2]
    frames = [e for batch in rig.sender.sent for e in batch if e.kind is EntryKind.TELEMETRY]
    assert [sequence(entry) for entry in frames] == [1, 2, 3, 4]
    counts = rig.ledger.counts()["http"]
    assert (counts.delivered_drained, counts.buffered, counts.identity_holds) == (4, 0, True)


async def test_what_is_in_doubt_waits(rig: Rig) -> None:
    rig.fill(telemetry(1), telemetry(2), telemetry(3))
    rig.live.below = 2
    async with rig.draining():
        await rig.until(lambda: 1 not in rig.buffer.rows)
        rig.live.below = None
        rig.live.moved.set()
        await rig.until(lambda: not rig.buffer.rows)
    assert [[sequence(entry) for entry in batch] for batch in rig.sender.sent] == [[1], [2, 3]]


async def test_nothing_is_sent_while_kafka_is_slow(rig: Rig) -> None:
    rig.fill(telemetry(1))
    rig.live.now = Mode.BUFFERING
    async with rig.draining():
        await rig.until(lambda: rig.live.asked > 0)
        rig.live.moved.set()
        await rig.until(lambda: rig.live.asked > 1)
        assert not rig.sender.sent, "what it was told the first time had its consequences"
        rig.live.now = Mode.DIRECT
        rig.live.moved.set()
        await rig.until(lambda: not rig.buffer.rows)


async def test_a_failure_is_tried_again_from_the_first_that_was_not_acknowledged(rig: Rig) -> None:
    rig.fill(telemetry(1), telemetry(2), telemetry(3))
    rig.sender.fate = lambda entry: (
        Fate.DELIVERED if sequence(entry) == 1 or len(rig.sender.sent) > 1 else Fate.NOT_NOW
    )
    async with rig.draining():
        await rig.until(lambda: not rig.buffer.rows)
    assert [[sequence(entry) for entry in batch] for batch in rig.sender.sent] == [[1, 2, 3], [2, 3]]
    assert rig.ledger.counts()["http"].delivered_drained == 3


async def test_a_corrupt_body_is_dropped_and_counted(rig: Rig) -> None:
    rig.fill(telemetry(1), telemetry(2))
    rig.sender.fate = lambda entry: Fate.CORRUPT if sequence(entry) == 1 else Fate.DELIVERED
    async with rig.draining():
        await rig.until(lambda: not rig.buffer.rows)
    counts = rig.ledger.counts()["http"]
    assert (counts.delivered_drained, counts.dropped) == (1, {"corrupt": 1})


async def test_what_is_refused_only_together_is_sent_alone(rig: Rig) -> None:
    rig.fill(telemetry(1), telemetry(2))
    rig.sender.fate = lambda _entry: Fate.REFUSED if len(rig.sender.sent[-1]) > 1 else Fate.DELIVERED
    async with rig.draining():
        await rig.until(lambda: not rig.buffer.rows)
    assert rig.ledger.counts()["http"].delivered_drained == 2


async def test_what_is_refused_for_good_becomes_a_dead_letter_and_counts_as_dropped(rig: Rig) -> None:
    rig.fill(telemetry(1), telemetry(2))
    rig.sender.fate = lambda entry: (
        Fate.REFUSED if entry.kind is EntryKind.TELEMETRY and sequence(entry) == 1 else Fate.DELIVERED
    )
    async with rig.draining():
        await rig.until(lambda: not rig.buffer.rows)
    letters = [e for batch in rig.sender.sent for e in batch if e.kind is EntryKind.DEAD_LETTER]
    assert [dict(letter.headers)[topics.HEADER_REASON] for letter in letters] == [b"undeliverable"]
    counts = rig.ledger.counts()["http"]
    assert (counts.delivered_drained, counts.dropped) == (1, {"undeliverable": 1})


async def test_what_was_evicted_meanwhile_counts_once(rig: Rig) -> None:
    rig.fill(telemetry(1))

    def evict_under_way(_entry: Entry) -> Fate:
        rig.buffer.rows.clear()
        return Fate.DELIVERED

    rig.sender.fate = evict_under_way
    async with rig.draining():
        await rig.until(lambda: bool(rig.sender.sent))
    assert rig.ledger.counts()["http"].delivered_drained == 0


async def test_a_disk_that_cannot_be_read_is_asked_again(rig: Rig) -> None:
    rig.fill(telemetry(1), telemetry(2))
    rig.buffer.refuses = "the edge buffer's disk: EIO"
    async with rig.draining():
        await rig.until(lambda: rig.buffer.refusals >= 2)
        assert not rig.sender.sent
        rig.buffer.refuses = None
        await rig.until(lambda: not rig.buffer.rows)
    assert rig.metrics.drain_refusals._value.get() >= 2
    assert rig.metrics.drain_failures._value.get() == 0, "Kafka refused nothing"
    assert rig.ledger.counts()["http"].delivered_drained == 2


async def test_a_buffer_that_cannot_forget_makes_nothing_arrive_twice(rig: Rig) -> None:
    rig.fill(telemetry(1), telemetry(2))

    def fill_the_disk(_entry: Entry) -> Fate:
        rig.buffer.refuses = "disk full"
        return Fate.DELIVERED

    rig.sender.fate = fill_the_disk
    async with rig.draining():
        await rig.until(lambda: rig.buffer.refusals >= 2)
        rig.buffer.refuses = None
        rig.sender.fate = lambda _entry: Fate.DELIVERED
        await rig.until(lambda: not rig.buffer.rows)
    assert len(rig.sender.sent) == 1
    assert rig.ledger.counts()["http"].delivered_drained == 2


async def test_a_disk_that_hangs_does_not_hold_up_the_stop(rig: Rig) -> None:
    rig.fill(telemetry(1))

    def hang(_entry: Entry) -> Fate:
        rig.buffer.hangs = True
        return Fate.DELIVERED

    rig.sender.fate = hang
    task = asyncio.create_task(rig.drain.run())
    rig.live.moved.set()
    await rig.until(lambda: bool(rig.sender.sent))
    async with asyncio.timeout(5):
        assert not await rig.drain.close(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert rig.sender.closed


class FakeKafka:
    """confluent_kafka's Producer as the drain uses it: acknowledges at the next poll, unless told not to."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.configuration = configuration
        self.records: list[dict[str, Any]] = []
        self.waiting: list[tuple[dict[str, Any], Callable[[KafkaError | None, object], None]]] = []
        self.refuse: KafkaError | None = None
        self.answers = True
        self.purged = False

    def produce(self, on_delivery: Callable[[KafkaError | None, object], None], **record: Any) -> None:
        if self.refuse is not None:
            raise KafkaException(self.refuse)
        self.waiting.append((record, on_delivery))

    def poll(self, _timeout_s: float) -> int:
        if self.answers:
            waiting, self.waiting = self.waiting, []
            for record, on_delivery in waiting:
                self.records.append(record)
                on_delivery(None, None)
        return 0

    def purge(self) -> None:
        self.purged = True

    def flush(self, _timeout_s: float) -> int:
        waiting, self.waiting = self.waiting, []
        for _, on_delivery in waiting:
            on_delivery(KafkaError(KafkaError._PURGE_QUEUE), None)
        return 0


class SenderRig:
    def __init__(self, per_s: int = 1_000_000) -> None:
        self.made: list[FakeKafka] = []
        self.may_go_on = True
        self.now_s = 0.0
        settings = GatewaySettings(gateway_drain_frames_per_s=per_s)
        self.producer = DrainProducer(settings, lambda: self.may_go_on, self.make, self.clock)
        self.answers = True

    def make(self, configuration: dict[str, Any]) -> FakeKafka:
        self.made.append(FakeKafka(configuration))
        self.made[-1].answers = self.answers
        return self.made[-1]

    def clock(self) -> float:
        self.now_s += 0.001
        return self.now_s


def test_records_are_historical_and_not_older_than_retention_reaches() -> None:
    rig = SenderRig()
    old = FRAME_CODEC.decode(telemetry(1).body)
    entries = [telemetry(1), alarm_entry(alarm_event())]
    assert rig.producer.send(entries) == [Fate.DELIVERED] * 2
    frame, alarm = rig.made[0].records
    sent = FRAME_CODEC.decode(frame["value"])
    assert (sent.historical, sent.sequence, sent.edge_state) == (True, 1, b"")
    assert sent.gateway_out_us > old.gateway_out_us
    assert (frame["topic"], frame["key"]) == (topics.TELEMETRY_RAW, "press-1")
    assert (alarm["topic"], alarm["value"]) == (topics.ALARMS_FIRE, entries[1].body)
    rig.producer.send([telemetry(1, event_time_ms=1)])
    age_ms = time.time() * 1000 - rig.made[0].records[-1]["timestamp"]
    assert age_ms == pytest.approx(24 * 3_600_000, abs=60_000)


def test_no_record_times_out_by_itself() -> None:
    rig = SenderRig()
    rig.producer.send([telemetry(1)])
    assert rig.made[0].configuration["message.timeout.ms"] == 0
    assert rig.made[0].configuration["enable.idempotence"]


def test_a_body_that_is_no_frame_is_corrupt_and_the_others_go() -> None:
    rig = SenderRig()
    broken = Entry(EntryKind.TELEMETRY, "http", "press-1", 1, b"\xff")
    assert rig.producer.send([broken, telemetry(1)]) == [Fate.CORRUPT, Fate.DELIVERED]


@pytest.mark.parametrize(
    ("code", "fate"),
    [(KafkaError.MSG_SIZE_TOO_LARGE, Fate.REFUSED), (KafkaError._UNKNOWN_TOPIC, Fate.NOT_NOW)],
)
def test_only_what_is_the_records_own_fault_is_refused_for_good(code: int, fate: Fate) -> None:
    rig = SenderRig()
    rig.producer.send([])
    rig.made[0].refuse = KafkaError(code)
    assert rig.producer.send([telemetry(1)]) == [fate]


def test_without_progress_the_producer_is_given_up_with_all_that_it_holds() -> None:
    rig = SenderRig()
    rig.answers = False
    assert rig.producer.send([telemetry(1), telemetry(2)]) == [Fate.NOT_NOW] * 2
    assert rig.made[0].purged
    rig.answers = True
    assert rig.producer.send([telemetry(1), telemetry(2)]) == [Fate.DELIVERED] * 2
    assert len(rig.made) == 2


def test_a_stop_ends_the_sending() -> None:
    rig = SenderRig()
    rig.may_go_on = False
    assert rig.producer.send([telemetry(1)]) == [Fate.NOT_NOW]


def test_a_batch_takes_the_time_that_its_rate_says() -> None:
    rig = SenderRig(per_s=100)
    rig.producer.send([telemetry(n) for n in range(50)])
    assert rig.now_s == pytest.approx(0.5, abs=0.1)


@given(st.floats(1, 100_000), st.lists(st.tuples(st.integers(1, 20), st.floats(0, 5)), max_size=50))
def test_the_pace_is_never_above_the_rate(per_s: float, steps: list[tuple[int, float]]) -> None:
    pace, now_s, sent = Pace(per_s), 100.0, 0
    for count, idle_s in steps:
        now_s += idle_s
        now_s += pace.take(count, now_s)
        # Whatever went before has had its time; nothing is saved up while idle.
        assert sent <= (now_s - 100.0) * per_s + 1e-6 * per_s
        sent += count

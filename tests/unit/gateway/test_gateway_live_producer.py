"""The live producer without a broker: bounds, time-outs, and a producer that fails for good."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from confluent_kafka import KafkaError

from plantwire.gateway.buffer.entry import DropReason, Entry, EntryKind
from plantwire.gateway.buffer.ledger import Account
from plantwire.gateway.buffer.record import Put, Record
from plantwire.gateway.live_producer import Answers, LiveProducer, _OnceAMinute
from plantwire.gateway.settings import GatewaySettings
from plantwire.stack.ports import free_ports


class Answered:
    """What came back."""

    def __init__(self) -> None:
        self.answers: Answers = []
        self.replaced = 0
        self.more = asyncio.Event()

    def take(self, batch: Answers) -> None:
        self.answers += batch
        self.more.set()

    def note_replaced(self) -> None:
        assert not self.answers, "the failure is told before its consequences"
        self.replaced += 1

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.answers) < count:
                self.more.clear()
                await self.more.wait()


def record(order: int) -> Record:
    put = Put(asyncio.get_running_loop().create_future(), 1, 0.0, DropReason.RETURNED)
    entry = Entry(EntryKind.TELEMETRY, "http", "press-1", 1, b"body")
    return Record(entry, Account(), put, order)


@pytest.fixture
def answered() -> Answered:
    return Answered()


@pytest.fixture
async def producer(answered: Answered) -> AsyncIterator[LiveProducer]:
    settings = GatewaySettings(
        kafka=f"127.0.0.1:{free_ports(1)[0]}",
        gateway_ack_timeout_ms=300,
        gateway_in_flight_max=2,
        gateway_frames_per_request_max=2,
    )
    made = LiveProducer(settings)
    made.start(answered.take, answered.note_replaced)
    yield made
    await made.close()


async def test_what_kafka_does_not_acknowledge_is_answered_in_time(
    producer: LiveProducer, answered: Answered
) -> None:
    first, second = record(1), record(2)
    producer.send(first)
    producer.send(second)
    assert not producer.has_room(1, 1)
    await answered.until(2)
    assert [each for each, _ in answered.answers] == [first, second]
    assert all(error is not None for _, error in answered.answers)
    assert producer.has_room(2, 1)
    assert producer.in_flight == 0


async def test_a_producer_that_failed_for_good_is_replaced_once_and_what_it_held_is_answered(
    producer: LiveProducer, answered: Answered
) -> None:
    producer.send(record(1))
    before = producer._producer
    for _ in range(2):  # librdkafka may say it more than once
        producer._note_error(1, KafkaError(KafkaError._FATAL, "fenced", fatal=True))
    await answered.until(1)
    assert answered.replaced == 1
    assert producer._producer is not before
    producer.send(record(2))
    await answered.until(2)
    assert producer.in_flight == 0


async def test_an_error_that_passes_replaces_nothing(producer: LiveProducer, answered: Answered) -> None:
    before = producer._producer
    producer._note_error(1, KafkaError(KafkaError._TRANSPORT, "refused"))
    await asyncio.sleep(0)
    assert (producer._producer is before, answered.replaced) == (True, 0)


async def test_the_end_answers_what_is_in_flight(producer: LiveProducer, answered: Answered) -> None:
    producer.send(record(1))
    assert await producer.close() == 1
    assert len(answered.answers) == 1


async def test_without_a_broker_it_says_so(producer: LiveProducer) -> None:
    assert "Kafka does not answer" in (await producer.ask() or "")


def test_the_log_says_the_same_once_a_minute() -> None:
    said = _OnceAMinute()

    def log(text: str, at_s: float) -> bool:
        line = logging.LogRecord("kafka", logging.ERROR, "", 0, text, None, None)
        line.created = at_s
        return said.filter(line)

    assert log("Connect failed (after 3ms)", 0.0 + 1e6)
    assert not log("Connect failed (after 17ms)", 30.0 + 1e6)
    assert log("Disconnected", 31.0 + 1e6)
    assert log("Connect failed (after 2ms)", 61.0 + 1e6)

"""What the source commits, what it does while paused, and what it says of Kafka."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from plantwire.schemas.topics import TELEMETRY_RAW
from plantwire.storage.batch import Record
from plantwire.storage.settings import StorageSettings
from plantwire.storage.source import FrameSource, SourceError


class FakeMessage:
    def __init__(self, partition: int, offset: int, error: KafkaError | None = None) -> None:
        self._at = partition, offset
        self._error = error

    def error(self) -> KafkaError | None:
        return self._error

    def partition(self) -> int:
        return self._at[0]

    def offset(self) -> int:
        return self._at[1]

    def key(self) -> bytes:
        return b"press-1"

    def value(self) -> bytes | None:
        return None if self._at[1] == 99 else b"body"

    def headers(self) -> None:
        return None


class FakeConsumer:
    """A consumer whose messages and partitions the test sets."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.configuration = configuration
        self.assigned = [0, 1]
        self.messages: list[FakeMessage] = []
        self.stored: dict[int, int] = {}
        self.paused: set[int] = set()
        self.ends = {0: 10, 1: 20}
        self.fails: KafkaError | None = None
        self.topic_error: KafkaError | None = None
        self.fetched = False
        self.read = -1001
        self.asked = 0
        self.closed = False

    def subscribe(self, topics: list[str], on_assign: Any) -> None:
        assert topics == [TELEMETRY_RAW]
        self.on_assign = on_assign

    def consume(self, number: int, timeout_s: float) -> list[FakeMessage]:
        taken, self.messages = self.messages[:number], self.messages[number:]
        return taken

    def poll(self, timeout_s: float) -> FakeMessage | None:
        return self.messages.pop(0) if self.messages else None

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(TELEMETRY_RAW, partition) for partition in self.assigned]

    def store_offsets(self, offsets: list[TopicPartition]) -> None:
        self.stored |= {one.partition: one.offset for one in offsets}

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.paused |= {one.partition for one in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.paused -= {one.partition for one in partitions}

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned += [one.partition for one in partitions]

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(TELEMETRY_RAW, one.partition, self.read) for one in partitions]

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(TELEMETRY_RAW, one.partition, 4) for one in partitions]

    def get_watermark_offsets(
        self, partition: TopicPartition, timeout: float = 0.0, *, cached: bool = False
    ) -> tuple[int, int]:
        if cached and not self.fetched:
            return -1001, -1001
        self.asked += not cached
        return 5 if partition.partition else 0, self.ends[partition.partition]

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        self.asked += 1
        if self.fails is not None:
            raise KafkaException(self.fails)
        return SimpleNamespace(topics={topic: SimpleNamespace(error=self.topic_error)})

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def source() -> FrameSource:
    made = FrameSource(StorageSettings(), "here-8082", make=FakeConsumer)
    made.start()
    return made


def consumer_of(source: FrameSource) -> FakeConsumer:
    found = source._consumer
    assert isinstance(found, FakeConsumer)
    return found


def test_only_what_is_settled_is_ever_committed(source: FrameSource) -> None:
    consumer = consumer_of(source)
    assert consumer.configuration["enable.auto.offset.store"] is False
    assert consumer.configuration["group.instance.id"] == "here-8082"
    consumer.messages = [FakeMessage(0, 7), FakeMessage(1, 3), FakeMessage(0, 99)]
    records = source.take(0.1)
    assert [(r.partition, r.offset, r.body) for r in records] == [
        (0, 7, b"body"),
        (1, 3, b"body"),
        (0, 99, b""),
    ]
    assert consumer.stored == {}
    source.settle(records[:2])
    assert consumer.stored == {0: 8, 1: 4}


def test_a_partition_that_went_to_another_process_is_not_committed(source: FrameSource) -> None:
    consumer_of(source).assigned = [1]
    source.settle([Record(0, 7, None, b""), Record(1, 3, None, b""), Record(1, 2, None, b"")])
    assert consumer_of(source).stored == {1: 4}


def test_partitions_that_come_during_a_pause_are_paused_too(source: FrameSource) -> None:
    consumer = consumer_of(source)
    source.pause()
    consumer.on_assign(consumer, [TopicPartition(TELEMETRY_RAW, 2)])
    assert consumer.paused == {0, 1, 2}
    source.resume()
    assert consumer.paused == set()


# As committed; where offsets are missing that Kafka still has (marks of transactions); read again.
@pytest.mark.parametrize("first", [4, 9, 2])
def test_what_is_there_is_not_lost(first: int) -> None:
    lost: list[int] = []
    source = FrameSource(StorageSettings(), "here-8082", make=FakeConsumer, on_lost=lost.append)
    source.start()
    consumer = consumer_of(source)
    consumer.on_assign(consumer, [TopicPartition(TELEMETRY_RAW, 0)])
    consumer.messages = [FakeMessage(0, first), FakeMessage(0, first + 1)]
    assert len(source.take(0.1)) == 2
    assert lost == []


def test_what_kafka_deleted_before_it_was_read_is_counted() -> None:
    lost: list[int] = []
    source = FrameSource(StorageSettings(), "here-8082", make=FakeConsumer, on_lost=lost.append)
    source.start()
    consumer = consumer_of(source)
    consumer.on_assign(consumer, [TopicPartition(TELEMETRY_RAW, 1)])
    consumer.messages = [FakeMessage(1, 5), FakeMessage(1, 6)]
    source.take(0.1)
    assert lost == [1]  # 4 was committed as the next one, and 5 is Kafka's first


def test_what_comes_while_it_waits_is_given_out_first(source: FrameSource) -> None:
    consumer = consumer_of(source)
    consumer.messages = [FakeMessage(0, 7)]
    source.wait(0.01)
    consumer.messages = [FakeMessage(0, 8)]
    assert [record.offset for record in source.take(0.1) + source.take(0.1)] == [7, 8]


def test_how_many_wait_is_counted_from_what_is_committed_where_nothing_was_read(source: FrameSource) -> None:
    assert source.look(1.0) == (10 - 4) + (20 - 5)
    assert source.obstacle is None


def test_while_records_come_nothing_is_asked(source: FrameSource) -> None:
    consumer = consumer_of(source)
    consumer.messages, consumer.fetched, consumer.read = [FakeMessage(0, 7)], True, 8
    source.take(0.1)
    assert source.look(1.0) == (10 - 8) + (20 - 8)
    assert consumer.asked == 0
    source.look(1.0)
    assert consumer.asked == 1


def test_a_topic_that_is_not_there_is_an_obstacle(source: FrameSource) -> None:
    consumer_of(source).topic_error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    assert source.look(1.0) is None
    assert source.obstacle is not None


def test_kafka_that_does_not_answer_is_an_obstacle_until_it_does(source: FrameSource) -> None:
    consumer = consumer_of(source)
    consumer.fails = KafkaError(KafkaError._TRANSPORT)
    assert source.look(1.0) is None
    assert source.obstacle is not None
    consumer.fails = None
    source.look(1.0)
    assert source.obstacle is None
    consumer.configuration["error_cb"](KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert source.obstacle is not None
    consumer.messages = [FakeMessage(0, 7)]
    source.take(0.1)
    assert source.obstacle is None


def test_a_consumer_that_cannot_go_on_ends_the_process(source: FrameSource) -> None:
    consumer_of(source).messages = [FakeMessage(0, 7, KafkaError(KafkaError._FENCED, "fenced", fatal=True))]
    with pytest.raises(SourceError, match="fenced"):
        source.take(0.1)
    source.close()
    source.close()

"""A Kafka topic, or the last of it, up to its present end.

In: a bootstrap address, a topic, a time limit. Out: its records, in order within each partition.
Guarantees: what was in the topic when the call began is read, gaps left by compaction or not; an empty
topic ends at once.
Not here: following a topic (`topic_follower`, the jobs), what is in a record (`schemas.codec`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from plantwire.schemas.topics import HEADER_FINGERPRINT

_BATCH_RECORDS: Final = 1000
_POLL_MAX_S: Final = 0.2


class TopicError(Exception):
    """Kafka or the topic is not there, or did not answer in time; the text is fit for people."""


class TopicRecord(NamedTuple):
    """One record."""

    offset: int
    key: bytes | None
    body: bytes | None
    fingerprint: str | None
    """The writer schema's fingerprint, if the record carries it."""


def read_to_end(
    bootstrap: str, topic: str, timeout_s: float, *, last: int | None = None
) -> Iterator[TopicRecord]:
    """The records of `topic`; with `last`, of each partition only so many from its end.

    `timeout_s` bounds how long no record may come. Raises `TopicError`.
    """
    deadline_s = time.monotonic() + timeout_s
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            # librdkafka wants a name, but no group comes to be: partitions are assigned by hand.
            "group.id": "plantwire-topic-reader",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Compaction leaves gaps, so the end is told by this event and not by counting offsets.
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            **quiet(),
        }
    )
    try:
        waiting = set(partitions_of(consumer, bootstrap, topic, timeout_s))
        consumer.assign([_start(consumer, topic, p, last, timeout_s) for p in waiting])
        while waiting:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TopicError(f"{topic} at {bootstrap}: nothing came for {timeout_s:g} s before its end")
            for message in consumer.consume(_BATCH_RECORDS, min(_POLL_MAX_S, left_s)):
                error = message.error()
                if error is None:
                    deadline_s = time.monotonic() + timeout_s
                    yield record_of(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard(message.partition() or 0)
                elif error.fatal() or not error.retriable():
                    raise TopicError(f"{topic} at {bootstrap} cannot be read: {error.str()}")
    finally:
        consumer.close()


def _start(
    consumer: Consumer, topic: str, partition: int, last: int | None, timeout_s: float
) -> TopicPartition:
    if last is None:
        return TopicPartition(topic, partition, OFFSET_BEGINNING)
    begin, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout_s)
    return TopicPartition(topic, partition, max(begin, end - last))


def partitions_of(client: Consumer | Producer, bootstrap: str, topic: str, timeout_s: float) -> list[int]:
    """The topic's partition numbers; raises `TopicError` where Kafka or the topic is missing."""
    try:
        metadata = client.list_topics(topic, timeout=timeout_s).topics[topic]
    except KafkaException as error:
        raise TopicError(
            f"no Kafka answers at {bootstrap} ({error.args[0].str()}); is it up? (`plantwire status`)"
        ) from None
    if metadata.error is not None:
        raise TopicError(
            f"no topic {topic} at {bootstrap} ({metadata.error.str()}); `plantwire up` creates it."
        )
    return sorted(metadata.partitions)


def quiet() -> dict[str, Any]:
    """Client settings under which librdkafka does not write to stderr by itself.

    What matters comes back as an error of the call.
    """
    return {"log_level": 0, "error_cb": lambda _error: None}


def record_of(message: Any) -> TopicRecord:
    """What this system reads of a consumed message."""
    key, body = message.key(), message.value()
    return TopicRecord(
        message.offset(),
        key.encode() if isinstance(key, str) else key,
        body.encode() if isinstance(body, str) else body,
        _fingerprint(message.headers()),
    )


def _fingerprint(headers: Any) -> str | None:
    for name, value in headers or ():
        if name == HEADER_FINGERPRINT and value is not None:
            return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return None

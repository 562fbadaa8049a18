"""A Kafka topic, read from its beginning and then as it grows.

In: a bootstrap address, a topic, an event that ends it. Out: its records, in order within each partition, and
`END` whenever all that was there has been read.
Guarantees: never silent about a loss: where Kafka, the topic or the connection goes away, `TopicError` is
raised, and the caller begins anew, from the beginning.
Not here: trying again (the caller), a topic up to its present end (`topic_reader`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from enum import Enum
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from plantwire.platform.topic_reader import TopicError, TopicRecord, partitions_of, quiet, record_of

_BATCH_RECORDS: Final = 1000
_POLL_MAX_S: Final = 0.5


class End(Enum):
    """The end of the topic was reached."""

    END = "end"


END: Final = End.END


def follow(
    bootstrap: str, topic: str, stopping: threading.Event, timeout_s: float
) -> Iterator[TopicRecord | End]:
    """The records of `topic`, until `stopping`. `timeout_s` bounds the connection. Raises `TopicError`."""
    away: list[KafkaError] = []
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            # librdkafka wants a name, but no group comes to be: partitions are assigned by hand.
            "group.id": "plantwire-topic-follower",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            **quiet(),
            "error_cb": away.append,
        }
    )
    try:
        waiting = set(partitions_of(consumer, bootstrap, topic, timeout_s))
        away.clear()
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in waiting])
        while not stopping.is_set():
            for message in consumer.consume(_BATCH_RECORDS, _POLL_MAX_S):
                error = message.error()
                if error is None:
                    yield record_of(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard(message.partition() or 0)
                    if not waiting:
                        yield END
                elif error.fatal() or not error.retriable():
                    raise TopicError(f"{topic} at {bootstrap} cannot be read: {error.str()}")
            for error in away:
                if error.fatal() or error.code() == KafkaError._ALL_BROKERS_DOWN:
                    raise TopicError(f"Kafka at {bootstrap} went away: {error.str()}")
            away.clear()
    finally:
        consumer.close()

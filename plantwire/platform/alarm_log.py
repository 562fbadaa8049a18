"""The alarm log: Kafka `alarms.fire`, read from its beginning to its present end.

In: a bootstrap address. Out: the events of the alarms that are active.
Guarantees: what was in the topic when the call began is seen; of each alarm the event with the highest
revision counts, whatever the order.
Not here: following the topic live (the live-state job).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaException, TopicPartition

from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC, UndecodableError
from plantwire.schemas.records import AlarmEvent, AlarmKind


class AlarmLogError(RuntimeError):
    """The log could not be read to its end in time."""


def active_of(events: Iterable[AlarmEvent]) -> list[AlarmEvent]:
    """The last event of each alarm that it leaves active."""
    last: dict[str, AlarmEvent] = {}
    for event in events:
        known = last.get(event.alarm_id)
        if known is None or known.revision < event.revision:
            last[event.alarm_id] = event
    return [event for event in last.values() if event.kind != AlarmKind.CLEARED]


def active_alarms(bootstrap: str, timeout_s: float = 60.0) -> list[AlarmEvent]:
    """The active alarms according to `alarms.fire`; raises `AlarmLogError`."""
    return active_of(_read_to_end(bootstrap, timeout_s))


def _read_to_end(bootstrap: str, timeout_s: float) -> Iterable[AlarmEvent]:
    deadline_s = time.monotonic() + timeout_s
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            # A group is required, but never joined nor committed to: partitions are assigned by hand.
            "group.id": f"plantwire-alarm-log-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        metadata = consumer.list_topics(topics.ALARMS_FIRE, timeout=timeout_s).topics[topics.ALARMS_FIRE]
        ends: dict[int, int] = {}
        for partition in metadata.partitions:
            low, high = consumer.get_watermark_offsets(
                TopicPartition(topics.ALARMS_FIRE, partition), timeout=timeout_s
            )
            if high > low:
                ends[partition] = high
        consumer.assign([TopicPartition(topics.ALARMS_FIRE, p, 0) for p in ends])
        while ends:
            if time.monotonic() > deadline_s:
                raise AlarmLogError(f"{topics.ALARMS_FIRE} was not read to its end within {timeout_s:g} s")
            for message in consumer.consume(1000, timeout=0.5):
                if message.error():
                    raise KafkaException(message.error())
                partition, offset = message.partition(), message.offset()
                if partition in ends and offset is not None and offset + 1 >= ends[partition]:
                    del ends[partition]
                try:
                    yield ALARM_CODEC.decode(message.value() or b"")
                except UndecodableError:
                    continue
    finally:
        consumer.close()

"""Reads alarm events from a Kafka topic, from where it ends now.

In: a broker, a topic. Out: decoded events as they come.
Guarantees: nothing is skipped or read twice; an event that cannot be decoded or a broker error raises.
Not here: what they mean (`bench.detection`, `bench.latency_run`).
"""

from __future__ import annotations

import time
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from plantwire.schemas.codec import ALARM_CODEC
from plantwire.schemas.records import AlarmEvent

REQUEST_TIMEOUT_S: Final = 10.0
BATCH_MESSAGES: Final = 500


class AlarmTopicReader:
    """Follows one topic; close it."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "bench-alarm-reader",  # a name is asked for; nothing is committed
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 100,
            }
        )

    def start_at_end(self) -> None:
        """Take up the topic where it ends now; raises KafkaException where it does not exist."""
        partitions = self._consumer.list_topics(self._topic, REQUEST_TIMEOUT_S).topics[self._topic].partitions
        ends = []
        for number in sorted(partitions):
            partition = TopicPartition(self._topic, number)
            _, end = self._consumer.get_watermark_offsets(partition, REQUEST_TIMEOUT_S, cached=False)
            ends.append(TopicPartition(self._topic, number, end))
        self._consumer.assign(ends)

    def read(self, timeout_s: float) -> list[AlarmEvent]:
        """The next events; empty when none came in `timeout_s`."""
        events = []
        for message in self._consumer.consume(BATCH_MESSAGES, timeout_s):
            if (error := message.error()) is not None:
                raise RuntimeError(f"cannot read {self._topic}: {error}")
            events.append(ALARM_CODEC.decode(message.value() or b""))
        return events

    def read_until_quiet(self, quiet_s: float) -> list[AlarmEvent]:
        """All events until none has come for `quiet_s`."""
        events: list[AlarmEvent] = []
        last_s = time.monotonic()
        while time.monotonic() - last_s < quiet_s:
            if more := self.read(0.1):
                events += more
                last_s = time.monotonic()
        return events

    def close(self) -> None:
        """Let the connections go."""
        self._consumer.close()

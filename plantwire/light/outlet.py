"""Records on their way to Kafka, and up to which of them Kafka has them.

In: records, one by one. Out: the same, in Kafka, at once and in order; a number that says how far.
Guarantees: nothing is given up while Kafka is away, and no more than `WAITING_MAX` records wait: then the
caller does. A record that Kafka refuses for good is an OutletError, and nothing behind it counts as settled.
Not here: what is in the records.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from confluent_kafka import KafkaError, Producer

from plantwire.light.kafka_source import kafka_log

WAITING_MAX: Final = 10_000
_ROOM_S: Final = 0.1


class OutletError(Exception):
    """Kafka does not take a record."""


class Outlet:
    """One thread. `close` it."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "plantwire-light",
                "linger.ms": 0,
                "acks": "all",
                "enable.idempotence": True,
                # Where Java's clients, and with them Flink, put a key.
                "partitioner": "murmur2_random",
                "message.timeout.ms": 0,
                "queue.buffering.max.messages": WAITING_MAX,
                "allow.auto.create.topics": False,
            },
            logger=kafka_log,
        )
        self.sent = 0
        """How many records were sent so far."""
        # Their numbers, in order; gone once Kafka has acknowledged them.
        self._waiting: dict[int, None] = {}
        self._refused: str | None = None

    def send(self, topic: str, key: str | None, body: bytes, headers: dict[str, bytes]) -> None:
        """Send a record; raises OutletError for an earlier one."""
        number = self.sent + 1
        while True:
            try:
                self._producer.produce(
                    topic,
                    body,
                    key=key,
                    headers=list(headers.items()),
                    on_delivery=partial(self._settle, number),
                )
                break
            except BufferError:
                self._producer.poll(_ROOM_S)
        self.sent = number
        self._waiting[number] = None
        self.poll()

    def poll(self) -> None:
        """Hear what Kafka has acknowledged; raises OutletError."""
        self._producer.poll(0)
        if self._refused is not None:
            raise OutletError(self._refused)

    def has_settled(self, number: int) -> bool:
        """Whether Kafka has the first `number` records."""
        return next(iter(self._waiting), number + 1) > number

    def close(self, timeout_s: float) -> bool:
        """Wait so long for Kafka to have everything; whether it has."""
        self._producer.flush(timeout_s)
        return not self._waiting and self._refused is None

    def _settle(self, number: int, error: KafkaError | None, _message: object) -> None:
        if error is None:
            self._waiting.pop(number, None)
        else:
            self._refused = error.str()

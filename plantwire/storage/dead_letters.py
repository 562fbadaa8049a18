"""Records that cannot be stored → `device.telemetry.dlq`, byte for byte, with the reason.

What is larger than a record may be with its headers is cut, and says so.

In: refusals. Out: dead letters that Kafka has acknowledged.
Guarantees: `send` returns only when all are acknowledged, else it raises; sent again after a failure, some
may be there twice.
Not here: what is refused and why (`reading`, `ingest`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from plantwire.schemas.topics import (
    HEADER_REASON,
    HEADER_RECEIVED_TIME,
    HEADER_SOURCE,
    HEADER_WHOLE_SIZE,
    TELEMETRY_DLQ,
)
from plantwire.storage.batch import Refusal
from plantwire.storage.settings import StorageSettings
from plantwire.storage.source import kafka_log

SOURCE: Final = "storage"
BODY_MAX_BYTES: Final = 900_000
ACK_TIMEOUT_S: Final = 10.0


class DeadLetterError(Exception):
    """Kafka did not take them now."""


class DeadLetters:
    """Blocking. `close` it."""

    def __init__(
        self,
        settings: StorageSettings,
        make: Callable[[dict[str, Any]], Any] = partial(Producer, logger=kafka_log),
    ) -> None:
        self._settings = settings
        self._make = make
        self._producer: Any = None

    def send(self, refusals: Sequence[Refusal], now_ms: int) -> None:
        """Send all of them and wait; raises DeadLetterError."""
        if not refusals:
            return
        if self._producer is None:
            self._producer = self._make(
                {
                    "bootstrap.servers": self._settings.kafka,
                    "client.id": "plantwire-storage",
                    "enable.idempotence": True,
                    "acks": "all",
                    "partitioner": "murmur2_random",
                    "message.timeout.ms": round(ACK_TIMEOUT_S * 1000),
                }
            )
        failures: list[KafkaError] = []
        try:
            for record, reason in refusals:
                headers = [
                    (HEADER_REASON, reason.encode()),
                    (HEADER_SOURCE, f"{SOURCE}:{record.partition}:{record.offset}".encode()),
                    (HEADER_RECEIVED_TIME, str(now_ms).encode()),
                ]
                if len(record.body) > BODY_MAX_BYTES:
                    headers.append((HEADER_WHOLE_SIZE, str(len(record.body)).encode()))
                self._producer.produce(
                    TELEMETRY_DLQ,
                    value=record.body[:BODY_MAX_BYTES],
                    key=record.key,
                    headers=headers,
                    on_delivery=lambda error, _message: failures.append(error) if error else None,
                )
        except (BufferError, KafkaException) as error:
            self.close()
            raise DeadLetterError(str(error)) from error
        left = self._producer.flush(ACK_TIMEOUT_S)
        if left or failures:
            self.close()
            raise DeadLetterError(failures[0].str() if failures else "Kafka does not answer")

    def close(self) -> None:
        """Give the producer up, with what it holds."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(1.0)

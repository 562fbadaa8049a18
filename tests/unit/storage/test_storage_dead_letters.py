"""Dead letters are acknowledged, or it is said that they are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError

from plantwire.schemas.topics import TELEMETRY_DLQ
from plantwire.storage.batch import Record, Refusal
from plantwire.storage.dead_letters import BODY_MAX_BYTES, DeadLetterError, DeadLetters
from plantwire.storage.settings import StorageSettings

LETTER = Refusal(Record(3, 42, b"press-1", b"\xff" * (BODY_MAX_BYTES + 1)), "undecodable")


class FakeProducer:
    """Acknowledges, refuses or says nothing."""

    def __init__(self, error: KafkaError | None = None, left: int = 0) -> None:
        self.error = error
        self.left = left
        self.sent: list[dict[str, Any]] = []
        self.purged = False

    def produce(
        self, topic: str, *, on_delivery: Callable[[KafkaError | None, Any], None], **record: Any
    ) -> None:
        self.sent.append({"topic": topic, **record})
        on_delivery(self.error, None)

    def flush(self, timeout_s: float) -> int:
        return self.left

    def purge(self) -> None:
        self.purged = True


def letters(producer: FakeProducer) -> DeadLetters:
    return DeadLetters(StorageSettings(), make=lambda _: producer)


def test_a_letter_has_the_bytes_and_says_why_and_from_where() -> None:
    producer = FakeProducer()
    letters(producer).send([LETTER], now_ms=17)
    (sent,) = producer.sent
    assert sent["topic"] == TELEMETRY_DLQ
    assert sent["value"] == b"\xff" * BODY_MAX_BYTES
    assert sent["key"] == b"press-1"
    assert sent["headers"] == [
        ("reason", b"undecodable"),
        ("source", b"storage:3:42"),
        ("received.time.ms", b"17"),
        ("whole.size.bytes", b"900001"),
    ]


def test_a_letter_that_fits_is_whole() -> None:
    producer = FakeProducer()
    letters(producer).send([Refusal(Record(3, 42, b"press-1", b"\xff"), "undecodable")], now_ms=17)
    assert producer.sent[0]["value"] == b"\xff"
    assert "whole.size.bytes" not in dict(producer.sent[0]["headers"])


@pytest.mark.parametrize(
    "producer", [FakeProducer(left=1), FakeProducer(error=KafkaError(KafkaError._MSG_TIMED_OUT))]
)
def test_letters_that_are_not_acknowledged_are_not_there(producer: FakeProducer) -> None:
    with pytest.raises(DeadLetterError):
        letters(producer).send([LETTER], now_ms=17)
    assert producer.purged


def test_without_letters_there_is_no_producer() -> None:
    made: list[object] = []
    dead = DeadLetters(StorageSettings(), make=made.append)
    dead.send([], now_ms=17)
    dead.close()
    assert made == []

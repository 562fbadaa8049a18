"""The rules in force, as the compacted topic `alarms.rules` holds them.

In: Kafka bootstrap servers; rules that already carry their version.
Out: every rule by its id, retired ones included, or records on the topic.
Guarantees: a read reaches the end that the topic had when it began, and ends on an empty topic too; a
publication returns only when Kafka acknowledged every rule, without duplicates from retries. A record
that cannot be decoded is logged with its offset and skipped, so that one bad record does not take
the other rules away; the rule's former record stays in force.
Not here: versions (`stack.rule_plan`), rules as files (`schemas.rule_files`), rules as broadcast
state (`udfs`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from plantwire.schemas.codec import RULE_CODEC, UndecodableError
from plantwire.schemas.records import AlarmRule
from plantwire.schemas.topics import ALARMS_RULES, HEADER_FINGERPRINT

_POLL_MAX_S: Final = 0.2

_log = structlog.get_logger(__name__)


class RuleTopicError(Exception):
    """Kafka or the rule topic is not there, or did not answer in time; the text is fit for people."""


def read_rules(bootstrap: str, timeout_s: float) -> dict[str, AlarmRule]:
    """Every rule on `alarms.rules` by its id, in its latest version; retired rules too.

    Raises `RuleTopicError` where Kafka or the topic is missing, or the end is not reached in time.
    """
    deadline_s = time.monotonic() + timeout_s
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            # librdkafka wants a name, but no group comes to be: partitions are assigned by hand.
            "group.id": "plantwire-rule-reader",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Compaction leaves gaps, so the end is told by this event and not by counting offsets.
            "enable.partition.eof": True,
            # The broker tells the end only when this wait is over; half a second is its default.
            "fetch.wait.max.ms": 20,
            **_quiet(),
        }
    )
    try:
        partitions = _partitions(consumer, bootstrap, timeout_s)
        consumer.assign([TopicPartition(ALARMS_RULES, p, OFFSET_BEGINNING) for p in partitions])
        return _read_to_end(consumer, bootstrap, set(partitions), deadline_s, timeout_s)
    finally:
        consumer.close()


def publish_rules(bootstrap: str, rules: Iterable[AlarmRule], timeout_s: float = 10.0) -> None:
    """Write `rules` to `alarms.rules` and wait until Kafka has acknowledged all of them.

    Raises `RuleTopicError` naming the rules that were not acknowledged; they may or may not be there.
    """
    pending = list(rules)
    if not pending:
        return
    deadline_s = time.monotonic() + timeout_s
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 0,
            "message.timeout.ms": max(1, int(timeout_s * 1000)),
            # A missing topic is an error to show; created here it would not be compacted.
            "allow.auto.create.topics": False,
            **_quiet(),
        }
    )
    _partitions(producer, bootstrap, timeout_s)
    acknowledged: set[str] = set()
    reasons: set[str] = set()

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        key = message.key()
        if error is not None:
            reasons.add(error.str())
        elif isinstance(key, bytes):
            acknowledged.add(key.decode())

    for rule in pending:
        _produce(producer, rule, on_delivery, deadline_s)
    producer.flush(max(0.0, deadline_s - time.monotonic()))
    if missing := sorted({rule.rule_id for rule in pending} - acknowledged):
        reason = ", ".join(sorted(reasons)) or f"no answer within {timeout_s:g} s"
        raise RuleTopicError(f"Kafka at {bootstrap} did not acknowledge {', '.join(missing)}: {reason}")


def _produce(producer: Producer, rule: AlarmRule, on_delivery: Any, deadline_s: float) -> None:
    while True:
        try:
            producer.produce(
                ALARMS_RULES,
                key=rule.rule_id.encode(),
                value=RULE_CODEC.encode(rule),
                headers=[(HEADER_FINGERPRINT, RULE_CODEC.fingerprint.encode())],
                on_delivery=on_delivery,
            )
            return
        except BufferError:
            # The producer's bounded queue is full: deliveries make room.
            if time.monotonic() >= deadline_s:
                raise RuleTopicError("Kafka does not take the rules fast enough") from None
            producer.poll(_POLL_MAX_S)


def _read_to_end(
    consumer: Consumer, bootstrap: str, open_partitions: set[int], deadline_s: float, timeout_s: float
) -> dict[str, AlarmRule]:
    rules: dict[str, AlarmRule] = {}
    while open_partitions:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise RuleTopicError(f"{ALARMS_RULES} at {bootstrap} was not read to its end in {timeout_s:g} s")
        message = consumer.poll(min(_POLL_MAX_S, left_s))
        if message is None:
            continue
        error = message.error()
        if error is None:
            _take(rules, message)
        elif error.code() == KafkaError._PARTITION_EOF:
            open_partitions.discard(message.partition() or 0)
        elif error.fatal() or not error.retriable():
            raise RuleTopicError(f"{ALARMS_RULES} at {bootstrap} cannot be read: {error.str()}")
    return rules


def _take(rules: dict[str, AlarmRule], message: Message) -> None:
    key, body = message.key(), message.value()
    if not isinstance(key, bytes):
        _log.warning("rule-skipped", offset=message.offset(), reason="record without key")
        return
    rule_id = key.decode(errors="replace")
    if body is None:
        rules.pop(rule_id, None)
        return
    try:
        rules[rule_id] = RULE_CODEC.decode(bytes(body), rule_fingerprint(message.headers()))
    except UndecodableError as error:
        _log.warning("rule-skipped", offset=message.offset(), rule_id=rule_id, reason=str(error))


def rule_fingerprint(headers: Any) -> str | None:
    """The writer schema's fingerprint in a Kafka record's headers, if it is there."""
    for name, value in headers or ():
        if name == HEADER_FINGERPRINT and value is not None:
            return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return None


def _partitions(client: Consumer | Producer, bootstrap: str, timeout_s: float) -> list[int]:
    """The rule topic's partition numbers; raises `RuleTopicError` where it is missing."""
    try:
        topic = client.list_topics(ALARMS_RULES, timeout=timeout_s).topics[ALARMS_RULES]
    except KafkaException as error:
        raise RuleTopicError(
            f"no Kafka answers at {bootstrap} ({error.args[0].str()}); is it up? (`plantwire status`)"
        ) from None
    if topic.error is not None:
        raise RuleTopicError(
            f"no topic {ALARMS_RULES} at {bootstrap} ({topic.error.str()}); `plantwire up` creates it."
        )
    return sorted(topic.partitions)


def _quiet() -> dict[str, Any]:
    # librdkafka writes to stderr by itself; what matters comes back as an error of the call.
    return {"log_level": 0, "error_cb": lambda _error: None}

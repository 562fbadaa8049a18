"""The rules in force, as the compacted topic `alarms.rules` holds them.

In: Kafka bootstrap servers; rules that already carry their version.
Out: every rule by its id, retired ones included, or records on the topic.
Guarantees: a read reaches the end that the topic had when it began, and ends on an empty topic too; a
publication returns only when Kafka acknowledged every rule, without duplicates from retries. A record
that cannot be decoded or evaluated is logged with its offset and skipped, so that one bad record does not
take the other rules away; the rule's former record stays in force.
Not here: versions (`stack.rule_plan`), rules as files (`schemas.rule_files`), rules as broadcast
state (`udfs`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, Message, Producer

from plantwire.domain.rule_book import is_sound
from plantwire.platform.topic_reader import TopicError, TopicRecord, partitions_of, quiet, read_to_end
from plantwire.schemas.codec import RULE_CODEC, UndecodableError
from plantwire.schemas.records import AlarmRule
from plantwire.schemas.topics import ALARMS_RULES, HEADER_FINGERPRINT

_POLL_MAX_S: Final = 0.2

_log = structlog.get_logger(__name__)


def read_rules(bootstrap: str, timeout_s: float) -> dict[str, AlarmRule]:
    """Every rule on `alarms.rules` by its id, in its latest version; retired rules too.

    Raises `TopicError` where Kafka or the topic is missing, or the end is not reached in time.
    """
    rules: dict[str, AlarmRule] = {}
    for record in read_to_end(bootstrap, ALARMS_RULES, timeout_s):
        _take(rules, record)
    return rules


def publish_rules(bootstrap: str, rules: Iterable[AlarmRule], timeout_s: float = 10.0) -> None:
    """Write `rules` to `alarms.rules` and wait until Kafka has acknowledged all of them.

    Raises `TopicError` naming the rules that were not acknowledged; they may or may not be there.
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
            **quiet(),
        }
    )
    partitions_of(producer, bootstrap, ALARMS_RULES, timeout_s)
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
        raise TopicError(f"Kafka at {bootstrap} did not acknowledge {', '.join(missing)}: {reason}")


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
                raise TopicError("Kafka does not take the rules fast enough") from None
            producer.poll(_POLL_MAX_S)


def _take(rules: dict[str, AlarmRule], record: TopicRecord) -> None:
    if record.key is None:
        _log.warning("rule-skipped", offset=record.offset, reason="record without key")
        return
    rule_id = record.key.decode(errors="replace")
    if record.body is None:
        rules.pop(rule_id, None)
        return
    try:
        rule = RULE_CODEC.decode(record.body, record.fingerprint)
    except UndecodableError as error:
        _log.warning("rule-skipped", offset=record.offset, rule_id=rule_id, reason=str(error))
        return
    if not is_sound(rule):
        _log.warning("rule-skipped", offset=record.offset, rule_id=rule_id, reason="cannot be evaluated")
        return
    rules[rule_id] = rule

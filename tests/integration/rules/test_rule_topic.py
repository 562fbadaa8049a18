"""The rule topic on a real broker."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from msgspec.structs import replace
from structlog.testing import capture_logs

from plantwire.platform.rule_topic import publish_rules, read_rules
from plantwire.platform.topic_reader import TopicError
from plantwire.schemas.codec import RULE_CODEC
from plantwire.schemas.records import AlarmRule, Limit
from plantwire.schemas.topics import ALARMS_RULES, HEADER_FINGERPRINT
from plantwire.stack.ports import free_ports

TIMEOUT_S = 15.0
HOT = AlarmRule(
    "hot", 1, "press-*", "temperature", (Limit(0, above=100.0, deadband=2.0), Limit(1, above=90.0))
)
COLD = AlarmRule("cold", 1, "chiller-*", "temperature", (Limit(2, below=2.0),), on_delay_ms=2000)


def test_an_empty_topic_has_no_rules(rule_topic: str) -> None:
    assert read_rules(rule_topic, TIMEOUT_S) == {}


def test_what_was_published_is_read_in_its_latest_version(rule_topic: str) -> None:
    publish_rules(rule_topic, [HOT, COLD])
    publish_rules(rule_topic, [replace(HOT, version=2, retired=True)])
    assert read_rules(rule_topic, TIMEOUT_S) == {"hot": replace(HOT, version=2, retired=True), "cold": COLD}


def test_many_rules_are_all_acknowledged(rule_topic: str) -> None:
    rules = [replace(HOT, rule_id=f"r{number}") for number in range(2000)]
    publish_rules(rule_topic, rules, TIMEOUT_S)
    assert read_rules(rule_topic, TIMEOUT_S) == {rule.rule_id: rule for rule in rules}


def test_key_and_header_are_those_of_the_contract(rule_topic: str) -> None:
    publish_rules(rule_topic, [HOT])
    consumer = Consumer({"bootstrap.servers": rule_topic, "group.id": "test"})
    try:
        consumer.assign([TopicPartition(ALARMS_RULES, 0, 0)])
        message = consumer.poll(TIMEOUT_S)
        assert message is not None
        assert message.error() is None
        assert message.key() == b"hot"
        assert message.headers() == [(HEADER_FINGERPRINT, RULE_CODEC.fingerprint.encode())]
        assert RULE_CODEC.decode(message.value()) == HOT
    finally:
        consumer.close()


def test_a_broken_record_leaves_the_rule_before_it_and_the_others(rule_topic: str) -> None:
    publish_rules(rule_topic, [HOT, COLD])
    producer = Producer({"bootstrap.servers": rule_topic})
    producer.produce(ALARMS_RULES, key=b"hot", value=b"\xff\xff\xff")
    producer.produce(ALARMS_RULES, key=b"cold", value=None)
    assert producer.flush(TIMEOUT_S) == 0
    with capture_logs() as logged:
        assert read_rules(rule_topic, TIMEOUT_S) == {"hot": HOT}
    assert [(entry["event"], entry["offset"]) for entry in logged] == [("rule-skipped", 2)]


def test_a_missing_topic_is_named(rules_kafka: str) -> None:
    for call in (lambda: read_rules(rules_kafka, TIMEOUT_S), lambda: publish_rules(rules_kafka, [HOT])):
        with pytest.raises(TopicError, match=r"no topic alarms\.rules"):
            call()


def test_a_missing_kafka_is_named_in_time() -> None:
    (port,) = free_ports(1)
    for call in (
        lambda: read_rules(f"127.0.0.1:{port}", 1.0),
        lambda: publish_rules(f"127.0.0.1:{port}", [HOT], 1.0),
    ):
        started_s = time.monotonic()
        with pytest.raises(TopicError, match=f"no Kafka answers at 127.0.0.1:{port}"):
            call()
        assert time.monotonic() - started_s < 5

"""A broker of its own: the tests here empty the rule topic, which others count on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from plantwire.schemas.topics import ALARMS_RULES
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka

TIMEOUT_S = 20


@pytest.fixture(scope="package")
def rules_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a broker without topics."""
    home: Path = tmp_path_factory.mktemp("rules-kafka")
    port, controller_port = free_ports(2)
    kafka = Kafka(home / "kafka", port, controller_port, home / "kafka.log")
    kafka.prepare()
    kafka.start()
    try:
        kafka.wait_ready(60)
        yield kafka.bootstrap
    finally:
        kafka.stop()


@pytest.fixture
def rule_topic(rules_kafka: str) -> Iterator[str]:
    """`host:port` of a broker with an empty rule topic."""
    admin = AdminClient({"bootstrap.servers": rules_kafka})
    topic = NewTopic(ALARMS_RULES, num_partitions=1, config={"cleanup.policy": "compact"})
    wait_until(lambda: created(admin, topic))
    # The broker learns of a topic a moment after the controller has made it, and so with its end.
    wait_until(lambda: has_topic(admin))
    yield rules_kafka
    admin.delete_topics([ALARMS_RULES], operation_timeout=TIMEOUT_S)[ALARMS_RULES].result()
    wait_until(lambda: not has_topic(admin))


def created(admin: AdminClient, topic: NewTopic) -> bool:
    try:
        admin.create_topics([topic], operation_timeout=TIMEOUT_S)[ALARMS_RULES].result()
    except KafkaException:
        return False
    return True


def has_topic(admin: AdminClient) -> bool:
    found = admin.list_topics(ALARMS_RULES, timeout=TIMEOUT_S).topics[ALARMS_RULES]
    return found.error is None and all(p.leader >= 0 for p in found.partitions.values())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)  # the broker offers nothing to wait on

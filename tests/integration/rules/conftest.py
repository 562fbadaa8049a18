"""A broker of its own: the tests here empty the rule topic, which others count on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from plantwire.schemas.topics import ALARMS_RULES
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka

CREATE_TIMEOUT_S = 10


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
    deadline_s = time.monotonic() + CREATE_TIMEOUT_S
    while True:
        try:
            admin.create_topics([topic], operation_timeout=CREATE_TIMEOUT_S)[ALARMS_RULES].result()
            break
        except KafkaException:
            # The topic of the test before is still being deleted.
            if time.monotonic() > deadline_s:
                raise
    yield rules_kafka
    admin.delete_topics([ALARMS_RULES], operation_timeout=CREATE_TIMEOUT_S)[ALARMS_RULES].result()

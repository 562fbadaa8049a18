"""One gateway for the tests that only talk to it; those that stop or starve it start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from plantwire.schemas import topics
from tests.conftest import running
from tests.integration.gateway.gateway_rig import GatewayProcess, Topic, create_topics


@pytest.fixture(scope="session")
def kafka(kafka_bootstrap: str) -> str:
    """Kafka with the gateway's topics."""
    create_topics(kafka_bootstrap)
    return kafka_bootstrap


@pytest.fixture(scope="session")
def gateway(kafka: str, mqtt_url: str, servers_home: Path) -> Iterator[GatewayProcess]:
    """A gateway, ready."""
    with running(GatewayProcess(kafka, mqtt_url, servers_home / "gateway.log")) as process:
        yield process


@pytest.fixture
def raw(kafka: str) -> Iterator[Topic]:
    """Reads the telemetry topic."""
    topic = Topic(kafka, topics.TELEMETRY_RAW)
    yield topic
    topic.close()


@pytest.fixture
def dlq(kafka: str) -> Iterator[Topic]:
    """Reads the dead-letter topic."""
    topic = Topic(kafka, topics.TELEMETRY_DLQ)
    yield topic
    topic.close()

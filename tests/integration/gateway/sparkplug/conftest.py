"""The independent implementation, a witness of what passes over the broker, and a gateway of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from plantwire.stack.ports import free_ports
from plantwire.stack.servers.mqtt import Mqtt
from tests.conftest import running
from tests.integration.gateway.gateway_rig import GatewayProcess
from tests.integration.gateway.sparkplug import independent_environment
from tests.integration.gateway.sparkplug.host_rig import Rig
from tests.integration.gateway.sparkplug.independent_environment import IndependentNode
from tests.integration.gateway.sparkplug.recording_broker import RecordingBroker
from tests.integration.gateway.sparkplug.witness import Witness

_numbers = count(1)

NodeMaker = Callable[..., IndependentNode]


@pytest.fixture(scope="session")
def independent(request: pytest.FixtureRequest) -> None:
    """The environment of pysparkplug, made where it is missing."""
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    independent_environment.prepare(reporter.write_line if reporter else print)


@pytest.fixture(scope="session")
def mqtt_url(servers_home: Path) -> Iterator[str]:
    """A broker of its own: every other gateway at one broker would take these edge nodes' frames too."""
    with running(
        Mqtt(servers_home / "sparkplug-mqtt", *free_ports(1), servers_home / "sparkplug-mqtt.log")
    ) as broker:
        assert isinstance(broker, Mqtt)
        yield broker.url


@pytest.fixture(scope="session")
def sparkplug_gateway(kafka: str, mqtt_url: str, servers_home: Path) -> Iterator[GatewayProcess]:
    """A gateway that asks edge nodes for their births without much patience."""
    process = GatewayProcess(
        kafka,
        mqtt_url,
        servers_home / "sparkplug-gateway.log",
        PLANTWIRE_SPARKPLUG_HOST_ID="plant",
        PLANTWIRE_SPARKPLUG_REORDER_TIMEOUT_MS="500",
        PLANTWIRE_SPARKPLUG_REBIRTH_INTERVAL_S="0.5",
    )
    process.start()
    try:
        process.wait_ready(30)
        yield process
    finally:
        process.stop()


@pytest.fixture
def witness(mqtt_url: str) -> Iterator[Witness]:
    """Sees everything below spBv1.0/."""
    seen = Witness(mqtt_url)
    seen.start()
    yield seen
    seen.close()


@pytest.fixture
def group() -> str:
    """A Sparkplug group that no other test uses."""
    return f"Group{next(_numbers)}"


@pytest.fixture
def make_node(independent: None, mqtt_url: str) -> Iterator[NodeMaker]:
    """Starts edge nodes of the independent implementation; killed at the end."""
    with ExitStack() as ending:

        def make(group: str, node: str, metrics: list[dict[str, Any]], **more: Any) -> IndependentNode:
            made = IndependentNode(mqtt_url, group, node, metrics, **more)
            made.start()
            ending.callback(made.kill)
            return made

        yield make


@pytest.fixture
async def broker() -> AsyncIterator[RecordingBroker]:
    server = RecordingBroker()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def rig(broker: RecordingBroker) -> AsyncIterator[Rig]:
    made = Rig(broker)
    yield made
    await made.close()

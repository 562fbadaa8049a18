"""Commands of the host application as an edge node of an independent implementation gets them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.sparkplug.host import SparkplugHost
from plantwire.gateway.sparkplug.outcome import EdgeNodeId
from tests.integration.gateway.sparkplug.conftest import NodeMaker
from tests.integration.gateway.sparkplug.host_rig import Intake
from tests.integration.gateway.sparkplug.test_sparkplug_independent_node import MOTOR, NODE


@pytest.fixture
async def host(mqtt_url: str, group: str) -> AsyncIterator[tuple[SparkplugHost, Intake]]:
    intake = Intake()
    settings = GatewaySettings(
        mqtt=mqtt_url,
        mqtt_client_id="commanding",
        sparkplug_host_id="commanding",
        sparkplug_groups=group,
    )
    serving = SparkplugHost(settings, intake, GatewayMetrics())
    running = asyncio.create_task(serving.run())
    async with asyncio.timeout(10):
        while await serving.ready() is not None:  # noqa: ASYNC110 - it tells nobody of itself
            await asyncio.sleep(0.01)
    yield serving, intake
    await serving.close(2.0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-data-commands-ncmd-verb",
    "tck-id-operational-behavior-data-commands-dcmd-verb",
    "tck-id-operational-behavior-data-commands-ncmd-metric-value",
    "tck-id-operational-behavior-data-commands-dcmd-metric-value",
    "tck-id-payloads-alias-data-cmd-requirement",
)
async def test_commands_reach_the_node_and_its_device(
    host: tuple[SparkplugHost, Intake], make_node: NodeMaker, group: str
) -> None:
    serving, intake = host
    node = make_node(group, "Press", NODE, devices={"Motor": MOTOR})
    await asyncio.to_thread(node.connect)
    async with asyncio.timeout(10):
        while len(intake.frames) < 2:  # noqa: ASYNC110 - the births show in the intake alone
            await asyncio.sleep(0.01)
    press = EdgeNodeId(group, "Press")
    assert await serving.send_command(press, None, {"Uptime": -9})
    heard = await asyncio.to_thread(node.wait_for_event, lambda event: event["event"] == "NCMD")
    assert heard["metrics"] == [{"name": None, "alias": 1, "value": -9}]
    assert await serving.send_command(press, "Motor", {"Torque": -300, "Mode": "hand", "Temperature": 1.5})
    heard = await asyncio.to_thread(node.wait_for_event, lambda event: event["event"] == "DCMD")
    assert heard["device"] == "Motor"
    assert sorted(heard["metrics"], key=lambda metric: metric["alias"]) == [
        {"name": None, "alias": 2, "value": 1.5},
        {"name": None, "alias": 3, "value": "hand"},
        {"name": None, "alias": 4, "value": -300},
    ]

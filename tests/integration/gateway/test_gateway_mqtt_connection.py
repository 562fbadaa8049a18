"""What one connection to an MQTT broker promises of publishing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from plantwire.gateway.mqtt_connection import PUBLISHING_MAX, BrokerAddress, MqttConnection
from plantwire.gateway.settings import GatewaySettings
from tests.integration.gateway.sparkplug.recording_broker import CONNECT, RecordingBroker


@pytest.fixture
async def broker() -> AsyncIterator[RecordingBroker]:
    server = RecordingBroker()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def connection(broker: RecordingBroker) -> AsyncIterator[MqttConnection]:
    made = MqttConnection(BrokerAddress.of(GatewaySettings(mqtt=broker.url)), lambda _message: None)
    await made.open(("a/#",))
    yield made
    await made.close()


async def test_messages_leave_in_order_and_their_outcome_is_told(
    connection: MqttConnection, broker: RecordingBroker
) -> None:
    outcomes = [connection.publish(f"t/{n}", b"%d" % n, qos=n % 2, retain=n == 3) for n in range(10)]
    assert all(await asyncio.gather(*outcomes))
    assert [(p.topic, p.payload, p.qos, p.retain) for p in broker.published()] == [
        (f"t/{n}", b"%d" % n, n % 2, n == 3) for n in range(10)
    ]


async def test_a_session_that_is_kept_has_no_will(
    connection: MqttConnection, broker: RecordingBroker
) -> None:
    (connect,) = [packet for packet in broker.packets if packet.kind == CONNECT]
    assert (connect.clean_session, connect.will) == (False, None)


async def test_what_waits_for_its_acknowledgement_is_bounded(
    connection: MqttConnection, broker: RecordingBroker
) -> None:
    broker.acknowledges_publishes = False
    waiting = [connection.publish("t", b"", qos=1) for _ in range(PUBLISHING_MAX)]
    assert await connection.publish("t", b"", qos=1) is False
    assert not any(outcome.done() for outcome in waiting)
    broker.cut()
    assert not any(await asyncio.gather(*waiting))


async def test_nothing_is_published_on_a_lost_connection(
    connection: MqttConnection, broker: RecordingBroker
) -> None:
    broker.cut()
    await connection.lost()
    assert await connection.publish("t", b"", qos=0) is False
    assert await connection.publish("t", b"", qos=1) is False

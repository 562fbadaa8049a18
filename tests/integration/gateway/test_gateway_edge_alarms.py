"""Alarms of a gateway without the cloud, and what it tells the cloud afterwards: real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from plantwire.domain.packed_state import unpack
from plantwire.platform.rule_topic import publish_rules
from plantwire.platform.tokens import Role
from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC
from plantwire.schemas.records import AlarmRule, Limit
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka
from tests.integration.gateway.edge_rig import local_client, until
from tests.integration.gateway.gateway_rig import (
    GatewayProcess,
    Topic,
    frames_of,
    mqtt_publisher,
    path,
    publish,
    token,
)

HOT = AlarmRule("hot", 1, "press-*", "temperature", (Limit(0, above=100, deadband=2),))
SLOW = AlarmRule("slow", 1, "press-*", "pressure", (Limit(1, above=5),), on_delay_ms=300)

Told = tuple[str, int, str]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A Kafka of this module's own, with every topic and two rules; the last test kills it."""
    folder = tmp_path_factory.mktemp("edge")
    kafka = Kafka(folder / "kafka", *free_ports(2), folder / "kafka.log")
    kafka.prepare()
    kafka.start()
    try:
        kafka.wait_ready(60)
        create_every_topic(kafka.bootstrap)
        publish_rules(kafka.bootstrap, [HOT, SLOW])
        yield kafka
    finally:
        kafka.stop()


def create_every_topic(bootstrap: str) -> None:
    wanted = [NewTopic(t.name, t.partitions, 1) for t in topics.TOPICS]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics(wanted).values():
        made.result(30)


class Plant:
    """A gateway with edge alarms, and one device's frames to it."""

    def __init__(self, kafka: str, mqtt: str, folder: Path) -> None:
        self.gateway = GatewayProcess(
            kafka,
            mqtt,
            folder / "gateway.log",
            PLANTWIRE_GATEWAY_EDGE_ALARMS="true",
            PLANTWIRE_GATEWAY_ACK_TIMEOUT_MS="2000",
        )
        self.sent = 0

    def send(self, event_ms: int, **values: float) -> None:
        """Post one frame; it is durable when this returns."""
        self.sent += 1
        with self.gateway.client() as client:
            body = {"timestamp": event_ms, "sequence": self.sent, "metrics": values}
            response = client.post(path("press-1"), json=body)
        assert response.status_code == 202, response.text

    def start(self) -> None:
        self.gateway.start()
        self.gateway.wait_ready(30)

    def ledger(self) -> Any:
        return httpx.get(f"{self.gateway.url}/ledger").json()


async def again_until(attempt: Callable[[], bool]) -> None:
    """Try, a few times a second, until it answers yes."""
    async with asyncio.timeout(40):
        while not await asyncio.to_thread(attempt):  # noqa: ASYNC110 - each attempt does something
            await asyncio.sleep(0.2)


def viewer(device_id: str = "press-1") -> str:
    return token(Role.VIEWER, [device_id])


def read_alarms(bootstrap: str) -> list[Told]:
    """What the alarm log holds of press-1."""
    fire = Topic(bootstrap, topics.ALARMS_FIRE)
    events = [ALARM_CODEC.decode(message.value() or b"") for message in fire.read_to_end()]
    fire.close()
    return [(event.alarm_id, event.revision, event.kind) for event in events]


async def test_without_edge_alarms_there_is_no_websocket(
    broker: Kafka, mqtt_url: str, tmp_path: Path
) -> None:
    gateway = GatewayProcess(broker.bootstrap, mqtt_url, tmp_path / "gateway.log")
    gateway.start()
    try:
        await asyncio.to_thread(gateway.wait_ready, 30)
        async with httpx.AsyncClient() as client:
            headers = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
            response = await client.get(
                f"{gateway.url}/socket.io/?EIO=4&transport=websocket", headers=headers
            )
        assert response.status_code == 404
    finally:
        gateway.stop()


async def test_frames_by_mqtt_raise_alarms_and_rules_change_without_a_restart(
    broker: Kafka, mqtt_url: str, tmp_path: Path
) -> None:
    plant = Plant(broker.bootstrap, mqtt_url, tmp_path)
    publisher = mqtt_publisher(mqtt_url, "edge-publisher")
    try:
        await asyncio.to_thread(plant.start)
        await until(lambda: plant.gateway.counted("edge_rules") == 2)
        async with local_client(plant.gateway.url, viewer("press-3")) as client:
            for device_id, temperature in (("press-2", 101.0), ("press-3", 101.0)):
                body = b'{"metrics": {"temperature": %f, "oil": 95}}' % temperature
                await asyncio.to_thread(publish, publisher, f"devices/{device_id}/telemetry", body)
            await until(lambda: client.alarms())
            late = AlarmRule("oil", 1, "press-*", "oil", (Limit(0, above=90),))
            await asyncio.to_thread(publish_rules, broker.bootstrap, [late])

            def told() -> bool:
                publish(publisher, "devices/press-3/telemetry", b'{"metrics": {"oil": 95}}')
                return len(client.alarms()) == 2

            await again_until(told)
            hot, alarm = client.of("alarm")
            assert (hot["deviceId"], hot["ruleId"], hot["limit"]) == ("press-3", "hot", 100.0)
            assert (alarm["deviceId"], alarm["ruleId"], alarm["limit"]) == ("press-3", "oil", 90.0)
            hops = alarm["hops"]
            order = [hops[name] for name in ("gatewayIn", "gatewayOut", "detectIn", "detectOut", "emitted")]
            assert order == sorted(order)
        # Kafka has every frame live, so the alarm log is left to the cloud's own detection.
        assert await asyncio.to_thread(read_alarms, broker.bootstrap) == []
    finally:
        publisher.disconnect()
        publisher.loop_stop()
        plant.gateway.stop()


async def test_alarms_go_on_while_kafka_is_away_and_the_gateway_is_killed_and_reconcile(
    broker: Kafka, mqtt_url: str, tmp_path: Path
) -> None:
    plant = Plant(broker.bootstrap, mqtt_url, tmp_path)
    told: list[Told] = []
    # The device's own time, well before ours, so that its alarms are a minute apart.
    at_ms = int(time.time() * 1000) - 600_000
    try:
        await asyncio.to_thread(plant.start)
        await until(lambda: plant.gateway.counted("edge_rules_followed") == 1)
        rules = plant.gateway.counted("edge_rules")
        assert rules >= 2
        async with local_client(plant.gateway.url, viewer()) as client:
            assert client.initial["rules"] == rules
            await asyncio.to_thread(plant.send, at_ms, temperature=50.0)
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGKILL)
            for temperature in (101.0, 50.0, 102.0):
                at_ms += 61_000
                await asyncio.to_thread(plant.send, at_ms, temperature=temperature)
            await until(lambda: len(client.alarms()) == 3)
            told += client.alarms()
        first, second = told[0][0], told[2][0]
        assert told == [(first, 1, "RAISED"), (first, 2, "CLEARED"), (second, 1, "RAISED")]
        assert first != second

        # Killed with the alarm active, and started without Kafka: rules, alarm and buffer are on disk.
        assert await asyncio.to_thread(plant.gateway.end, signal.SIGKILL) == -signal.SIGKILL
        plant.gateway.clear_away()
        await asyncio.to_thread(plant.start)
        async with local_client(plant.gateway.url, viewer()) as client:
            assert client.initial["rules"] == rules
            assert plant.gateway.counted("edge_rules_followed") == 0
            assert [(a["alarmId"], a["revision"]) for a in client.initial["alarms"]] == [(second, 1)]
            at_ms += 1_000
            await asyncio.to_thread(plant.send, at_ms, temperature=103.0)
            at_ms += 1_000
            await asyncio.to_thread(plant.send, at_ms, temperature=50.0)
            at_ms += 61_000
            await asyncio.to_thread(plant.send, at_ms, temperature=50.0, pressure=6.0)
            # The delay ends by the gateway's clock, without a frame.
            await until(lambda: len(client.alarms()) == 2)
            assert client.alarms()[0] == (second, 2, "CLEARED")
            assert client.alarms()[1][1:] == (1, "RAISED")
            told += client.alarms()

            # Kafka is back: live frames carry the state until one is acknowledged, the rest follows.
            broker.stop()
            await asyncio.to_thread(broker.start)
            await asyncio.to_thread(broker.wait_ready, 60)

            def one_more() -> bool:
                nonlocal at_ms
                at_ms += 500
                plant.send(at_ms, temperature=50.0, pressure=7.0)
                drained = plant.ledger()["buffer"]["entries"] == 0
                return drained and plant.gateway.counted("edge_devices_diverged") == 0

            await until(lambda: plant.gateway.counted("edge_rules_followed") == 1)
            await again_until(one_more)
            at_ms += 500
            await asyncio.to_thread(plant.send, at_ms, temperature=50.0, pressure=7.0)
            assert len(client.alarms()) == 2
        log = await asyncio.to_thread(read_alarms, broker.bootstrap)
        assert set(log) == set(told)
        assert [key for key in dict.fromkeys(log) if key in told] == told
        raw = Topic(broker.bootstrap, topics.TELEMETRY_RAW)
        frames = await asyncio.to_thread(lambda: frames_of(raw.read_to_end(), "press-1"))
        raw.close()
        assert {frame.sequence for frame in frames} == set(range(1, plant.sent + 1))
        live = [frame for frame in frames if not frame.historical]
        assert [frame.sequence for frame in live] == sorted(frame.sequence or 0 for frame in live)
        assert live[0].edge_state == live[-1].edge_state == b""
        carried = [unpack(frame.edge_state)[1] for frame in live if frame.edge_state]
        assert carried, "no live frame told the cloud what it had missed"
        alarm = carried[0][("slow", "pressure")].alarm
        assert alarm is not None
        assert (alarm.alarm_id, alarm.revision) == told[-1][:2]
    finally:
        plant.gateway.stop()

"""The mixed plant, as `plantwire up` starts it, through a real gateway and broker into Kafka."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Message

from plantwire.schemas.records import QUALITY_STALE, TelemetryFrame
from plantwire.simulator.lorawan.sensors import build_sensors
from plantwire.simulator.sparkplug.line import build_lines
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.mqtt import Mqtt
from tests.conftest import running
from tests.integration.gateway.gateway_rig import GatewayProcess, Topic, frame_of, frames_of
from tests.integration.gateway.simulator_rig import Simulator, ended_at_last

HOST = "mixed-plant"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """A broker that no other gateway listens to."""
    server = Mqtt(tmp_path / "mqtt", *free_ports(1), tmp_path / "mqtt.log")
    with running(server):
        yield server.url


@pytest.fixture
def own_gateway(kafka: str, broker: str, tmp_path: Path) -> Iterator[GatewayProcess]:
    """The Sparkplug host that the simulated edge node waits for."""
    process = GatewayProcess(kafka, broker, tmp_path / "gateway.log", PLANTWIRE_SPARKPLUG_HOST_ID=HOST)
    process.start()
    try:
        process.wait_ready(30)
        yield process
    finally:
        process.stop()


def protocols_of(messages: list[Message], device_ids: set[str]) -> Counter[str]:
    return Counter(frame_of(m).protocol for m in messages if m.key().decode() in device_ids)


def is_dead(frames: list[TelemetryFrame]) -> bool:
    return bool(frames) and all(metric.quality == QUALITY_STALE for metric in frames[-1].metrics)


def test_every_kind_of_device_arrives_under_its_id(
    own_gateway: GatewayProcess, broker: str, raw: Topic, tmp_path: Path
) -> None:
    before = len(raw.read_to_end())
    (line,) = build_lines(1, 4, 1, 1.0, 1.0)
    edge_ids = set(line.names())
    sensor_ids = {sensor.device_id for sensor in build_sensors(4, 1, 1.0, 1.0)}
    options = ("--mqtt", broker, "--duration", "6", "--sensor-interval", "1", "--sparkplug-host", HOST)
    with ended_at_last() as started:
        started.append(Simulator(tmp_path / "log", own_gateway.url, *options))
        counts = started[0].end()
    accepted, dropped = counts["accepted"], counts["dropped"]
    assert isinstance(accepted, dict)
    assert isinstance(dropped, dict)
    assert accepted.keys() == {"http", "mqtt", "sparkplug", "chirpstack"}
    assert counts["rejected"] == {}
    # While the connections come up; a device keeps nothing.
    assert dropped.keys() <= {"sparkplug: host-offline", "sparkplug: broker-away", "chirpstack: broker-away"}

    # Every device is there, and the edge node has died in order: no value of it looks current any more.
    messages = raw.read_until(
        lambda found: (
            all(frames_of(found[before:], device_id) for device_id in sensor_ids)
            and all(is_dead(frames_of(found[before:], device_id)) for device_id in edge_ids)
        )
    )[before:]
    assert protocols_of(messages, edge_ids).keys() == {"sparkplug-b"}
    assert protocols_of(messages, edge_ids)["sparkplug-b"] >= accepted["sparkplug"]
    # One frame for each uplink, and one for each join and status: one of each per sensor in this time.
    uplinks = [
        frame
        for device_id in sensor_ids
        for frame in frames_of(messages, device_id)
        if any(metric.name == "lorawan/rssi" for metric in frame.metrics)
    ]
    assert len(uplinks) == accepted["chirpstack"]
    assert protocols_of(messages, sensor_ids) == {"chirpstack": len(uplinks) + 2 * len(sensor_ids)}
    assert {"mqtt-json", "http"} == protocols_of(messages, {"press-01", "pump-01"}).keys()
    mixer = frames_of(messages, "line-1:plc:mixer-01")
    assert {metric.name for metric in mixer[0].metrics} == {
        spec.name for spec in line.machines["mixer-01"].kind.metrics
    }
    assert not any(frame.historical for frame in mixer)
    with own_gateway.client() as client:
        assert "plantwire_gateway_dead_letters_total{" not in client.get("/metrics").text

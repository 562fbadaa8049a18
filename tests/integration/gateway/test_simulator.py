"""The simulated plant against a real gateway, broker and Kafka."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Message

from plantwire.simulator.broker import BrokerAddress
from plantwire.simulator.frame import Frame
from plantwire.simulator.mqtt_outlet import MqttOutlet
from plantwire.simulator.outlet import Accepted, Dropped
from plantwire.simulator.settings import SimulatorSettings
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.mqtt import Mqtt
from tests.integration.gateway.gateway_rig import GatewayProcess, Topic, frame_of, frames_of
from tests.integration.gateway.simulator_rig import END_TIMEOUT_S, Simulator, ended_at_last

FRAME = Frame("press-01", "hall-a", 0, 1, {"temperature": 1.0})
KINDS = {"press", "pump", "compressor", "furnace", "conveyor", "tank", "chiller", "motor", "nab"}


@pytest.fixture
def simulators() -> Iterator[list[Simulator]]:
    """Those that a test started."""
    with ended_at_last() as started:
        yield started


def protocols_of(messages: Sequence[Message]) -> Counter[str]:
    """How many frames of simulated devices came by which protocol."""
    keys = [(message, message.key().decode()) for message in messages]
    return Counter(frame_of(message).protocol for message, key in keys if key.split("-")[0] in KINDS)


def test_every_device_arrives_whole_by_its_transport(
    gateway: GatewayProcess, mqtt_url: str, raw: Topic, tmp_path: Path, simulators: list[Simulator]
) -> None:
    before = len(raw.read_to_end())
    simulator = Simulator(
        tmp_path / "log",
        gateway.url,
        *("--mqtt", mqtt_url, "--protocol", "http", "--protocol", "mqtt", "--duration", "5", "--rate", "2"),
    )
    simulators.append(simulator)
    counts = simulator.end()
    assert counts["rejected"] == counts["dropped"] == {}
    accepted = counts["accepted"]
    assert isinstance(accepted, dict)
    assert accepted.keys() == {"http", "mqtt"}
    assert counts["made"] == sum(accepted.values()) > 41 * 3

    sent = sum(accepted.values())
    messages = raw.read_until(lambda found: protocols_of(found[before:]).total() >= sent)[before:]
    assert sorted(protocols_of(messages).values()) == sorted(accepted.values())
    for device_id in ("press-01", "pump-01", "nab-machine-01"):
        frames = frames_of(messages, device_id)
        assert len(frames) >= 3
        assert [frame.sequence for frame in frames] == list(range(len(frames)))
        assert all(abs(frame.event_time_ms - frame.received_time_ms) < 5_000 for frame in frames)


def test_it_goes_on_when_the_gateway_was_killed_and_counts_what_did_not_get_through(
    kafka: str, mqtt_url: str, raw: Topic, tmp_path: Path, simulators: list[Simulator]
) -> None:
    before = len(frames_of(raw.read_to_end(), "nab-machine-01"))
    gateway = GatewayProcess(kafka, mqtt_url, tmp_path / "gateway.log")
    gateway.start()
    try:
        gateway.wait_ready(30)
        simulator = Simulator(
            tmp_path / "log",
            gateway.url,
            *("--protocol", "http"),
            *("--devices", "0"),
            *("--nab-speed", "20"),
        )
        simulators.append(simulator)

        def more_than(frames: int) -> int:
            found = raw.read_until(lambda m: len(frames_of(m, "nab-machine-01")) > frames)
            return len(frames_of(found, "nab-machine-01"))

        seen = more_than(before + 10)
        gateway.end(signal.SIGKILL)
        gateway.start()
        gateway.wait_ready(30)
        more_than(seen + 10)
        counts = simulator.end(signal.SIGTERM)
    finally:
        gateway.stop()
    accepted, dropped = counts["accepted"], counts["dropped"]
    assert isinstance(accepted, dict)
    assert isinstance(dropped, dict)
    assert dropped.keys() <= {"http: gateway-away", "http: gateway-busy", "http: no-answer"}
    assert sum(dropped.values()) > 0
    assert counts["made"] == accepted["http"] + sum(dropped.values())
    arrived = len(frames_of(raw.read_to_end(), "nab-machine-01")) - before
    # What the gateway acknowledged is there; it may have taken a frame whose answer was lost with it.
    assert accepted["http"] <= arrived <= accepted["http"] + sum(dropped.values())


def test_a_token_that_is_not_taken_is_counted_by_the_gateways_reason(
    gateway: GatewayProcess, tmp_path: Path, simulators: list[Simulator]
) -> None:
    simulator = Simulator(
        tmp_path / "log",
        gateway.url,
        *("--protocol", "http", "--devices", "3", "--duration", "1.5"),
        PLANTWIRE_TOKEN="a.b.c",
    )
    simulators.append(simulator)
    counts = simulator.end()
    assert counts["accepted"] == counts["dropped"] == {}
    rejected = counts["rejected"]
    assert isinstance(rejected, dict)
    assert sum(rejected.values()) == counts["made"]
    assert all(reason.startswith("http: ") and "status-" not in reason for reason in rejected)
    assert "a.b.c" not in (tmp_path / "log").read_text()


async def test_it_finds_the_broker_again(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    outlet = MqttOutlet(BrokerAddress(f"mqtt://127.0.0.1:{port}", SimulatorSettings()))
    connection = asyncio.get_running_loop().create_task(outlet.run())

    async def until_accepted() -> None:
        deadline_s = time.monotonic() + END_TIMEOUT_S
        while not isinstance(await outlet.send(FRAME), Accepted):
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.05)  # the outlet tells no one when it is connected

    try:
        assert await outlet.send(FRAME) == Dropped("broker-away")
        for _ in range(2):
            broker = Mqtt(tmp_path / "mqtt", port, tmp_path / "mqtt.log")
            broker.prepare()
            broker.start()
            try:
                await until_accepted()
            finally:
                await asyncio.to_thread(broker.stop)
            assert isinstance(await outlet.send(FRAME), Dropped)
    finally:
        connection.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connection

"""Kill, stop and starve: no frame that was answered 202 is lost, and a 503 is never late."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plantwire.schemas import topics
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka
from plantwire.stack.servers.process import wait_until
from tests.integration.gateway.gateway_rig import (
    GOOD,
    GatewayProcess,
    Load,
    Topic,
    create_topics,
    frames_of,
    mqtt_publisher,
    path,
    publish,
)


@pytest.fixture
def own_gateway(kafka: str, mqtt_url: str, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway that the test may kill."""
    process = GatewayProcess(kafka, mqtt_url, tmp_path / "gateway.log")
    process.start()
    try:
        process.wait_ready(30)
        yield process
    finally:
        process.stop()


def missing(topic: Topic, device_id: str, load: Load) -> set[int]:
    stored = {frame.sequence for frame in frames_of(topic.read_to_end(), device_id)}
    return {number for number in load.acknowledged if number not in stored}


def test_a_stop_loses_no_acknowledged_frame(own_gateway: GatewayProcess, raw: Topic) -> None:
    load = Load(own_gateway, "sigterm")
    load.wait_for(200)
    assert own_gateway.end(signal.SIGTERM) == 0
    load.stop()
    assert not missing(raw, "sigterm", load)
    assert '"records_left": 0' in own_gateway.log_file.read_text()
    assert set(load.statuses) <= {202, "ConnectError", "RemoteProtocolError", "ReadError"}, load.statuses


def test_a_kill_loses_no_acknowledged_frame(own_gateway: GatewayProcess, raw: Topic) -> None:
    load = Load(own_gateway, "killed")
    for _ in range(2):
        load.wait_for(200)
        assert own_gateway.end(signal.SIGKILL) == -signal.SIGKILL
        own_gateway.start()
        own_gateway.wait_ready(30)
    load.wait_for(100)
    load.stop()
    assert not missing(raw, "killed", load)


def test_without_kafka_the_answer_is_503_in_time(mqtt_url: str, tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    gateway = GatewayProcess(
        f"127.0.0.1:{nobody}",
        mqtt_url,
        tmp_path / "gateway.log",
        PLANTWIRE_GATEWAY_ACK_TIMEOUT_MS="1000",
        PLANTWIRE_GATEWAY_IN_FLIGHT_MAX="10",
        PLANTWIRE_GATEWAY_FRAMES_PER_REQUEST_MAX="10",
    )
    gateway.start()
    try:
        wait_until(gateway.probe_alive, 20, "gateway")
        assert "kafka" in (gateway.probe() or "")
        with gateway.client() as client:
            started_s = time.monotonic()
            response = client.post(path("starved"), content=GOOD)
            assert time.monotonic() - started_s < 8
            assert (response.status_code, response.json()["reason"]) == (503, "not-acknowledged")
            assert int(response.headers["retry-after"]) >= 1
            # The bound on what is in flight refuses at once, and frees itself.
            body = b"[" + b",".join([GOOD] * 10) + b"]"
            with ThreadPoolExecutor(3) as pool:
                responses = list(pool.map(lambda _: client.post(path("starved"), content=body), range(3)))
            reasons = sorted(response.json()["reason"] for response in responses)
            assert reasons == ["in-flight-full", "in-flight-full", "not-acknowledged"]
        assert gateway.counted("frames_in_flight") == 0
    finally:
        gateway.stop()


def test_a_kafka_that_hangs_and_one_that_is_killed(mqtt_url: str, tmp_path: Path) -> None:
    broker = Kafka(tmp_path / "kafka", *free_ports(2), tmp_path / "kafka.log")
    broker.prepare()
    broker.start()
    gateway = GatewayProcess(
        broker.bootstrap,
        mqtt_url,
        tmp_path / "gateway.log",
        PLANTWIRE_GATEWAY_ACK_TIMEOUT_MS="1500",
        PLANTWIRE_GATEWAY_MQTT_IN_FLIGHT_MAX="10",
    )
    try:
        broker.wait_ready(60)
        create_topics(broker.bootstrap)
        gateway.start()
        gateway.wait_ready(30)
        publisher = mqtt_publisher(mqtt_url, "outage-publisher")
        load = Load(gateway, "outage")
        load.wait_for(100)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            # Five times what the gateway may hold: it stops reading, and forgets none.
            for number in range(50):
                body = b'{"sequence": %d, "metrics": {"t": 1}}' % number
                publish(publisher, "devices/outage-mqtt/telemetry", body)
            with gateway.client() as client:
                started_s = time.monotonic()
                assert client.post(path("outage-one"), content=GOOD).status_code == 503
                assert time.monotonic() - started_s < 10
            assert 0 < gateway.counted("mqtt_messages_held") <= 10
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        load.wait_for(100)
        os.kill(broker.pid, signal.SIGKILL)
        broker.stop()
        broker.start()
        broker.wait_ready(60)
        load.wait_for(100)
        load.stop()
        assert set(load.statuses) == {202, 503}, load.statuses
        topic = Topic(broker.bootstrap, topics.TELEMETRY_RAW)
        lost = missing(topic, "outage", load)
        topic.read_until(lambda m: {f.sequence for f in frames_of(m, "outage-mqtt")} == set(range(50)))
        topic.close()
        publisher.disconnect()
        publisher.loop_stop()
        assert not lost
    finally:
        gateway.stop()
        broker.stop()

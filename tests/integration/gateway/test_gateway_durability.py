"""Kill, stop and starve: no frame that was answered 202 is lost, and a 503 is never late.

Outages of Kafka that the edge buffer bridges are in test_gateway_outage.
"""

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
from tests.conftest import running
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
    with running(GatewayProcess(kafka, mqtt_url, tmp_path / "gateway.log")) as process:
        yield process


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


# Above what such a buffer takes at once.
LARGE_FRAME = b'{"metrics": {%s}}' % b",".join(b'"%d": "%s"' % (n, b"x" * 8000) for n in range(10))
SMALL_BUFFER = {
    "PLANTWIRE_GATEWAY_BUFFER_MAX_BYTES": str(1024 * 1024),
    "PLANTWIRE_GATEWAY_BUFFER_WAITING_MAX_BYTES": str(1024 * 1024),
    "PLANTWIRE_GATEWAY_ACK_TIMEOUT_MS": "1000",
    "PLANTWIRE_GATEWAY_SPILL_AFTER_MS": "200",
}


def test_what_neither_kafka_nor_the_buffer_takes_is_answered_503_in_time(
    mqtt_url: str, tmp_path: Path
) -> None:
    (nobody,) = free_ports(1)
    gateway = GatewayProcess(
        f"127.0.0.1:{nobody}",
        mqtt_url,
        tmp_path / "gateway.log",
        **SMALL_BUFFER,
        PLANTWIRE_GATEWAY_IN_FLIGHT_MAX="1",
        PLANTWIRE_GATEWAY_FRAMES_PER_REQUEST_MAX="1",
    )
    with running(gateway), gateway.client() as client:
        started_s = time.monotonic()
        response = client.post(path("starved"), content=LARGE_FRAME)
        assert time.monotonic() - started_s < 8
        assert (response.status_code, response.json()["reason"]) == (503, "not-acknowledged")
        assert int(response.headers["retry-after"]) >= 1
        # With as much in flight as may be, the answer comes at once.
        with ThreadPoolExecutor(3) as pool:
            responses = list(pool.map(lambda _: client.post(path("starved"), content=LARGE_FRAME), range(3)))
        reasons = sorted(response.json()["reason"] for response in responses)
        assert reasons == ["in-flight-full", "in-flight-full", "not-acknowledged"]
        assert gateway.counted("frames_in_flight") == 0
        assert gateway.counted("ledger_dropped_total", reason="returned", source="http") == 4
        # What the buffer has room for is taken all the same.
        assert client.post(path("starved"), content=GOOD).status_code == 202
        assert gateway.probe() is None
        report = client.get("/ledger").json()
        assert report["identity_holds"]
        assert report["total"]["buffered"] >= 1


def test_mqtt_messages_that_nobody_takes_are_held_up_to_the_bound_and_none_is_forgotten(
    mqtt_url: str, tmp_path: Path
) -> None:
    broker = Kafka(tmp_path / "kafka", *free_ports(2), tmp_path / "kafka.log")
    with running(broker):
        create_topics(broker.bootstrap)
        gateway = GatewayProcess(
            broker.bootstrap,
            mqtt_url,
            tmp_path / "gateway.log",
            **SMALL_BUFFER,
            PLANTWIRE_GATEWAY_MQTT_IN_FLIGHT_MAX="10",
        )
        with running(gateway):
            publisher = mqtt_publisher(mqtt_url, "outage-publisher")
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                # Five times what the gateway may hold: it stops reading, and forgets none.
                for number in range(50):
                    body = LARGE_FRAME[:-1] + b', "sequence": %d}' % number
                    publish(publisher, "devices/outage-mqtt/telemetry", body)
                labels = {"transport": "mqtt-json", "reason": "not-acknowledged"}
                wait_until(
                    lambda: None if gateway.counted("unavailable_total", **labels) else "none yet",
                    20,
                    "retries",
                )
                assert 0 < gateway.counted("mqtt_messages_held") <= 10
            finally:
                os.kill(broker.pid, signal.SIGCONT)
            topic = Topic(broker.bootstrap, topics.TELEMETRY_RAW)
            topic.read_until(
                lambda m: {f.sequence for f in frames_of(m, "outage-mqtt")} == set(range(50)), 40
            )
            topic.close()
            publisher.disconnect()
            publisher.loop_stop()

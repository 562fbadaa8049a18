"""JSON over MQTT through a real broker and a real gateway into a real Kafka."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Message
from paho.mqtt.client import Client

from plantwire.schemas import topics
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.mqtt import Mqtt
from plantwire.stack.servers.process import wait_until
from tests.integration.gateway.gateway_rig import (
    GOOD,
    GatewayProcess,
    Topic,
    frames_of,
    mqtt_publisher,
    publish,
)


@pytest.fixture
def publisher(mqtt_url: str) -> Iterator[Client]:
    client = mqtt_publisher(mqtt_url, "test-publisher")
    yield client
    client.disconnect()
    client.loop_stop()


def test_a_frame_arrives(gateway: GatewayProcess, publisher: Client, raw: Topic) -> None:
    event_time_ms = int(time.time() * 1000) - 100
    body = {"timestamp": event_time_ms, "metrics": {"temperature": 50.5}, "sequence": 3}
    for qos in (0, 1):
        publish(publisher, f"devices/mqtt-{qos}/telemetry", json.dumps(body).encode(), qos)
    raw.read_until(lambda m: bool(frames_of(m, "mqtt-0") and frames_of(m, "mqtt-1")))
    for device_id in ("mqtt-0", "mqtt-1"):
        (frame,) = frames_of(raw.messages, device_id)
        assert (frame.event_time_ms, frame.sequence, frame.protocol) == (event_time_ms, 3, "mqtt-json")
        assert frame.metrics[0].number == 50.5
        assert 0 < frame.gateway_in_us <= frame.gateway_out_us


def test_what_the_broker_retained_counts_where_it_says_its_time(
    kafka: str, mqtt_url: str, publisher: Client, raw: Topic, tmp_path: Path
) -> None:
    event_time_ms = int(time.time() * 1000) - 60_000
    dated = json.dumps({"timestamp": event_time_ms, "metrics": {"t": 1}}).encode()
    for device, payload in (("kept-dated", dated), ("kept-undated", GOOD)):
        publisher.publish(f"devices/{device}/telemetry", payload, 1, retain=True).wait_for_publish(10)
    gateway = GatewayProcess(kafka, mqtt_url, tmp_path / "gateway.log")
    gateway.start()  # after they were published: to its subscription they are old
    try:
        gateway.wait_ready(30)
        publish(publisher, "devices/kept-live/telemetry", GOOD)
        raw.read_until(lambda m: bool(frames_of(m, "kept-live") and frames_of(m, "kept-dated")))
        assert gateway.counted("mqtt_unneeded_total", protocol="mqtt-json", reason="retained-undated") == 1
    finally:
        gateway.stop()
        for device in ("kept-dated", "kept-undated"):  # an empty message ends the keeping
            publisher.publish(f"devices/{device}/telemetry", b"", 1, retain=True).wait_for_publish(10)
    assert {f.event_time_ms for f in frames_of(raw.messages, "kept-dated")} == {event_time_ms}


def test_bad_messages_become_dead_letters_and_disturb_nothing(
    gateway: GatewayProcess, publisher: Client, raw: Topic, dlq: Topic
) -> None:
    ahead = b'{"timestamp": %d, "metrics": {"t": 1}}' % (int(time.time() * 1000) + 86_400_000)
    cases = [
        ("devices/mqtt-bad/telemetry", b"not json", "not-json"),
        ("devices/mqtt-bad/telemetry", b"", "not-json"),
        ("devices/mqtt-bad/telemetry", b"\x00\xff\xfe", "not-json"),
        ("devices/mqtt-bad/telemetry", b'{"metrics": {"t": NaN}}', "not-a-number"),
        ("devices/mqtt-bad/telemetry", b'{"metrics": {"t": Infinity}}', "not-a-number"),
        ("devices/mqtt-bad/telemetry", b'{"metrics": {"t": 1e999}}', "not-a-number"),
        ("devices/mqtt-bad/telemetry", b'{"metrics": {}}', "bad-shape"),
        ("devices/mqtt-bad/telemetry", b'{"metrics": {"t": 1, "t": 2}}', "duplicate-key"),
        ("devices/mqtt-bad/telemetry", ahead, "timestamp-ahead"),
        ("devices/mqtt-bad/telemetry", b" " * 2_000_000, "body-too-large"),
        ("devices/a b/telemetry", GOOD, "invalid-device-id"),
        ("devices/a/b/telemetry", GOOD, "invalid-device-id"),
        ("devices//telemetry", GOOD, "invalid-device-id"),
    ]
    reasons = {case[2] for case in cases}

    def counts() -> dict[str, tuple[float, float]]:
        return {
            reason: (
                gateway.counted("rejected_total", reason=reason, transport="mqtt-json"),
                gateway.counted("dead_letters_total", reason=reason),
            )
            for reason in reasons
        }

    before = counts()
    before_ms = int(time.time() * 1000)
    for number, (topic, payload, _) in enumerate(cases):
        publish(publisher, topic, payload)
        good = json.dumps({"sequence": number, "metrics": {"t": 1}}).encode()
        publish(publisher, "devices/mqtt-good/telemetry", good)
    raw.read_until(lambda messages: len(frames_of(messages, "mqtt-good")) >= len(cases))
    assert sorted(f.sequence or 0 for f in frames_of(raw.messages, "mqtt-good")) == list(range(len(cases)))
    assert not frames_of(raw.messages, "mqtt-bad")

    def letters(messages: list[Message]) -> list[tuple[str, str, bytes]]:
        found = []
        for message in messages:
            headers = dict(message.headers() or [])
            source = headers[topics.HEADER_SOURCE].decode()
            if source.removeprefix("mqtt:") in {case[0] for case in cases}:
                assert before_ms <= int(headers[topics.HEADER_RECEIVED_TIME]) <= time.time() * 1000
                found.append((source, headers[topics.HEADER_REASON].decode(), message.value()))
        return found

    dlq.read_until(lambda messages: len(letters(messages)) >= len(cases))
    expected = [(f"mqtt:{topic}", reason, payload[:900_000]) for topic, payload, reason in cases]
    assert sorted(letters(dlq.messages)) == sorted(expected)
    for reason, (rejected, letters_) in counts().items():
        number = sum(case[2] == reason for case in cases)
        assert (rejected, letters_) == (before[reason][0] + number, before[reason][1] + number), reason


def test_a_broker_that_restarts_is_found_again(kafka: str, raw: Topic, tmp_path: Path) -> None:
    broker = Mqtt(tmp_path / "mqtt", *free_ports(1), tmp_path / "mqtt.log")
    broker.prepare()
    gateway = GatewayProcess(kafka, broker.url, tmp_path / "gateway.log")
    gateway.start()
    try:
        wait_until(gateway.probe_alive, 20, "gateway")
        assert "mqtt" in (gateway.probe() or "")  # HTTP serves, but it does not call itself ready
        for round_ in range(2):
            broker.start()
            broker.wait_ready(20)
            gateway.wait_ready(20)
            client = mqtt_publisher(broker.url, "restart-publisher")
            publish(client, f"devices/round-{round_}/telemetry", GOOD)
            raw.read_until(lambda messages, n=round_: bool(frames_of(messages, f"round-{n}")))  # type: ignore[misc]
            client.disconnect()
            client.loop_stop()
            broker.stop()
            wait_until(lambda: None if "mqtt" in (gateway.probe() or "") else "still ready", 20, "gateway")
    finally:
        gateway.stop()
        broker.stop()


def test_nothing_that_the_broker_acknowledged_is_lost_when_the_gateway_is_killed(
    kafka: str, raw: Topic, tmp_path: Path
) -> None:
    broker = Mqtt(tmp_path / "mqtt", *free_ports(1), tmp_path / "mqtt.log")
    broker.prepare()
    gateway = GatewayProcess(kafka, broker.url, tmp_path / "gateway.log")
    broker.start()
    try:
        broker.wait_ready(20)
        gateway.start()
        gateway.wait_ready(20)
        client = mqtt_publisher(broker.url, "kill-publisher")
        sent = 0
        for _ in range(3):
            # Not waited for one by one: when the kill comes, messages are on their way.
            promises = [
                client.publish("devices/mqtt-kill/telemetry", json.dumps(body).encode(), 1)
                for body in ({"sequence": n, "metrics": {"t": n}} for n in range(sent, sent + 600))
            ]
            sent += 600
            promises[300].wait_for_publish(10)
            gateway.end(signal.SIGKILL)
            for promise in promises:
                promise.wait_for_publish(10)
            assert all(promise.is_published() for promise in promises)
            gateway.start()
            gateway.wait_ready(20)
        client.disconnect()
        client.loop_stop()
        raw.read_until(lambda m: {f.sequence for f in frames_of(m, "mqtt-kill")} == set(range(sent)), 30)
    finally:
        gateway.stop()
        broker.stop()

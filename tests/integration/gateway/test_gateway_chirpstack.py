"""ChirpStack's events through a real broker and a real gateway into a real Kafka."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Message
from paho.mqtt.client import Client

from plantwire.schemas import topics
from plantwire.schemas.records import TelemetryFrame
from tests.integration.gateway.gateway_rig import GatewayProcess, Topic, frames_of, mqtt_publisher, publish
from tests.unit.gateway.chirpstack.chirpstack_events import EVENTS, info_with, payload_of, topic_of

PLUGIN = """
def decode(payload, f_port):
    if f_port == 9:
        raise SystemExit("this port is not for reading")
    return {"moisture": payload[0] / 2, "port": f_port}
"""


@pytest.fixture
def publisher(mqtt_url: str) -> Iterator[Client]:
    client = mqtt_publisher(mqtt_url, "chirpstack")
    yield client
    client.disconnect()
    client.loop_stop()


def send(publisher: Client, event: str, dev_eui: str, **changes: object) -> None:
    info = changes.pop("deviceInfo", None) or info_with(devEui=dev_eui)
    publish(publisher, topic_of(event, dev_eui), payload_of(event, deviceInfo=info, **changes))


def values(frame: TelemetryFrame) -> dict[str, object]:
    return {m.name: m.text if m.number is None else m.number for m in frame.metrics}


def test_every_event_arrives(gateway: GatewayProcess, publisher: Client, raw: Topic) -> None:
    dev_eui = "a0" * 8
    before = gateway.counted("mqtt_remarks_total", protocol="chirpstack", remark="log-error")
    for event in EVENTS:
        send(publisher, event, dev_eui)
    raw.read_until(lambda messages: len(frames_of(messages, dev_eui)) >= len(EVENTS))
    frames = frames_of(raw.messages, dev_eui)
    assert {(f.protocol, f.site, f.historical) for f in frames} == {("chirpstack", "Test application", False)}
    together = {name: value for frame in frames for name, value in values(frame).items()}
    assert together["lorawan/battery"] == pytest.approx(88.3)
    assert together["lorawan/ack/acknowledged"] == 1
    assert together["lorawan/log/code"] == "UPLINK_MIC"
    assert together["lorawan/data"] == "aa"
    assert gateway.counted("mqtt_remarks_total", protocol="chirpstack", remark="log-error") == before + 1
    assert gateway.counted("frames_accepted_total", transport="chirpstack") >= len(EVENTS)


def test_a_repeated_uplink_is_forwarded_once(gateway: GatewayProcess, publisher: Client, raw: Topic) -> None:
    dev_eui = "a1" * 8
    first, second = ({"deduplicationId": f"{n:032x}", "fCnt": n} for n in (1, 2))
    before = gateway.counted("mqtt_unneeded_total", protocol="chirpstack", reason="duplicate")
    for changes in (first, first, second, first):
        send(publisher, "up", dev_eui, **changes)
    send(publisher, "status", dev_eui, deduplicationId=first["deduplicationId"])  # of the same reception
    raw.read_until(lambda m: len(frames_of(m, dev_eui)) >= 3)
    raw.read_to_end()
    assert [f.sequence for f in frames_of(raw.messages, dev_eui)] == [1, 2, None]
    assert gateway.counted("mqtt_unneeded_total", protocol="chirpstack", reason="duplicate") == before + 2


def test_bad_events_become_dead_letters_and_disturb_nothing(
    gateway: GatewayProcess, publisher: Client, raw: Topic, dlq: Topic
) -> None:
    dev_eui = "a2" * 8
    cases = [
        (topic_of("up", dev_eui), b"not json", "not-json"),
        (topic_of("up", dev_eui), payload_of("up"), "topic-mismatch"),
        (
            topic_of("up", dev_eui),
            payload_of("up", deviceInfo=info_with(devEui=dev_eui), dr="x"),
            "bad-shape",
        ),
        (topic_of("tea", dev_eui), payload_of("up"), "unknown-event"),
        (topic_of("up", "short"), payload_of("up"), "invalid-device-id"),
    ]
    for number, (topic, payload, _) in enumerate(cases):
        publish(publisher, topic, payload)
        send(publisher, "up", dev_eui, fCnt=number, deduplicationId=f"{number:032x}")
    publish(publisher, topic_of("integration", dev_eui), payload_of("up"))
    raw.read_until(lambda messages: len(frames_of(messages, dev_eui)) >= len(cases))
    assert [f.sequence for f in frames_of(raw.messages, dev_eui)] == list(range(len(cases)))

    def ours(messages: list[Message]) -> list[tuple[str, bytes, str]]:
        letters = []
        for message in messages:
            headers = dict(message.headers() or [])
            source = headers[topics.HEADER_SOURCE].decode()
            if source.startswith("mqtt:application/"):
                topic = source.removeprefix("mqtt:")
                letters.append((topic, message.value(), headers[topics.HEADER_REASON].decode()))
        return letters

    dlq.read_until(lambda messages: len(ours(messages)) >= len(cases))
    assert sorted(ours(dlq.messages)) == sorted(cases)


def test_codecs_decode_what_chirpstack_does_not(
    kafka: str, mqtt_url: str, publisher: Client, raw: Topic, dlq: Topic, tmp_path: Path
) -> None:
    metadata = tmp_path / "moisture_codec-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: moisture-codec\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[plantwire.lorawan_codecs]\nmoisture = moisture_codec:decode\n"
    )
    (tmp_path / "moisture_codec.py").write_text(PLUGIN)
    codecs = tmp_path / "codecs.yaml"
    codecs.write_text(json.dumps({"codecs": [{"profile": "Soil*", "codec": "moisture"}]}))
    gateway = GatewayProcess(
        kafka,
        mqtt_url,
        tmp_path / "gateway.log",
        PYTHONPATH=str(tmp_path),
        PLANTWIRE_CHIRPSTACK_CODECS_FILE=str(codecs),
        PLANTWIRE_CHIRPSTACK_TOPIC_PREFIX="field/",
    )
    gateway.start()
    try:
        gateway.wait_ready(30)

        def uplink(dev_eui: str, data: bytes, f_port: int = 1, **info: object) -> None:
            about = info_with(devEui=dev_eui, **info)
            encoded = base64.b64encode(data).decode()
            payload = payload_of("up", deviceInfo=about, data=encoded, fPort=f_port, deduplicationId=None)
            publish(publisher, "field/" + topic_of("up", dev_eui), payload)

        soil, room = "b0" * 8, "b1" * 8
        uplink(soil, b"\x3c", 9, deviceProfileName="Soil sensor")
        uplink(soil, b"\x3c", 3, deviceProfileName="Soil sensor")
        uplink(room, bytes.fromhex("03670110"), tags={"plantwire_codec": "cayenne-lpp"})
        raw.read_until(lambda messages: bool(frames_of(messages, soil) and frames_of(messages, room)))
        (frame,) = frames_of(raw.messages, soil)
        assert values(frame).items() >= {"moisture": 30.0, "port": 3.0}.items()
        (frame,) = frames_of(raw.messages, room)
        assert values(frame)["temperature_3"] == 27.2
        assert gateway.counted("rejected_total", transport="chirpstack", reason="codec-failed") == 1
        assert "this port is not for reading" in (tmp_path / "gateway.log").read_text()
        dlq.read_until(lambda messages: any(b"Soil" in message.value() for message in messages))
    finally:
        gateway.stop()

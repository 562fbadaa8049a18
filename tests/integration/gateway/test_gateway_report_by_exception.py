"""Report by exception in a real gateway: what reaches Kafka, what the ledger says, which alarms it makes."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from plantwire.domain.detection import DeviceDetector
from plantwire.domain.rule_book import RuleBook
from plantwire.platform.rule_topic import publish_rules
from plantwire.schemas import topics
from plantwire.schemas.records import AlarmEvent, AlarmRule, Limit, TelemetryFrame
from plantwire.stack.servers.process import wait_until
from tests.conftest import running
from tests.integration.gateway.gateway_rig import GatewayProcess, Topic, frames_of, path

# Of devices that no other test has: the broker is everyone's.
HOT = AlarmRule("thinned-hot", 1, "thinned-*", "t", (Limit(0, above=90, deadband=2),), off_delay_ms=700)
REPORTING = 'reporting:\n  - {devices: "thinned-*", metric: "*", percent: 10}\n'


@pytest.fixture
def thinning(kafka: str, mqtt_url: str, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway that leaves out what says nothing new, and knows the rules."""
    admin = AdminClient({"bootstrap.servers": kafka})
    topic = NewTopic(topics.ALARMS_RULES, 1, 1, config={"cleanup.policy": "compact"})
    try:
        admin.create_topics([topic])[topics.ALARMS_RULES].result(30)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
    publish_rules(kafka, [HOT])
    file = tmp_path / "reporting.yaml"
    file.write_text(REPORTING)
    settings = {"PLANTWIRE_GATEWAY_REPORTING_FILE": str(file)}
    with running(GatewayProcess(kafka, mqtt_url, tmp_path / "gateway.log", **settings)) as process:
        wait_until(lambda: None if process.counted("edge_rules") else "no rules yet", 20, "rules")
        yield process


def alarms(frames: list[TelemetryFrame]) -> list[AlarmEvent]:
    """What detection makes of frames."""
    detector = DeviceDetector("thinned-1", RuleBook([HOT]).for_device("thinned-1"))
    return [
        event
        for frame in frames
        for event in detector.take_frame(
            msgspec.to_builtins(frame, builtin_types=(bytes,)),  # type: ignore[arg-type]
            frame.received_time_ms,
        )
    ]


def test_what_reaches_kafka_is_less_and_makes_the_same_alarms(thinning: GatewayProcess, raw: Topic) -> None:
    choice = random.Random(7)
    start_ms = int(time.time() * 1000) - 60_000
    sent: list[TelemetryFrame] = []
    bodies = []
    for number in range(300):
        hot = number // 20 % 5 == 2
        event_ms = start_ms + number * 150 - (400 if choice.random() < 0.1 else 0)
        values = {
            "t": choice.choice([89.0, 91.0, 95.0]) if hot else choice.choice([50.0, 51.0, 53.0]),
            "p": 3.0,
        }
        bodies.append({"timestamp": event_ms, "sequence": number, "metrics": values})
    with thinning.client() as client:
        for at in range(0, 300, 20):
            body = bodies[at : at + 20]
            assert client.post(path("thinned-1"), json=body).json() == {"accepted": 20}
        assert client.post(path("unthinned-1"), json=bodies).json() == {"accepted": 300}
    messages = raw.read_to_end()
    sent = [
        msgspec.structs.replace(frame, device_id="thinned-1") for frame in frames_of(messages, "unthinned-1")
    ]
    reached = frames_of(messages, "thinned-1")
    assert len(sent) == 300
    assert len(reached) < 200
    expected = alarms(sent)
    assert [e.kind for e in expected].count("RAISED") >= 3
    assert alarms(reached) == expected
    ledger = httpx.get(f"{thinning.url}/ledger").json()
    assert ledger["identity_holds"]
    assert ledger["sources"]["http"]["dropped"] == {"unchanged": 300 - len(reached)}
    assert thinning.counted("values_left_out_total") > 300


def test_a_wrong_file_stops_the_start(kafka: str, mqtt_url: str, tmp_path: Path) -> None:
    file = tmp_path / "reporting.yaml"
    file.write_text("reporting:\n  - {devices: a, metric: b, percent: -1}\n")
    settings = {"PLANTWIRE_GATEWAY_REPORTING_FILE": str(file)}
    gateway = GatewayProcess(kafka, mqtt_url, tmp_path / "gateway.log", **settings)
    ended = subprocess.run(
        gateway.command(),
        env={**gateway.environment(), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 1
    assert ended.stderr.strip() == f"{file}:2: 'percent' of the entry at line 2 is negative"

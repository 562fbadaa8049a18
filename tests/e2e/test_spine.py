"""From a device's request to an operator's client, over the whole stack; also while parts of it die."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import socketio

from plantwire.domain.detection import DeviceDetector
from plantwire.domain.rule_book import RuleBook
from plantwire.platform.rule_topic import read_rules
from plantwire.platform.topic_reader import read_to_end
from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC, FRAME_CODEC
from tests.e2e.conftest import Stack

DEADLINE_S = 60
EFFECT_S = 2.0
HOPS = ["device", "gatewayIn", "gatewayOut", "detectIn", "detectOut", "published", "emitted"]
RULES = """
rules:
  - id: {rule}
    devices: "{devices}"
    metric: temperature
    limits:
      critical: {{above: {above}, deadband: 2}}
    message: "{{device}} {{metric}} at {{value}}, limit {{limit}}"
"""


class Operator:
    """An unchanged Socket.IO client that keeps what it was told."""

    def __init__(self, url: str, token: str) -> None:
        self.events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.alarms: set[tuple[str, int]] = set()
        self._client = socketio.Client(reconnection_delay=0.2, reconnection_delay_max=1)
        for name in ("initial-state", "alarm", "alarm-updated", "alarm-cleared"):
            self._client.on(name, self._keep(name), namespace="/telemetry")
        self._url, self._token = url, token

    def __enter__(self) -> Operator:
        self._client.connect(
            self._url, namespaces=["/telemetry"], auth={"token": self._token}, transports=["websocket"]
        )
        self.next("initial-state")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()

    def next(self, name: str) -> Any:
        """The next event of that name."""
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            found, body = self.events.get(timeout=max(0.1, deadline_s - time.monotonic()))
            if found == name:
                return body

    def _keep(self, name: str) -> Callable[[Any], None]:
        def keep(body: Any) -> None:
            alarms = body["alarms"] if name == "initial-state" else [body]
            self.alarms |= {(alarm["alarmId"], alarm["revision"]) for alarm in alarms}
            self.events.put((name, body))

        return keep


class Plant:
    """A device side that repeats a frame until the gateway has acknowledged it."""

    def __init__(self, stack: Stack) -> None:
        self._http = httpx.Client(
            base_url=stack.address("gateway"),
            headers={"Authorization": f"Bearer {stack.token('plant', role='device')}"},
            timeout=10,
        )
        self.acknowledged: list[tuple[str, int]] = []

    def send(self, device: str, temperature: float, timestamp_ms: int | None = None) -> int:
        """Send a frame; returns its event time once it is acknowledged."""
        timestamp_ms = timestamp_ms or time.time_ns() // 1_000_000
        body = {"timestamp": timestamp_ms, "metrics": {"temperature": temperature}}
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                answer = self._http.post(f"/api/v1/devices/{device}/telemetry", json=body)
                if answer.status_code == 202:
                    self.acknowledged.append((device, timestamp_ms))
                    return timestamp_ms
                assert answer.status_code == 503, answer.text
            except httpx.TransportError:
                pass  # the gateway is away
            assert time.monotonic() < deadline_s, "the gateway did not come back"
            time.sleep(0.1)

    def close(self) -> None:
        self._http.close()


@pytest.fixture(scope="module")
def plant(stack: Stack) -> Iterator[Plant]:
    plant = Plant(stack)
    yield plant
    plant.close()


@contextmanager
def operator(stack: Stack, devices: str = "*") -> Iterator[Operator]:
    with Operator(stack.address("dashboard"), stack.token("operator", devices)) as client:
        yield client


def apply_rule(stack: Stack, folder: Path, rule: str, devices: str, above: float) -> Any:
    path = folder / f"{rule}.yaml"
    path.write_text(RULES.format(rule=rule, devices=devices, above=above))
    return stack.command("rules", "apply", str(path), timeout_s=60)


def test_a_critical_alarm_reaches_the_operator_with_its_hops(
    stack: Stack, plant: Plant, tmp_path: Path
) -> None:
    assert apply_rule(stack, tmp_path, "spine-hot", "spine-*", 100).returncode == 0
    with operator(stack, "spine-1") as client:
        plant.send("spine-1", 50)
        plant.send("spine-2", 101)
        sent_ms = plant.send("spine-1", 101.5)
        alarm = client.next("alarm")
        assert (alarm["deviceId"], alarm["severity"], alarm["kind"]) == ("spine-1", "CRITICAL", "RAISED")
        assert (alarm["value"], alarm["limit"], alarm["timestamp"]) == (101.5, 100, sent_ms)
        assert alarm["message"] == "spine-1 temperature at 101.5, limit 100"
        hops = [alarm["hops"][name] for name in HOPS]
        assert hops == sorted(hops)
        http = httpx.Client(
            base_url=stack.address("dashboard"),
            headers={"Authorization": f"Bearer {stack.token('operator', 'spine-1')}"},
        )
        with http:
            alarms = http.get("/api/alarms").json()["alarms"]
            assert [(a["alarmId"], a["deviceId"]) for a in alarms] == [(alarm["alarmId"], "spine-1")]
            (latest,) = http.get("/api/devices/telemetry/latest").json()
            assert latest["deviceId"] == "spine-1"
        plant.send("spine-1", 50)
        cleared = client.next("alarm-cleared")
        assert (cleared["alarmId"], cleared["revision"]) == (alarm["alarmId"], 2)


def test_a_rule_is_in_force_within_two_seconds_and_a_bad_file_changes_nothing(
    stack: Stack, plant: Plant, tmp_path: Path
) -> None:
    with operator(stack) as client:
        applied = apply_rule(stack, tmp_path, "swap", "swap-*", 10)
        applied_s = time.monotonic()
        assert applied.returncode == 0, applied.stderr
        number = 0
        while not any(device.startswith("swap-") for device in _devices(client)):
            assert time.monotonic() < applied_s + EFFECT_S, "the rule was not in force within 2 s"
            number += 1
            plant.send(f"swap-{number}", 11)
            time.sleep(0.05)
        bad = tmp_path / "bad.yaml"
        bad.write_text(RULES.format(rule="swap", devices="swap-*", above="very hot"))
        refused = stack.command("rules", "apply", str(bad), timeout_s=60)
        assert refused.returncode == 1
        assert "bad.yaml:7: " in refused.stdout + refused.stderr
        assert read_rules(stack.address("kafka"), 10)["swap"].version == 1
        plant.send("swap-after", 11)
        while client.next("alarm")["deviceId"] != "swap-after":
            pass


def test_nothing_is_lost_when_parts_are_killed(stack: Stack, plant: Plant, tmp_path: Path) -> None:
    assert apply_rule(stack, tmp_path, "killed", "kill-*", 100).returncode == 0
    rules = read_rules(stack.address("kafka"), 10)
    devices = [f"kill-{n}" for n in range(10)]
    rounds = 60
    victims = {15: _detecting_task_manager(stack), 30: "gateway", 45: "distribution"}
    plant.acknowledged.clear()
    with operator(stack) as client:
        for number in range(rounds):
            if (victim := victims.get(number)) is not None:
                os.kill(stack.part(victim)["pid"], signal.SIGKILL)
            for index, device in enumerate(devices):
                plant.send(device, 101 if (number + index) % 4 == 0 else 50)
        for device in devices:
            plant.send(device, 50)
        assert stack.status(wait_s=DEADLINE_S)["healthy"]

        kafka = stack.address("kafka")
        frames: dict[str, list[Any]] = {device: [] for device in devices}
        for record in read_to_end(kafka, topics.TELEMETRY_RAW, DEADLINE_S):
            key = (record.key or b"").decode()
            if key in frames:
                frames[key].append(FRAME_CODEC.decode_fields(record.body or b"", record.fingerprint))
        held = {(device, frame["event_time_ms"]) for device in devices for frame in frames[device]}
        assert set(plant.acknowledged) <= held

        book = RuleBook(rules.values())
        expected = {
            (event.alarm_id, event.revision, event.kind)
            for device in devices
            for event in _judge(DeviceDetector(device, book.for_device(device)), frames[device])
        }
        assert len(expected) > rounds
        deadline_s = time.monotonic() + DEADLINE_S
        while (fired := _fired(kafka, set(devices))) != expected:
            # Equal sets: every alarm is there, and whatever is there twice carries the same id.
            assert time.monotonic() < deadline_s, (expected - fired, fired - expected)
            time.sleep(0.5)
        plant.send("kill-0", 101)
        plant.send("kill-0", 50)
        while client.next("alarm-cleared")["deviceId"] != "kill-0":
            pass


def _devices(client: Operator) -> set[str]:
    devices = set()
    while not client.events.empty():
        name, body = client.events.get()
        if name == "alarm":
            devices.add(body["deviceId"])
    return devices


def _judge(detector: DeviceDetector, frames: list[Any]) -> Iterator[Any]:
    for frame in frames:
        # What a gateway had to keep for longer than an attempt lasts comes as history, which raises nothing.
        if not frame["historical"]:
            yield from detector.take_frame(frame, frame["received_time_ms"])


def _fired(kafka: str, devices: set[str]) -> set[tuple[str, int, str]]:
    events = (
        ALARM_CODEC.decode(record.body or b"", record.fingerprint)
        for record in read_to_end(kafka, topics.ALARMS_FIRE, DEADLINE_S)
        if (record.key or b"").decode() in devices
    )
    return {(event.alarm_id, event.revision, event.kind) for event in events if event.rule_id == "killed"}


def _detecting_task_manager(stack: Stack) -> str:
    flink = stack.address("flink")
    jobs = httpx.get(f"{flink}/jobs/overview").json()["jobs"]
    (job,) = [j["jid"] for j in jobs if j["name"] == "alarm-detection" and j["state"] == "RUNNING"]
    vertices = httpx.get(f"{flink}/jobs/{job}").json()["vertices"]
    (subtask,) = httpx.get(f"{flink}/jobs/{job}/vertices/{vertices[0]['id']}").json()["subtasks"]
    return str(subtask["taskmanager-id"])

"""Kafka away for a while, for long, and for ever: nothing acknowledged is lost, and the ledger agrees."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Message
from paho.mqtt.client import Client

from plantwire.gateway.settings import GatewaySettings
from plantwire.schemas import topics
from plantwire.schemas.records import TelemetryFrame
from plantwire.stack.ledger_cli import read_ledger
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka
from plantwire.stack.servers.process import wait_until
from tests.conftest import running
from tests.integration.gateway.gateway_rig import (
    GatewayProcess,
    Topic,
    create_topics,
    frame_of,
    mqtt_publisher,
    path,
)

INTERVAL_S = 0.04


class Device:
    """Sends numbered frames, one at a time, and keeps each until it is acknowledged."""

    def __init__(self, device_id: str, send: Callable[[str, bytes], bool]) -> None:
        self.device_id = device_id
        self.acknowledged: list[int] = []
        self.waited_s: list[tuple[float, float]] = []
        """When each was acknowledged, and after how long."""
        self._send = send
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Sends the frame in hand to its end first."""
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stop.is_set():
            number = len(self.acknowledged)
            body = json.dumps({"sequence": number, "metrics": {"t": number}}).encode()
            began_s = time.monotonic()
            while not self._send(self.device_id, body):
                self._stop.wait(INTERVAL_S)  # not a frame is skipped: the device stops when it got through
            ended_s = time.monotonic()
            self.waited_s.append((ended_s, ended_s - began_s))
            self.acknowledged.append(number)
            self._stop.wait(INTERVAL_S)


class Plant:
    """Devices on both transports."""

    def __init__(self, gateway: GatewayProcess, mqtt_url: str, name: str) -> None:
        self._gateway = gateway
        self._client = gateway.client()
        self._mqtt = mqtt_publisher(mqtt_url, f"plant-{name}")
        self.http = [Device(f"{name}-http-{n}", self._post) for n in range(3)]
        self.mqtt = [Device(f"{name}-mqtt-{n}", self._publish) for n in range(2)]

    @property
    def devices(self) -> list[Device]:
        return self.http + self.mqtt

    def acknowledged(self) -> int:
        return sum(len(device.acknowledged) for device in self.devices)

    def wait_for(self, acknowledged: int, timeout_s: float = 40) -> None:
        """Until every device got so many more frames through."""
        goals = {device.device_id: len(device.acknowledged) + acknowledged for device in self.devices}

        def behind() -> str | None:
            late = [d.device_id for d in self.devices if len(d.acknowledged) < goals[d.device_id]]
            return f"{', '.join(late)} behind" if late else None

        wait_until(behind, timeout_s, "plant")

    def stop(self) -> None:
        for device in self.devices:
            device.stop()
        self._client.close()
        self._mqtt.disconnect()
        self._mqtt.loop_stop()

    def _post(self, device_id: str, body: bytes) -> bool:
        try:
            return self._client.post(path(device_id), content=body).status_code == 202
        except httpx.TransportError:
            return False

    def _publish(self, device_id: str, body: bytes) -> bool:
        client: Client = self._mqtt
        published = client.publish(f"devices/{device_id}/telemetry", body, 1)
        published.wait_for_publish(30)  # returns at its time-out too
        return published.is_published()


class Site:
    """A Kafka that may be stopped, and a gateway that feeds it."""

    def __init__(self, kafka: Kafka, folder: Path, mqtt_url: str, **settings: str) -> None:
        self.kafka = kafka
        self.gateway = GatewayProcess(kafka.bootstrap, mqtt_url, folder / "gateway.log", **settings)
        self.gateway.start()
        self.gateway.wait_ready(30)

    def signal_kafka(self, number: int) -> None:
        assert self.kafka.pid is not None
        os.kill(self.kafka.pid, number)

    def kill_gateway(self) -> None:
        assert self.gateway.end(signal.SIGKILL) == -signal.SIGKILL
        self.gateway.start()
        self.gateway.wait_ready(30)

    def ledger(self) -> dict[str, object]:
        report: dict[str, object] = httpx.get(f"{self.gateway.url}/ledger").json()
        assert report["identity_holds"], report
        return report

    def total(self) -> dict[str, int]:
        total = self.ledger()["total"]
        assert isinstance(total, dict)
        return total

    def mode(self) -> str:
        return str(self.ledger()["mode"])

    def wait_drained(self, timeout_s: float = 40) -> None:
        def rest() -> str | None:
            report = self.ledger()
            total = self.total()
            left = total["buffered"] + total["in_hand"]
            return f"{left} left, {report['mode']}" if left or report["mode"] != "direct" else None

        wait_until(rest, timeout_s, "drain")

    def frames(self, plant: Plant) -> dict[str, list[TelemetryFrame]]:
        """Everything that the topic has of the plant, by device, in the order of its partition."""
        topic = Topic(self.kafka.bootstrap, topics.TELEMETRY_RAW)
        by_device: dict[str, list[TelemetryFrame]] = {}
        try:
            messages: list[Message] = topic.read_to_end()
        finally:
            topic.close()
        devices = {device.device_id for device in plant.devices}
        for frame in map(frame_of, messages):
            if frame.device_id in devices:
                by_device.setdefault(frame.device_id, []).append(frame)
        return by_device


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    folder = tmp_path_factory.mktemp("outage")
    kafka = Kafka(folder / "kafka", *free_ports(2), folder / "kafka.log")
    with running(kafka):
        create_topics(kafka.bootstrap)
        yield kafka


@contextmanager
def site(kafka: Kafka, folder: Path, mqtt_url: str, **settings: str) -> Iterator[Site]:
    made = Site(kafka, folder, mqtt_url, **settings)
    try:
        yield made
        # Neither a frozen nor a killed broker makes the producer fail for good.
        assert "kafka_producer_replaced" not in made.gateway.log_file.read_text()
    finally:
        made.gateway.stop()
        kafka.start()  # where a test failed in between
        made.signal_kafka(signal.SIGCONT)


def check_nothing_lost_and_in_order(plant: Plant, frames: dict[str, list[TelemetryFrame]]) -> None:
    for device in plant.devices:
        arrived = frames[device.device_id]
        missing = set(device.acknowledged) - {frame.sequence for frame in arrived}
        assert not missing, (device.device_id, sorted(missing)[:10])
        for historical in (False, True):
            # Some arrive twice; of each the first counts.
            first = list(dict.fromkeys(f.sequence for f in arrived if f.historical is historical))
            assert first == sorted(first, key=lambda n: n or 0), (device.device_id, historical)


def test_a_short_silence_of_kafka_costs_nothing(broker: Kafka, mqtt_url: str, tmp_path: Path) -> None:
    with site(broker, tmp_path, mqtt_url) as here:
        plant = Plant(here.gateway, mqtt_url, "short")
        plant.wait_for(10)
        here.signal_kafka(signal.SIGSTOP)
        wait_until(lambda: None if here.mode() == "buffering" else "direct", 5, "gateway")
        assert "buffering since" in httpx.get(f"{here.gateway.url}/readyz").json()["checks"]["kafka"]
        plant.wait_for(10)  # the buffer takes them meanwhile
        here.signal_kafka(signal.SIGCONT)
        here.wait_drained()
        plant.wait_for(10)
        plant.stop()
        here.wait_drained()
        frames = here.frames(plant)
        check_nothing_lost_and_in_order(plant, frames)
        everything = [frame for of_device in frames.values() for frame in of_device]
        assert not any(frame.historical for frame in everything)
        total = here.total()
        assert (total["received"], total["delivered_drained"], total["dropped"]) == (len(everything), 0, {})
        assert total["received"] == total["delivered_live"] == plant.acknowledged()


def test_batches_that_time_out_under_way_arrive_as_history_and_the_producer_lives(
    broker: Kafka, mqtt_url: str, tmp_path: Path
) -> None:
    timeouts = {"PLANTWIRE_GATEWAY_ACK_TIMEOUT_MS": "500", "PLANTWIRE_GATEWAY_SPILL_AFTER_MS": "200"}
    with site(broker, tmp_path, mqtt_url, **timeouts) as here:
        plant = Plant(here.gateway, mqtt_url, "frozen")
        for _ in range(2):
            plant.wait_for(10)
            here.signal_kafka(signal.SIGSTOP)
            plant.wait_for(40)  # several time-outs long; what is under way then is in the broker's socket
            here.signal_kafka(signal.SIGCONT)
            here.wait_drained()
        plant.stop()
        here.wait_drained()
        frames = here.frames(plant)
        check_nothing_lost_and_in_order(plant, frames)
        everything = [frame for of_device in frames.values() for frame in of_device]
        assert any(frame.historical for frame in everything)
        total = here.total()
        assert total["dropped"] == {}
        assert plant.acknowledged() == total["received"] <= len(everything)


def test_a_long_outage_with_two_kills_loses_nothing_and_live_frames_do_not_wait_for_the_backlog(
    broker: Kafka, mqtt_url: str, tmp_path: Path
) -> None:
    with site(broker, tmp_path, mqtt_url, PLANTWIRE_GATEWAY_DRAIN_FRAMES_PER_S="200") as here:
        plant = Plant(here.gateway, mqtt_url, "long")
        plant.wait_for(20)
        here.signal_kafka(signal.SIGKILL)
        here.kafka.stop()
        plant.wait_for(40)
        # More than a second after the last frame that Kafka took: the saved counts are complete.
        for _ in range(2):
            here.kill_gateway()
            plant.wait_for(40)
        before = here.total()
        assert before["buffered"] > 300
        here.kafka.start()
        here.kafka.wait_ready(60)
        wait_until(lambda: None if here.mode() == "direct" else "buffering", 20, "gateway")
        draining_from_s = time.monotonic()
        plant.wait_for(20)
        draining_to_s = time.monotonic()
        assert here.total()["buffered"] > 0, "too fast to tell"
        here.wait_drained()
        plant.stop()
        here.wait_drained()
        frames = here.frames(plant)
        check_nothing_lost_and_in_order(plant, frames)
        total = here.total()
        records = sum(len(of_device) for of_device in frames.values())
        distinct = sum(len({frame.sequence for frame in of_device}) for of_device in frames.values())
        assert total["dropped"] == {}
        assert plant.acknowledged() <= distinct <= total["received"] <= records
        assert total["delivered_drained"] > 300
        meanwhile = [
            waited_s
            for device in plant.http
            for at_s, waited_s in device.waited_s
            if draining_from_s < at_s < draining_to_s
        ]
        assert sorted(meanwhile)[len(meanwhile) // 2] < 0.1
        live = [f for of_device in frames.values() for f in of_device if not f.historical]
        assert any(f.event_time_ms > 0 and f.protocol == "mqtt-json" for f in live)


def test_a_stop_while_kafka_is_away_keeps_everything_for_the_next_start(
    broker: Kafka, mqtt_url: str, tmp_path: Path
) -> None:
    with site(broker, tmp_path, mqtt_url, PLANTWIRE_GATEWAY_DRAIN_TIMEOUT_S="1") as here:
        plant = Plant(here.gateway, mqtt_url, "stop")
        plant.wait_for(5)
        here.signal_kafka(signal.SIGSTOP)
        plant.wait_for(20)
        plant.stop()
        assert here.gateway.end(signal.SIGTERM) == 0
        assert '"records_left": 0' in here.gateway.log_file.read_text()
        here.signal_kafka(signal.SIGCONT)
        here.gateway.start()
        here.gateway.wait_ready(30)
        here.wait_drained()
        check_nothing_lost_and_in_order(plant, here.frames(plant))
        total = here.total()
        assert total["dropped"] == {}
        assert total["received"] == plant.acknowledged()


def test_a_gateway_that_never_saw_kafka_is_ready_and_takes_frames(mqtt_url: str, tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    quick = {"PLANTWIRE_GATEWAY_DRAIN_TIMEOUT_S": "0.5"}
    gateway = GatewayProcess(f"127.0.0.1:{nobody}", mqtt_url, tmp_path / "gateway.log", **quick)
    gateway.start()
    try:
        gateway.wait_ready(30)
        with gateway.client() as client:
            assert client.post(path("alone"), json={"metrics": {"t": 1}}).status_code == 202
            report = client.get("/ledger").json()
            assert (report["mode"], report["total"]["buffered"]) == ("buffering", 1)
            assert report["buffer"]["oldest_age_s"] < 60
        assert gateway.port is not None
        shown = read_ledger(GatewaySettings(gateway_port=gateway.port))
        assert (shown.mode, shown.total.buffered) == ("buffering", 1)
        # One buffer is one gateway's: a second says so, and touches nothing.
        folder = gateway.environment()["PLANTWIRE_GATEWAY_BUFFER_FOLDER"]
        second = GatewayProcess(
            f"127.0.0.1:{nobody}", mqtt_url, tmp_path / "second.log", PLANTWIRE_GATEWAY_BUFFER_FOLDER=folder
        )
        second.start()
        wait_until(lambda: None if second.ended() else "still running", 20, "second gateway")
        assert second.exit_code == 1
        last = second.log_file.read_text().strip().splitlines()[-1]
        assert last.startswith(f"The edge buffer in {folder} cannot be used: ")
    finally:
        gateway.stop()


@pytest.fixture
def full_disk() -> Iterator[Path]:
    """A file system that is too small for a database; not below pytest's folder, deleted while tests run."""
    folder = Path(tempfile.mkdtemp(prefix="plantwire-full-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    try:
        if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("mounting a tmpfs is not allowed here")
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)
        folder.rmdir()


def test_a_disk_that_is_full_at_the_start_leaves_kafka_alone(
    broker: Kafka, mqtt_url: str, tmp_path: Path, full_disk: Path
) -> None:
    with site(broker, tmp_path, mqtt_url, PLANTWIRE_GATEWAY_BUFFER_FOLDER=str(full_disk)) as here:
        note = httpx.get(f"{here.gateway.url}/readyz").json()["checks"]["kafka"]
        assert note.startswith("without the edge buffer: ")
        plant = Plant(here.gateway, mqtt_url, "full")
        plant.wait_for(10)
        plant.stop()
        check_nothing_lost_and_in_order(plant, here.frames(plant))
        assert here.total()["delivered_live"] == plant.acknowledged()
        assert here.gateway.end(signal.SIGTERM) == 0
        subprocess.run(["mount", "-o", "remount,size=32m", str(full_disk)], check=True)
        here.gateway.start()
        here.gateway.wait_ready(30)
        assert httpx.get(f"{here.gateway.url}/readyz").json()["checks"]["kafka"] == "ok"


def test_a_kill_with_a_full_buffer_forgets_no_frame_that_it_evicted(mqtt_url: str, tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    small = {"PLANTWIRE_GATEWAY_BUFFER_MAX_BYTES": "1048576", "PLANTWIRE_GATEWAY_DRAIN_TIMEOUT_S": "0.5"}
    gateway = GatewayProcess(f"127.0.0.1:{nobody}", mqtt_url, tmp_path / "gateway.log", **small)
    gateway.start()
    try:
        gateway.wait_ready(30)
        acknowledged = 0
        with gateway.client() as client:

            def post(requests: int) -> None:
                nonlocal acknowledged
                for _ in range(requests):
                    frames = [{"metrics": {"note": "x" * 3000}} for _ in range(10)]
                    assert client.post(path("full"), json=frames).status_code == 202
                    acknowledged += len(frames)

            post(10)
            saved = client.get("/ledger").json()["total"]["received"]
            assert saved == acknowledged
            # Until some are evicted that no save of each second can know of.
            while not client.get("/ledger").json()["total"]["dropped"].get("evicted-full"):
                post(5)
            post(20)
        assert gateway.end(signal.SIGKILL) == -signal.SIGKILL
        gateway.start()
        gateway.wait_ready(30)
        report = httpx.get(f"{gateway.url}/ledger").json()
        assert report["identity_holds"]
        assert report["total"]["received"] == acknowledged
        assert report["total"]["dropped"].keys() == {"evicted-full"}
    finally:
        gateway.stop()

"""The gateway as a real process, and what it wrote to Kafka, for the integration tests."""

from __future__ import annotations

import secrets
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from plantwire.platform.tokens import Role, TokenAuthority
from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import TelemetryFrame
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.process import ServerProcess

SECRET = secrets.token_hex(32)
AUTHORITY = TokenAuthority(SECRET, "plantwire", "plantwire")
GOOD = b'{"metrics": {"t": 1}}'


def token(role: Role = Role.DEVICE, devices: Sequence[str] = ("*",), lifetime_s: int = 3600) -> str:
    return AUTHORITY.issue("test", role, devices, int(time.time()), lifetime_s)


class GatewayProcess(ServerProcess):
    """`python -m plantwire.gateway` on a free port."""

    def __init__(self, kafka: str, mqtt: str, log_file: Path, **settings: str) -> None:
        (port,) = free_ports(1)
        super().__init__("gateway", port, log_file)
        self.url = f"http://127.0.0.1:{port}"
        self._environment = {
            "PLANTWIRE_KAFKA": kafka,
            "PLANTWIRE_MQTT": mqtt,
            "PLANTWIRE_GATEWAY_PORT": str(port),
            "PLANTWIRE_TOKEN_SECRET": SECRET,
            "PLANTWIRE_MQTT_CLIENT_ID": f"gateway-{port}",
            "PLANTWIRE_SPARKPLUG_HOST_ID": f"host-{port}",
            "PLANTWIRE_GATEWAY_MQTT_BACKOFF_MAX_S": "1",
            "PLANTWIRE_GATEWAY_BUFFER_FOLDER": str(log_file.parent / f"buffer-{port}"),
            **settings,
        }

    def command(self) -> Sequence[str]:
        return [sys.executable, "-W", "error", "-m", "plantwire.gateway"]

    def environment(self) -> Mapping[str, str]:
        return self._environment

    def probe(self) -> str | None:
        """Ready."""
        return self._ask("/readyz")

    def probe_alive(self) -> str | None:
        """Answering, ready or not."""
        return self._ask("/healthz")

    def _ask(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(self.url + path, timeout=2):  # noqa: S310 - our own URL
                return None
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()
        except OSError as error:
            return str(error)

    def end(self, number: int, timeout_s: float = 20) -> int:
        """Send a signal, wait for the end; the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout_s)

    def client(self, bearer: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {bearer or token()}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20)

    def counted(self, name: str, **labels: str) -> float:
        """The value of a counter of `/metrics`; 0 where it has none yet."""
        wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        prefix = f"plantwire_gateway_{name}{{{wanted}}} " if wanted else f"plantwire_gateway_{name} "
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith(prefix):
                return float(line.removeprefix(prefix))
        return 0.0


def path(device_id: str) -> str:
    return f"/api/v1/devices/{device_id}/telemetry"


def create_topics(bootstrap: str) -> None:
    """The gateway's topics; harmless where they exist."""
    wanted = [NewTopic(t.name, t.partitions, 1) for t in topics.TOPICS if t.name.startswith("device.")]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics(wanted).values():
        try:
            future.result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


class Topic:
    """Reads a topic from its beginning, once, in the background of nothing: each call reads on."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"test-{secrets.token_hex(4)}",
                "enable.auto.commit": False,
            }
        )
        partitions = self._consumer.list_topics(name, timeout=10).topics[name].partitions
        self._consumer.assign([TopicPartition(name, p, 0) for p in partitions])
        self.messages: list[Message] = []

    def read_until(self, done: Callable[[list[Message]], bool], timeout_s: float = 20) -> list[Message]:
        """All messages so far, once `done` with them; fails at the time-out."""
        deadline = time.monotonic() + timeout_s
        while not done(self.messages):
            assert time.monotonic() < deadline, f"{len(self.messages)} messages, and not what was waited for"
            self.messages += self._consumer.consume(1000, 0.2)
        return self.messages

    def read_to_end(self) -> list[Message]:
        """All messages that the topic holds now."""
        ends = {
            p.partition: self._consumer.get_watermark_offsets(p, timeout=10)[1]
            for p in self._consumer.assignment()
        }
        return self.read_until(
            lambda messages: all(
                end == 0 or max((m.offset() for m in messages if m.partition() == p), default=-1) >= end - 1
                for p, end in ends.items()
            )
        )

    def close(self) -> None:
        self._consumer.close()


def frame_of(message: Message) -> TelemetryFrame:
    headers = dict(message.headers() or [])
    return FRAME_CODEC.decode(message.value(), headers[topics.HEADER_FINGERPRINT].decode())


def frames_of(messages: Sequence[Message], device_id: str) -> list[TelemetryFrame]:
    return [frame_of(m) for m in messages if m.key() == device_id.encode()]


class Load:
    """Threads that post numbered frames until stopped; remembers which ones were acknowledged."""

    def __init__(self, gateway: GatewayProcess, device_id: str, threads: int = 4) -> None:
        self._gateway = gateway
        self._device_id = device_id
        self._numbers = count()
        self._stop = threading.Event()
        self.acknowledged: set[int] = set()
        self.statuses: dict[object, int] = {}
        self._pool = ThreadPoolExecutor(threads)
        self._runs = [self._pool.submit(self._post) for _ in range(threads)]

    def _post(self) -> None:
        with self._gateway.client() as client:
            while not self._stop.is_set():
                number = next(self._numbers)
                outcome: Any
                try:
                    body = {"sequence": number, "metrics": {"t": number}}
                    outcome = client.post(path(self._device_id), json=body).status_code
                except httpx.TransportError as error:
                    outcome = type(error).__name__
                    self._stop.wait(0.05)  # the gateway is away: no busy loop
                if outcome == 202:
                    self.acknowledged.add(number)
                elif outcome == 503:
                    self._stop.wait(0.05)
                self.statuses[outcome] = self.statuses.get(outcome, 0) + 1

    def wait_for(self, acknowledged: int, timeout_s: float = 60) -> None:
        """Until that many more frames are acknowledged."""
        goal, deadline = len(self.acknowledged) + acknowledged, time.monotonic() + timeout_s
        while len(self.acknowledged) < goal:
            assert time.monotonic() < deadline, self.statuses
            self._stop.wait(0.01)

    def stop(self) -> None:
        self._stop.set()
        for run in self._runs:
            run.result(60)
        self._pool.shutdown()


def mqtt_publisher(url: str, client_id: str) -> paho.Client:
    """A connected publisher with its network thread running."""
    host, port = url.removeprefix("mqtt://").split(":")
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id)
    client.connect(host, int(port))
    client.loop_start()
    return client


def publish(client: paho.Client, topic: str, payload: bytes, qos: int = 1) -> None:
    """Publish and wait for the broker's acknowledgement."""
    client.publish(topic, payload, qos).wait_for_publish(10)

"""One run of `bench.gateway`: a subject (the gateway or the bare loop), a protocol, a load.

In: addresses of Kafka and MQTT. Out: a `Run`.
Guarantees: a fresh process for every run; records of other runs are told apart by their key and not
counted; a subject's persistent MQTT session is dropped afterwards: the broker queues nothing for it.
Not here: which runs there are (`bench.gateway`).
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import psutil
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from bench import gateway_payloads
from bench.bench_process import bench_process
from bench.gateway_payloads import METRICS
from bench.gateway_sender import Finished, Order
from bench.http_process import GATEWAY_MODULE, HttpProcess
from bench.spread import Distribution, distribution
from plantwire.platform.tokens import Role, TokenAuthority
from plantwire.schemas import topics

GATEWAY: Final = "gateway"
FLOOR: Final = "bare loop"
SUBJECTS: Final = (GATEWAY, FLOOR)
MQTT_CLIENT_ID: Final = "bench-gateway"
WINDOW: Final = 400
DEVICES: Final = 32
CREDIT_INTERVAL_S: Final = 0.01
READY_TIMEOUT_S: Final = 30.0
SECRET: Final = secrets.token_hex(32)


class Run(msgspec.Struct, frozen=True):
    """What one run showed."""

    subject: str
    protocol: str
    rate_per_s: float | None
    sent: int
    seen: int
    refused: int
    late_ms_max: float
    frames_per_s: float
    frames_per_cpu_s: float
    """Per CPU second of the subject's process, all its threads, user and system."""
    path_ms: Distribution | None
    """From the intended time to the record's arrival at a consumer."""
    normalisation_ms: Distribution | None
    """The gateway's own hop stamps: bytes in hand to handed to Kafka."""
    rss_mib: float


class Subject(HttpProcess):
    """The gateway or the bare loop as a process."""

    def __init__(self, name: str, kafka: str, mqtt: str, folder: Path) -> None:
        module = GATEWAY_MODULE if name == GATEWAY else "bench.gateway_floor"
        super().__init__(name, module, folder / f"{name.replace(' ', '-')}.log")
        self.settings = {
            GATEWAY: {
                "PLANTWIRE_KAFKA": kafka,
                "PLANTWIRE_MQTT": mqtt,
                "PLANTWIRE_GATEWAY_PORT": str(self.port),
                "PLANTWIRE_TOKEN_SECRET": SECRET,
                "PLANTWIRE_MQTT_CLIENT_ID": MQTT_CLIENT_ID,
                "PLANTWIRE_GATEWAY_RATE_LIMIT_FRAMES_PER_S": "0",
                "PLANTWIRE_HOME": str(folder / f"home-{secrets.token_hex(4)}"),
            },
            FLOOR: {
                "BENCH_KAFKA": kafka,
                "BENCH_MQTT": mqtt,
                "BENCH_PORT": str(self.port),
                "BENCH_TOPIC": topics.TELEMETRY_RAW,
            },
        }[name]

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)


class Records:
    """Counts the records of one run as they come, in a thread; keeps their times where wanted."""

    def __init__(
        self, kafka: str, run_name: str, read: Callable[[Message], tuple[float | None, float | None]]
    ):
        self._name = run_name.encode()
        self._read = read
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka,
                "group.id": f"bench-{run_name}",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 10,
            }
        )
        found = self._consumer.list_topics(topics.TELEMETRY_RAW, timeout=10).topics[topics.TELEMETRY_RAW]
        ends = [self._end_of(partition) for partition in found.partitions]
        self._consumer.assign(ends)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.seen = 0
        self.path_ms: list[float] = []
        self.normalisation_ms: list[float] = []
        self._thread.start()

    def _end_of(self, partition: int) -> TopicPartition:
        """Its end; a topic that was made just now may have no leader yet."""
        place = TopicPartition(topics.TELEMETRY_RAW, partition)
        give_up_s = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                _, end = self._consumer.get_watermark_offsets(place, timeout=10)
            except KafkaException:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(0.1)
            else:
                return TopicPartition(topics.TELEMETRY_RAW, partition, end)

    def _follow(self) -> None:
        while not self._stopped.is_set():
            for message in self._consumer.consume(500, 0.02):
                key = message.key()
                if message.error() is not None or key is None or self._name not in bytes(key):
                    continue
                now_us = time.time_ns() / 1000
                sent_us, normalisation_ms = self._read(message)
                if sent_us is None:
                    continue
                self.seen += 1
                self.path_ms.append((now_us - sent_us) / 1000)
                if normalisation_ms is not None:
                    self.normalisation_ms.append(normalisation_ms)

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._consumer.close()


async def measure(
    subject: str,
    protocol: str,
    kafka: str,
    mqtt: str,
    folder: Path,
    duration_s: float,
    rate_per_s: float | None,
) -> Run:
    """Start the subject, send, count; `rate_per_s` None means as fast as records come out."""
    # Eight hex digits: also the first half of a LoRaWAN device's EUI.
    name = f"{secrets.randbelow(2**32):08x}"
    order = Order(
        protocol=protocol,
        name=name,
        gateway="",
        mqtt=mqtt,
        token=TokenAuthority(SECRET, "plantwire", "plantwire").issue(
            "bench", Role.DEVICE, ["*"], int(time.time()), 3600
        ),
        devices=DEVICES,
        duration_s=duration_s,
        rate_per_s=rate_per_s,
        window=WINDOW,
    )
    server = Subject(subject, kafka, mqtt, folder)
    records = Records(kafka, name, _reader(subject, protocol))
    try:
        server.start()
        server.wait_ready(READY_TIMEOUT_S)
        order = msgspec.structs.replace(order, gateway=server.url)
        async with bench_process("bench.gateway_sender", order) as sender:
            await sender.hear("started", 30)
            finished = asyncio.create_task(sender.hear("finished", duration_s + 60))
            begin, begin_s, begin_seen = server.process.cpu_times(), time.monotonic(), records.seen
            while not finished.done():
                await asyncio.sleep(CREDIT_INTERVAL_S)
                sender.say(b"%d" % records.seen)
                if time.monotonic() - begin_s < duration_s:
                    end, end_s, end_seen = server.process.cpu_times(), time.monotonic(), records.seen
            result = msgspec.convert((await finished)["result"], Finished)
        rss_mib = server.process.memory_info().rss / 2**20
    finally:
        server.stop()
        records.close()
        _drop_session(mqtt)
    frames, cpu_s = end_seen - begin_seen, (end.user + end.system) - (begin.user + begin.system)
    return Run(
        subject=subject,
        protocol=protocol,
        rate_per_s=rate_per_s,
        sent=result.sent,
        seen=records.seen,
        refused=result.refused,
        late_ms_max=result.late_ms_max,
        frames_per_s=round(frames / (end_s - begin_s), 1),
        frames_per_cpu_s=round(frames / cpu_s, 1),
        path_ms=distribution(records.path_ms),
        normalisation_ms=distribution(records.normalisation_ms),
        rss_mib=round(rss_mib, 1),
    )


def samples_per_frame(protocol: str) -> int:
    """Metrics in each frame."""
    return METRICS[protocol]


def _reader(subject: str, protocol: str) -> Callable[[Message], tuple[float | None, float | None]]:
    def of_gateway(message: Message) -> tuple[float | None, float | None]:
        headers = dict(message.headers() or [])
        fingerprint = headers[topics.HEADER_FINGERPRINT]
        assert isinstance(fingerprint, bytes)
        return gateway_payloads.sent_us_of_frame(bytes(message.value() or b""), fingerprint.decode())

    def of_floor(message: Message) -> tuple[float | None, float | None]:
        return gateway_payloads.sent_us_of_copy(protocol, bytes(message.value() or b"")), None

    return of_gateway if subject == GATEWAY else of_floor


def _drop_session(mqtt: str) -> None:
    """Connect once more under the gateway's name with a clean session: the broker forgets the old one."""
    address = urlsplit(mqtt)
    assert address.hostname is not None
    assert address.port is not None
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=MQTT_CLIENT_ID, clean_session=True)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect(address.hostname, address.port)
    client.loop_start()
    if not connected.wait(10):
        raise RuntimeError("the MQTT broker does not take the bench's client any more")
    client.disconnect()
    client.loop_stop()

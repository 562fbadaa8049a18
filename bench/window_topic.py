"""Kafka around `bench.aggregation`: the topic of frames, filled, and the windows that engines write.

In: a broker, a plan. Out: a full topic; the bodies of windows topics.
Guarantees: raises RuntimeError unless every frame is acknowledged.
Not here: what the frames hold (`bench.window_plan`), how windows are packed (`schemas.windows`).
"""

from __future__ import annotations

from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from bench.frame_bodies import FrameBodies
from bench.frame_plan import machine_id
from bench.window_plan import ROUND_MS, WindowPlan, Windows
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.topics import HEADER_FINGERPRINT, TELEMETRY_RAW
from plantwire.schemas.windows import RECORD_SEPARATOR, unpack_windows

FLUSH_TIMEOUT_S: Final = 120.0
REQUEST_TIMEOUT_S: Final = 10.0
BATCH_MESSAGES: Final = 1_000
NUDGE_MS: Final = 65_000
END_SEPARATOR: Final = "\x1d"
"""A windows message is the end in s, this, and packed windows."""


def fill(bootstrap: str, plan: WindowPlan, base_ms: int) -> None:
    """Write every frame of `plan`; the first round is at `base_ms`."""
    failures: list[str] = []

    def on_delivery(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error.str())

    producer = Producer(
        {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 20, "batch.size": 1_000_000}
    )
    bodies = FrameBodies()
    headers: list[Any] = [(HEADER_FINGERPRINT, FRAME_CODEC.fingerprint.encode())]
    for round_number in range(plan.rounds):
        for device in range(plan.devices):
            event_time_ms = plan.event_time_ms(base_ms, device, round_number)
            body = bodies.body(plan.template(device, round_number), event_time_ms)
            while True:
                try:
                    producer.produce(
                        TELEMETRY_RAW,
                        value=body,
                        key=machine_id(device).encode(),
                        partition=plan.partition_of(device),
                        timestamp=event_time_ms,
                        headers=headers,
                        on_delivery=on_delivery,
                    )
                    break
                except BufferError:
                    producer.poll(0.1)  # the bounded queue is full: deliveries make room
        producer.poll(0)
    left = producer.flush(FLUSH_TIMEOUT_S)
    if left or failures:
        raise RuntimeError(f"{left} frames not sent, {len(failures)} refused: {failures[:1]}")


def commit_start(bootstrap: str, group: str, partitions: int) -> None:
    """Let `group` begin at the first frame; by itself it would take what is live only."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    try:
        consumer.commit(
            offsets=[TopicPartition(TELEMETRY_RAW, partition, 0) for partition in range(partitions)],
            asynchronous=False,
        )
    finally:
        consumer.close()


class Nudge:
    """Further frames, of devices beyond the plan's, one in each partition: time goes on for engines that tell
    a window's end by later frames. Each time by more than any engine waits for what is late.
    """

    def __init__(self, bootstrap: str, plan: WindowPlan, base_ms: int) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
        self._plan = plan
        self._at_ms = base_ms + plan.rounds * ROUND_MS
        self._bodies = FrameBodies()

    def send(self) -> None:
        """Let a round pass."""
        self._at_ms += NUDGE_MS
        for partition in range(self._plan.partitions):
            device = self._plan.devices + partition
            body = self._bodies.body(self._plan.template(device, 0), self._at_ms)
            key = machine_id(device).encode()
            self._producer.produce(TELEMETRY_RAW, body, key=key, partition=partition, timestamp=self._at_ms)
        self._producer.flush(REQUEST_TIMEOUT_S)


class WindowsReader:
    """Follows a topic of windows from its beginning; close it."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "bench-windows-reader",  # a name is asked for; nothing is committed
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 100,
            }
        )
        self._consumer.assign([TopicPartition(topic, 0, 0)])
        self.records = 0
        """Windows of one metric that were read."""
        self._bodies: list[bytes] = []

    def read(self, timeout_s: float) -> int:
        """Read on; answers how many windows came."""
        came = 0
        for message in self._consumer.consume(BATCH_MESSAGES, timeout_s):
            if (error := message.error()) is not None:
                raise RuntimeError(f"cannot read {self._topic}: {error}")
            body = message.value() or b""
            self._bodies.append(body)
            # Unpacking would take a core that the engine may want.
            came += body.count(RECORD_SEPARATOR.encode()) + 1
        self.records += came
        return came

    def windows(self) -> tuple[Windows, int]:
        """Everything read, and how many windows came more than once."""
        found: Windows = {}
        doubled = 0
        for body in self._bodies:
            end_s, _, packed = body.decode().partition(END_SEPARATOR)
            devices, rejected = unpack_windows(packed)
            if rejected:
                raise RuntimeError(f"{self._topic}: {rejected} windows cannot be read")
            for device_id, metrics in devices.items():
                known = found.setdefault((device_id, int(end_s) * 1000), {})
                doubled += len(known.keys() & metrics.keys())
                known |= metrics
        return found, doubled

    def close(self) -> None:
        """Let the connections go."""
        self._consumer.close()

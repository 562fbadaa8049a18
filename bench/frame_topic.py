"""Fills `device.telemetry.raw` with the frames of a plan.

In: a Kafka broker, a plan, the event time of the first round. Out: a full topic, acknowledged.
Guarantees: raises RuntimeError unless every frame is acknowledged; a device's frames are in order.
Not here: what the frames hold (`bench.frame_plan`, `bench.frame_bodies`).
"""

from __future__ import annotations

from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from bench.frame_bodies import FrameBodies
from bench.frame_plan import FramePlan, machine_id
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.topics import HEADER_FINGERPRINT, TELEMETRY_RAW

FLUSH_TIMEOUT_S: Final = 120.0
QUEUE_MAX_MESSAGES: Final = 200_000


def fill(bootstrap: str, plan: FramePlan, base_ms: int) -> None:
    """Write every frame of `plan`; the first round is at `base_ms`."""
    failures: list[str] = []

    def on_delivery(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error.str())

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": QUEUE_MAX_MESSAGES,
            "queue.buffering.max.kbytes": 1_000_000,
        }
    )
    bodies, special = FrameBodies(), plan.templates()
    keys = [machine_id(device).encode() for device in range(plan.devices)]
    headers: list[Any] = [(HEADER_FINGERPRINT, FRAME_CODEC.fingerprint.encode())]
    for round_number in range(plan.rounds):
        for device in range(plan.devices):
            event_time_ms = plan.event_time_ms(base_ms, device, round_number)
            body = bodies.body(plan.template(special, device, round_number), event_time_ms)
            while True:
                try:
                    producer.produce(
                        TELEMETRY_RAW,
                        value=body,
                        key=keys[device],
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

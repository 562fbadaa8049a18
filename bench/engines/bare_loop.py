"""The yard-stick: a plain confluent-kafka loop around the domain code.

In, Out: as every engine (`engines.order`). Guarantees: none worth the name: offsets are committed now and
then, state lives in a dict and is lost with the process. It shows what an engine's own work costs.
"""

from __future__ import annotations

import signal
import time
from typing import Any, Final

from confluent_kafka import Consumer, Producer

from bench.engines.order import ALARM_HEADERS, DetectionStep, read_order
from plantwire.domain.detection import DeviceDetector

BATCH_MESSAGES: Final = 1_000
POLL_TIMEOUT_S: Final = 0.1
STOP_TIMEOUT_S: Final = 10.0


def main() -> None:
    """Run until SIGTERM."""
    order = read_order()
    step = DetectionStep(order)
    detectors: dict[str, DeviceDetector] = {}
    consumer = Consumer(
        {
            "bootstrap.servers": order.bootstrap,
            "group.id": order.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    producer = Producer({"bootstrap.servers": order.bootstrap, "linger.ms": 0, "enable.idempotence": True})
    stopping = False

    def stop(_signal: int, _frame: Any) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    consumer.subscribe([order.frames_topic])
    committed_s = time.monotonic()
    while not stopping:
        for message in consumer.consume(BATCH_MESSAGES, POLL_TIMEOUT_S):
            if (error := message.error()) is not None:
                raise SystemExit(f"cannot read {order.frames_topic}: {error}")
            detect_in_us = time.time_ns() // 1000
            body = message.value() or b""
            frame = step.open(body)
            device_id = frame.device_id
            detector = detectors.get(device_id)
            if detector is None:
                detector = detectors[device_id] = step.restore(device_id, None)
            for event in step.judge(detector, frame, body, detect_in_us):
                producer.produce(order.alarms_topic, value=event, key=device_id, headers=ALARM_HEADERS)
        producer.poll(0)
        if time.monotonic() - committed_s >= order.checkpoint_interval_s:
            producer.flush()
            consumer.commit(asynchronous=False)
            committed_s = time.monotonic()
    producer.flush(STOP_TIMEOUT_S)
    consumer.close()


if __name__ == "__main__":
    main()

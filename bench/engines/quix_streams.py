"""The same detection as a Quix Streams application.

In, Out: as every engine (`engines.order`). Guarantees: at least once; state in RocksDB with a changelog
topic, committed at the interval that the Flink job checkpoints at.

State is kept as Quix keeps it (`State`, per message key), written when it changed. As in the Flink job a
detector in memory saves the read of the state that this process wrote itself: to Quix's advantage, since
it would read RocksDB for every frame otherwise.
"""

from __future__ import annotations

# The engine is installed in the peers' environment only.
# mypy: disable-error-code="import-not-found, misc"
import time
from typing import Any

from quixstreams import Application

from bench.engines.order import ALARM_HEADERS, DetectionStep, read_order
from plantwire.domain.detection import DeviceDetector

STATE_KEY = "device-alarms"


def main() -> None:
    """Run until SIGTERM."""
    order = read_order()
    step = DetectionStep(order)
    detectors: dict[str, DeviceDetector] = {}
    application = Application(
        broker_address=order.bootstrap,
        consumer_group=order.group,
        auto_offset_reset="earliest",
        commit_interval=order.checkpoint_interval_s,
        state_dir=order.state_folder,
        loglevel="WARNING",
        producer_extra_config={"linger.ms": 0, "enable.idempotence": True},
    )
    frames = application.topic(order.frames_topic, key_deserializer="str", value_deserializer="bytes")
    alarms = application.topic(order.alarms_topic, key_serializer="str", value_serializer="bytes")

    def detect(body: bytes, state: Any) -> list[bytes]:
        detect_in_us = time.time_ns() // 1000
        frame = step.open(body)
        device_id = frame.device_id
        detector = detectors.get(device_id)
        if detector is None:
            detector = detectors[device_id] = step.restore(device_id, state.get_bytes(STATE_KEY))
        before = detector.state
        events = step.judge(detector, frame, body, detect_in_us)
        if detector.state is not before:
            packed = step.save(detector)
            if packed is None:
                state.delete(STATE_KEY)
            else:
                state.set_bytes(STATE_KEY, packed)
        return events

    stream = application.dataframe(frames)
    stream = stream.apply(detect, stateful=True, expand=True)
    stream = stream.set_headers(lambda _value, _key, _timestamp, _headers: ALARM_HEADERS)
    stream.to_topic(alarms)
    application.run()


if __name__ == "__main__":
    main()

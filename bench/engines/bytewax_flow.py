"""The same detection as a Bytewax dataflow, run by `python -m bytewax.run bench.engines.bytewax_flow`.

In, Out: as every engine (`engines.order`). Guarantees: at least once; state in memory, snapshotted to
Bytewax's recovery store at the interval that the Flink job checkpoints at.

`stateful_batch` is the operator that Bytewax builds its other stateful ones from, and the fastest: it
hands a key all its frames of a batch at once.
"""

from __future__ import annotations

# The engine is installed in the peers' environment only.
# mypy: disable-error-code="import-not-found, misc"
import time
from collections.abc import Iterable

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic

from bench.engines.order import ALARM_HEADERS, DetectionStep, EngineOrder, read_order
from plantwire.domain.detection import DeviceDetector


class DeviceLogic(StatefulBatchLogic[bytes, bytes, tuple[str, bytes | None] | None]):
    """One device; its state is what the domain needs, packed."""

    def __init__(self, step: DetectionStep, resumed: tuple[str, bytes | None] | None) -> None:
        self._step = step
        self._detector: DeviceDetector | None = None
        if resumed is not None:
            self._detector = step.restore(*resumed)

    def on_batch(self, batch: list[bytes]) -> tuple[Iterable[bytes], bool]:
        """Judge the frames of one device, in order."""
        events: list[bytes] = []
        step, detector = self._step, self._detector
        for body in batch:
            detect_in_us = time.time_ns() // 1000
            frame = step.open(body)
            if detector is None:
                detector = self._detector = step.restore(frame.device_id, None)
            events += step.judge(detector, frame, body, detect_in_us)
        return events, StatefulBatchLogic.RETAIN

    def snapshot(self) -> tuple[str, bytes | None] | None:
        """What the recovery store keeps."""
        detector = self._detector
        return None if detector is None else (detector.device_id, self._step.save(detector))


def build(order: EngineOrder) -> Dataflow:
    """Kafka → keyed detection → Kafka."""
    step = DetectionStep(order)

    def key_and_body(message: KafkaSourceMessage) -> tuple[str, bytes]:
        return message.key.decode(), message.value

    def alarm_message(keyed: tuple[str, bytes]) -> KafkaSinkMessage:
        return KafkaSinkMessage(keyed[0].encode(), keyed[1], headers=ALARM_HEADERS)

    flow = Dataflow("alarm_detection")
    source = KafkaSource([order.bootstrap], [order.frames_topic])
    frames = op.input("frames", flow, source)
    keyed = op.map("key", frames, key_and_body)
    alarms = op.stateful_batch("detect", keyed, lambda resumed: DeviceLogic(step, resumed))
    messages = op.map("message", alarms, alarm_message)
    sink = KafkaSink(
        [order.bootstrap], order.alarms_topic, add_config={"linger.ms": 0, "enable.idempotence": True}
    )
    op.output("alarms", messages, sink)
    return flow


def flow() -> Dataflow:
    """What `bytewax.run` calls."""
    return build(read_order())

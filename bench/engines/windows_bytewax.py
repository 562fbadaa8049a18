"""Windows of 1 s as a Bytewax dataflow, run by `python -m bytewax.run bench.engines.windows_bytewax:flow`.

In, Out: as every engine (`engines.windows_order`). Guarantees: at least once; state in memory, snapshotted to
Bytewax's recovery store at the interval that the Flink job checkpoints at.

One window per device holds all its metrics, as in the Quix Streams application.
"""

from __future__ import annotations

# The engine is installed in the peers' environment only.
# mypy: disable-error-code="import-not-found, misc"
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow

from bench.engines.windows_order import SampleReader, WindowsOrder, add, read_order, window_message
from plantwire.schemas.windows import ONE_SECOND

# Bytewax's time goes on with the machine's between two frames, so a pause of the machine would make frames
# late; the Flink job holds windows back too while it works off old frames, by a minute.
WAIT = timedelta(seconds=5)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def build(order: WindowsOrder) -> Dataflow:
    """Kafka → windows per device → Kafka."""
    reader = SampleReader(by_layout=order.by_layout)

    def opened(message: KafkaSourceMessage) -> Any:
        frame = reader.open(message.value)
        return None if frame is None else (message.key.decode(), frame)

    def message(keyed: Any) -> KafkaSinkMessage:
        device_id, (window_id, accumulated) = keyed
        end_ms = (window_id + 1) * ONE_SECOND.size_ms
        return KafkaSinkMessage(None, window_message(device_id, end_ms, accumulated))

    flow = Dataflow("windows")
    source = KafkaSource([order.bootstrap], [order.frames_topic])
    frames = op.filter_map("open", op.input("frames", flow, source), opened)
    windows = win.fold_window(
        "windows",
        frames,
        win.EventClock(lambda frame: EPOCH + timedelta(milliseconds=frame[0]), WAIT),
        win.TumblingWindower(timedelta(milliseconds=ONE_SECOND.size_ms), EPOCH),
        dict,
        lambda accumulated, frame: add(accumulated, frame[1]),
        _never_merged,
        ordered=False,
    )
    messages = op.map("message", windows.down, message)
    sink = KafkaSink(
        [order.bootstrap], order.windows_topic, add_config={"linger.ms": 20, "enable.idempotence": True}
    )
    op.output("windows-topic", messages, sink)
    return flow


def _never_merged(one: Any, other: Any) -> Any:
    raise AssertionError(f"tumbling windows are not merged: {one}, {other}")


def flow() -> Dataflow:
    """What `bytewax.run` calls."""
    return build(read_order())

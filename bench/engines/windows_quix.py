"""Windows of 1 s as a Quix Streams application.

In, Out: as every engine (`engines.windows_order`). Guarantees: at least once; state in RocksDB with a
changelog topic, committed at the interval that the Flink job checkpoints at.

One window per device holds all its metrics: a window per metric would cost Quix a topic and ten times the
calls.
"""

from __future__ import annotations

# The engine is installed in the peers' environment only.
# mypy: disable-error-code="import-not-found, misc"
from typing import Any

from quixstreams import Application

from bench.engines.windows_order import SampleReader, add, read_order, window_message
from plantwire.schemas.windows import GRACE_MS, ONE_SECOND


def main() -> None:
    """Run until SIGTERM."""
    order = read_order()
    reader = SampleReader(by_layout=order.by_layout)
    application = Application(
        broker_address=order.bootstrap,
        consumer_group=order.group,
        auto_offset_reset="earliest",
        commit_interval=order.checkpoint_interval_s,
        state_dir=order.state_folder,
        loglevel="WARNING",
        producer_extra_config={"linger.ms": 20, "enable.idempotence": True},
    )
    # A record's time stamp is its frame's event time, which Quix windows go by.
    frames = application.topic(order.frames_topic, key_deserializer="str", value_deserializer="bytes")
    windows = application.topic(order.windows_topic, key_serializer="str", value_serializer="bytes")

    def message(value: Any, key: str, _timestamp: int, _headers: object) -> bytes:
        return window_message(key, value["end"], value["value"])

    def samples(body: bytes) -> Any:
        opened = reader.open(body)
        return None if opened is None else opened[1]

    stream = application.dataframe(frames)
    stream = stream.apply(samples)
    stream = stream[stream.apply(lambda value: value is not None)]
    stream = (
        stream.tumbling_window(ONE_SECOND.size_ms, GRACE_MS)
        .reduce(reducer=add, initializer=lambda value: add({}, value))
        .final()
    )
    stream = stream.apply(message, metadata=True)
    stream.to_topic(windows)
    application.run()


if __name__ == "__main__":
    main()

"""The live picture as Flink functions: frames and alarm events → Redis.

In: TelemetryFrame bodies keyed by device; AlarmEvent bodies.
Out: Redis (`platform.live_state`); nothing downstream.
Guarantees: alarm events are written until Redis has them, so Redis being away holds this job back, and only
this job.
Not here: which values go out when (`domain.live_values`), detection, which writes critical alarms itself
(`platform.critical_path`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from pyflink.common import Types
from pyflink.datastream import KeyedProcessFunction, ProcessFunction
from pyflink.datastream.state import ValueStateDescriptor

from plantwire.domain.live_values import LiveMessage, LiveValues
from plantwire.platform.alarm_refill import AlarmRefill
from plantwire.platform.live_alarms import LiveAlarmWriter
from plantwire.platform.live_writer import RedisWriter
from plantwire.udfs.flink_keeper import FlinkKeeper

LIVE_STATE: Final = "live-values"


class LiveTelemetry(KeyedProcessFunction):
    """One device's values, coalesced to one message per `interval_ms`."""

    def __init__(self, redis_url: str, interval_ms: int) -> None:
        self._redis_url = redis_url
        self._interval_ms = interval_ms

    def open(self, runtime_context: Any) -> None:
        # Cleared by `LiveValues` when the device was silent for a day. Not by Flink's TTL: in thread mode
        # PyFlink 2.3 fails to set one up (its state descriptor asks for a JVM gateway that is not there).
        self._state = runtime_context.get_state(ValueStateDescriptor(LIVE_STATE, Types.PICKLED_BYTE_ARRAY()))
        self._writer = RedisWriter(self._redis_url)
        counter = runtime_context.get_metrics_group().add_group("plantwire").counter
        self._values = LiveValues(self._interval_ms, counter)

    def process_element(self, body: bytes | None, ctx: Any) -> Iterator[Any]:
        now_ms = time.time_ns() // 1_000_000
        keeper = FlinkKeeper(self._state, ctx)
        self._show(self._values.take(body or b"", ctx.get_current_key(), keeper, now_ms))
        yield from ()

    def on_timer(self, timestamp: int, ctx: Any) -> Iterator[Any]:
        self._show(self._values.wake(ctx.get_current_key(), timestamp, FlinkKeeper(self._state, ctx)))
        yield from ()

    def _show(self, message: LiveMessage | None) -> None:
        if message is not None:
            self._writer.write(lambda live: live.publish_telemetry(*message))


class LiveAlarms(ProcessFunction):
    """Every alarm event of the log, in Redis. Those that the fast path wrote are recognised there."""

    def __init__(self, redis_url: str, bootstrap: str) -> None:
        self._redis_url = redis_url
        self._bootstrap = bootstrap

    def open(self, runtime_context: Any) -> None:
        # Beside the stream, not in it: Redis may be wiped while nothing at all comes in.
        self._refill = AlarmRefill(self._redis_url, self._bootstrap)
        self._refill.start()
        counter = runtime_context.get_metrics_group().add_group("plantwire").counter
        self._alarms = LiveAlarmWriter(RedisWriter(self._redis_url), counter)

    def process_element(self, row: Any, ctx: Any) -> Iterator[Any]:  # noqa: ARG002 - Flink's signature
        self._alarms.take(row[1], time.time_ns() // 1000)
        yield from ()

    def close(self) -> None:
        self._refill.stop()

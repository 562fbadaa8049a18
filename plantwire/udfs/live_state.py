"""The live picture as Flink functions: frames and alarm events → Redis.

In: TelemetryFrame bodies keyed by device; AlarmEvent bodies.
Out: Redis (`platform.live_state`); nothing downstream.
Guarantees: a device's values go out at most once per interval, newest first to win; alarm events are
written until Redis has them, so Redis being away holds this job back, and only this job.
Not here: detection, which writes critical alarms itself (`udfs.critical_path`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import msgspec
import redis
from pyflink.common import Types
from pyflink.datastream import KeyedProcessFunction, ProcessFunction
from pyflink.datastream.state import ValueStateDescriptor

from plantwire.domain.admission import is_too_far_ahead
from plantwire.domain.coalescing import NOTHING, Pending, due_ms, holds_back, merge, shown
from plantwire.platform.alarm_refill import AlarmRefill
from plantwire.platform.live_state import LiveState
from plantwire.schemas.codec import ALARM_CODEC, FRAME_CODEC, UndecodableError

LIVE_STATE: Final = "live-values"
STATE_LIFETIME_MS: Final = 24 * 3600 * 1000
"""A device that was silent for a day starts afresh; its latest values stay in Redis."""
RETRY_FOR_S: Final = 20.0
"""How long a write is repeated before Flink restarts the job; below its cancellation time-out."""
RETRY_EVERY_S: Final = 0.25

T = TypeVar("T")

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Pending)


class RedisWriter:
    """A LiveState that waits for Redis, for a while."""

    def __init__(self, redis_url: str) -> None:
        self._live_state = LiveState(
            redis.Redis.from_url(redis_url, socket_timeout=2, socket_connect_timeout=2, socket_keepalive=True)
        )

    def write(self, step: Callable[[LiveState], T]) -> T:
        """Run `step`, again and again while Redis is away; raises the last RedisError in the end."""
        give_up_s = time.monotonic() + RETRY_FOR_S
        while True:
            try:
                return step(self._live_state)
            except redis.RedisError:
                if time.monotonic() > give_up_s:
                    raise
                # Back-pressure is the point: the source must not run ahead of a Redis that is away.
                time.sleep(RETRY_EVERY_S)


class LiveTelemetry(KeyedProcessFunction):
    """One device's values, coalesced to one message per `interval_ms`."""

    def __init__(self, redis_url: str, interval_ms: int) -> None:
        self._redis_url = redis_url
        self._interval_ms = interval_ms

    def open(self, runtime_context: Any) -> None:
        # Cleared by `on_timer` when the device was silent for a day. Not by Flink's TTL: in thread mode
        # PyFlink 2.3 fails to set one up (its state descriptor asks for a JVM gateway that is not there).
        self._state = runtime_context.get_state(ValueStateDescriptor(LIVE_STATE, Types.PICKLED_BYTE_ARRAY()))
        self._writer = RedisWriter(self._redis_url)
        metrics = runtime_context.get_metrics_group().add_group("plantwire")
        self._count_left_out = metrics.counter("values_left_out")
        self._count_historical = metrics.counter("frames_historical")
        self._count_rejected = metrics.counter("frames_rejected")
        self._count_messages = metrics.counter("telemetry_messages")

    def process_element(self, body: bytes | None, ctx: Any) -> Iterator[Any]:
        try:
            frame = FRAME_CODEC.decode_fields(body or b"")
        except UndecodableError:
            # Detection reads the same frame and sends it to the dead-letter topic.
            self._count_rejected.inc()
            return
        now_ms = time.time_ns() // 1_000_000
        historical = frame["historical"]
        if historical:
            self._count_historical.inc()
        key_lies = ctx.get_current_key() != frame["device_id"]
        if key_lies or is_too_far_ahead(frame["event_time_ms"], now_ms):
            self._count_rejected.inc()
            return
        packed = self._state.value()
        if packed is None and historical:
            return
        if packed is None:
            before = NOTHING._replace(look_again_ms=now_ms + STATE_LIFETIME_MS)
            ctx.timer_service().register_processing_time_timer(before.look_again_ms)
        else:
            before = _decoder.decode(packed)
        pending, left_out = merge(before, frame["metrics"], frame["event_time_ms"], historical=historical)
        if historical and pending == before:
            return
        if left_out:
            self._count_left_out.inc(left_out)
        due = due_ms(pending, self._interval_ms)
        if due is not None and due <= now_ms:
            pending = self._show(frame["device_id"], pending, now_ms)
        elif due is not None and not holds_back(before):
            ctx.timer_service().register_processing_time_timer(due)
        self._state.update(_encoder.encode(pending))
        yield from ()

    def on_timer(self, timestamp: int, ctx: Any) -> Iterator[Any]:
        packed = self._state.value()
        if packed is None:
            return
        pending = before = _decoder.decode(packed)
        if holds_back(pending):
            pending = self._show(ctx.get_current_key(), pending, timestamp)
        elif timestamp >= pending.shown_ms + STATE_LIFETIME_MS:
            self._state.clear()
            return
        if timestamp >= pending.look_again_ms:
            pending = pending._replace(look_again_ms=pending.shown_ms + STATE_LIFETIME_MS)
            ctx.timer_service().register_processing_time_timer(pending.look_again_ms)
        if pending is not before:
            self._state.update(_encoder.encode(pending))
        yield from ()

    def _show(self, device_id: str, pending: Pending, now_ms: int) -> Pending:
        self._writer.write(
            lambda live: live.publish_telemetry(
                device_id, pending.timestamp_ms, pending.values, pending.qualities
            )
        )
        self._count_messages.inc()
        return shown(pending, now_ms)


class LiveAlarms(ProcessFunction):
    """Every alarm event of the log, in Redis. Those that the fast path wrote are recognised there."""

    def __init__(self, redis_url: str, bootstrap: str) -> None:
        self._redis_url = redis_url
        self._bootstrap = bootstrap

    def open(self, runtime_context: Any) -> None:
        self._writer = RedisWriter(self._redis_url)
        # Beside the stream, not in it: Redis may be wiped while nothing at all comes in.
        self._refill = AlarmRefill(self._redis_url, self._bootstrap)
        self._refill.start()
        metrics = runtime_context.get_metrics_group().add_group("plantwire")
        self._count_published = metrics.counter("alarms_published")
        self._count_known = metrics.counter("alarms_already_published")
        self._count_rejected = metrics.counter("alarms_rejected")

    def process_element(self, row: Any, ctx: Any) -> Iterator[Any]:  # noqa: ARG002 - Flink's signature
        try:
            event = ALARM_CODEC.decode(row[1] or b"")
        except UndecodableError:
            self._count_rejected.inc()
            return
        if not event.published_us:
            event = msgspec.structs.replace(event, published_us=time.time_ns() // 1000)
        published = self._writer.write(lambda live: live.publish_alarm(event))
        (self._count_published if published else self._count_known).inc()
        yield from ()

    def close(self) -> None:
        self._refill.stop()

"""Alarm detection as a Flink function: load a device's state, ask the domain, save, yield.

In: TelemetryFrame bodies keyed by device; AlarmRule bodies by broadcast.
Out: AlarmEvents as Kafka rows; frames that cannot be read as rows of the side output `REJECTED`.
Guarantees: every write goes to Flink's keyed state at once, the cache only saves reads; rules are in
force from the first frame, also after a restore; nothing waits for a watermark.
Not here: what an alarm is (`domain.detection`), the topology (`jobs.alarm_detection`).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

import msgspec
import structlog
from pyflink.common import Row, Types
from pyflink.datastream import KeyedBroadcastProcessFunction, OutputTag
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor

from plantwire.domain.admission import MAX_AHEAD_MS, is_too_far_ahead
from plantwire.domain.adoption import go_on_from
from plantwire.domain.attention import next_look_ms
from plantwire.domain.detection import DeviceDetector, FrameFields
from plantwire.domain.listening import Ear, Heard, lag_ms, look_in_ms
from plantwire.domain.packed_state import UnknownLayoutError, pack, unpack, unpack_with_clock
from plantwire.domain.reconciliation import reconcile
from plantwire.domain.rule_book import RuleBook, is_sound
from plantwire.platform.alarm_log import recent_alarms
from plantwire.platform.topic_reader import TopicError
from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC, FRAME_CODEC, RULE_CODEC, UndecodableError
from plantwire.schemas.frame_layout import FrameReader
from plantwire.schemas.records import QUALITY_GOOD, AlarmEvent, AlarmRule
from plantwire.udfs.cached_device import CachedDevice
from plantwire.udfs.critical_path import CriticalPath

# State names are stored data: a savepoint is restored by them.
DEVICE_STATE: Final = "device-alarms"
RULES_STATE: Final = "alarm-rules"

KAFKA_ROW: Final = Types.ROW_NAMED(
    ["device_id", "body", "headers"],
    [
        Types.STRING(),
        Types.PRIMITIVE_ARRAY(Types.BYTE()),
        Types.MAP(Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())),
    ],
)
REJECTED: Final = OutputTag("rejected-frames", KAFKA_ROW)
RULES_DESCRIPTOR: Final = MapStateDescriptor(RULES_STATE, Types.STRING(), Types.PICKLED_BYTE_ARRAY())

DELETED: Final = b""
"""Kept in the broadcast state in place of a deleted rule, or `first_rules` would bring it back after a
failure: they are from the time of submission.
"""
CACHED_DEVICES: Final = 100_000

_log = structlog.get_logger(__name__)


class AlarmDetection(KeyedBroadcastProcessFunction):
    """`first_rules` are in force until the broadcast brings newer versions: without them, the frames
    read before the rules topic would pass unjudged. `bootstrap` is where the alarm log is. `redis_url` None
    leaves the fast path out.
    """

    def __init__(self, first_rules: Iterable[AlarmRule], bootstrap: str, redis_url: str | None) -> None:
        self._first_rules = tuple(first_rules)
        self._bootstrap = bootstrap
        self._redis_url = redis_url

    def open(self, runtime_context: Any) -> None:
        self._state = runtime_context.get_state(
            # Cleared by `_save` once a device has nothing to remember: no alarm, no delay, no dedup window,
            # no data that are waited for (those are, as long as their rule applies).
            ValueStateDescriptor(DEVICE_STATE, Types.PICKLED_BYTE_ARRAY())
        )
        self._detectors: OrderedDict[str, CachedDevice] = OrderedDict()
        self._opened_ms = time.time_ns() // 1_000_000
        # The device of the frame that was read last.
        self._newest: CachedDevice | None = None
        self._book = RuleBook(self._first_rules)
        self._reader = FrameReader()
        self._restored_rules = False
        metrics = runtime_context.get_metrics_group().add_group("plantwire")
        self._critical_path = CriticalPath(self._redis_url, metrics.counter) if self._redis_url else None
        self._logged = self._read_log()
        self._count_historical = metrics.counter("frames_historical")
        self._count_rejected = metrics.counter("frames_rejected")
        self._count_rules_rejected = metrics.counter("rules_rejected")
        self._count_events = metrics.counter("alarm_events")
        self._count_too_late = metrics.counter("frames_too_late")
        self._count_clock_steps = metrics.counter("device_clock_steps")
        self._count_adopted = metrics.counter("edge_states_adopted")
        self._count_not_adopted = metrics.counter("edge_states_unreadable")
        self._count_corrected = metrics.counter("alarms_corrected")
        self._count_unwatched = metrics.counter("silences_unwatched")

    def process_element(self, body: bytes | None, ctx: Any) -> Iterable[Any] | None:
        detect_in_us = time.time_ns() // 1000
        reading = self._reader.read(body) if body else None
        if reading is not None and not reading.layout.historical:
            cached = self._detectors.get(reading.layout.device_id)
            if (
                cached is not None
                and cached.generation == self._book.generation
                and reading.event_time_ms <= min(detect_in_us // 1000 + MAX_AHEAD_MS, cached.settle_after_ms)
                and cached.detector.passes(reading.layout.names, reading.numbers, reading.event_time_ms)
            ):
                cached.passed, cached.passed_us = reading, detect_in_us
                self._newest = cached
                return None
        return self._judge(body or b"", ctx, detect_in_us, has_layout=reading is not None)

    def _judge(self, body: bytes, ctx: Any, detect_in_us: int, *, has_layout: bool) -> Iterator[Any]:
        """The long way: for the first frame of a layout, and whenever there is something to tell."""
        if not self._restored_rules:
            self._restore_rules(ctx)
        try:
            frame = FRAME_CODEC.decode_fields(body)
        except UndecodableError as error:
            yield self._reject(body, ctx, f"undecodable: {error}", detect_in_us)
            return
        if frame["historical"]:
            self._count_historical.inc()
            return
        now_ms = detect_in_us // 1000
        event_time_ms = frame["event_time_ms"]
        if is_too_far_ahead(event_time_ms, now_ms):
            yield self._reject(body, ctx, "timestamp-ahead", detect_in_us)
            return
        device_id = frame["device_id"]
        if ctx.get_current_key() != device_id:
            yield self._reject(body, ctx, "key-mismatch", detect_in_us)
            return
        if not has_layout:
            self._reader.learn(body, frame)
        cached = self._detectors.get(device_id) or self._load(device_id)
        detector = cached.detector
        before = detector.state
        heard = Heard(event_time_ms, frame["received_time_ms"], now_ms)
        # One that only marks values stale or bad has the gateway's time, not the device's.
        has_readings = any(m["number"] is not None and m["quality"] == QUALITY_GOOD for m in frame["metrics"])
        if has_readings:
            cached.clock_ahead_ms = event_time_ms - now_ms
        events: list[AlarmEvent] = []
        if cached.generation != self._book.generation:
            events = self._refresh_rules(cached, event_time_ms)
        if frame["edge_state"]:
            events.extend(self._adopt(cached, frame["edge_state"], event_time_ms))
        too_late, steps, refused = detector.clock.too_late, detector.clock.steps, detector.silences.refused
        forward_ms = cached.ear.put_forward_ms(heard) if detector.watches_silence else 0
        events.extend(detector.take_frame(cast(FrameFields, frame), now_ms, forward_ms))
        self._count_too_late.inc(detector.clock.too_late - too_late)
        self._count_clock_steps.inc(detector.clock.steps - steps)
        self._count_unwatched.inc(detector.silences.refused - refused)
        if detector.clock.newest_ms == event_time_ms:
            cached.ear.hear(heard, is_put_back=detector.clock.steps != steps)
            self._newest = cached
        if has_readings and event_time_ms > cached.settle_after_ms:
            events.extend(self._settle(cached, event_time_ms))
        if detector.state is not before:
            self._save(cached, ctx, now_ms)
        for event in events:
            yield self._emit(
                msgspec.structs.replace(
                    event,
                    device_us=event_time_ms * 1000,
                    gateway_in_us=frame["gateway_in_us"],
                    gateway_out_us=frame["gateway_out_us"],
                    detect_in_us=detect_in_us,
                )
            )

    def on_timer(self, timestamp: int, ctx: Any) -> Iterator[Any]:
        detect_in_us = time.time_ns() // 1000
        if not self._restored_rules:
            # A timer can be overdue after a restore, and come before any frame or rule.
            self._restore_rules(ctx)
        device_id = ctx.get_current_key()
        # A timer that is overdue after a restore is told its own time, long past.
        now_ms = max(timestamp, detect_in_us // 1000)
        cached = self._detectors.get(device_id) or self._load(device_id)
        if cached.timer_ms not in (0, timestamp):
            return  # of before a restart; the one that is known does the work
        cached.timer_ms = 0
        event_now_ms = timestamp + cached.clock_ahead_ms
        until_ms = self._silent_until_ms(cached, now_ms)
        before = cached.detector.state
        if cached.generation != self._book.generation:
            events = self._refresh_rules(cached, event_now_ms, until_ms)
        else:
            events = cached.detector.run_timers(event_now_ms, until_ms)
        if cached.detector.watches_silence:
            # What the log has of a silence cannot be told from this state before it is known to have lasted.
            event_now_ms = min(event_now_ms, until_ms)
        if event_now_ms > cached.settle_after_ms:
            events.extend(self._settle(cached, event_now_ms))
        if cached.detector.state is not before:
            self._save(cached, ctx, now_ms)
        else:
            self._set_timer(cached, ctx, now_ms)
        for event in events:
            yield self._emit(msgspec.structs.replace(event, detect_in_us=detect_in_us))

    def process_broadcast_element(self, row: Any, ctx: Any) -> Iterator[Any]:
        """A rule record; a null body is a deletion (a tombstone in the compacted topic)."""
        if not self._restored_rules:
            self._restore_rules(ctx)
        rule_id, body = row[0], row[1]
        rules = ctx.get_broadcast_state(RULES_DESCRIPTOR)
        if body is None:
            self._book.remove(rule_id)
            rules.put(rule_id, DELETED)
            return
        try:
            rule = RULE_CODEC.decode(body)
        except UndecodableError:
            self._count_rules_rejected.inc()
            return
        if not is_sound(rule):
            self._count_rules_rejected.inc()
            return
        if self._book.put(rule):
            rules.put(rule.rule_id, body)
        yield from ()

    def _restore_rules(self, ctx: Any) -> None:
        """After a restore the broadcast state holds rules that `first_rules` may not have."""
        for rule_id, body in ctx.get_broadcast_state(RULES_DESCRIPTOR).items():
            if body == DELETED:
                self._book.remove(rule_id)
            else:
                self._book.put(RULE_CODEC.decode(body))
        self._restored_rules = True

    def _load(self, device_id: str) -> CachedDevice:
        packed = self._state.value()
        site, state, ahead_ms = unpack_with_clock(packed) if packed is not None else ("", {}, None)
        detector = DeviceDetector(device_id, self._book.for_device(device_id), state)
        detector.site = site
        logged = self._logged.pop(device_id, [])
        # One that is loaded later has sent nothing since it was put out of the cache.
        ear = Ear(self._opened_ms, ahead_ms)
        cached = CachedDevice(detector, self._book.generation, logged, ear)
        self._detectors[device_id] = cached
        if len(self._detectors) > CACHED_DEVICES:
            self._detectors.popitem(last=False)
        return cached

    def _refresh_rules(
        self, cached: CachedDevice, now_ms: int, silent_until_ms: int | None = None
    ) -> list[AlarmEvent]:
        cached.generation = self._book.generation
        detector = cached.detector
        return detector.take_rules(self._book.for_device(detector.device_id), now_ms, silent_until_ms)

    def _silent_until_ms(self, cached: CachedDevice, now_ms: int) -> int:
        newest = self._newest.ear.heard if self._newest is not None else None
        return cached.ear.silent_until_ms(lag_ms(newest, now_ms), now_ms)

    def _save(self, cached: CachedDevice, ctx: Any, now_ms: int) -> None:
        detector = cached.detector
        if detector.state:
            self._state.update(pack(detector.site, detector.state, cached.ear.clock_ahead_ms or 0))
        else:
            self._state.clear()
        self._set_timer(cached, ctx, now_ms)

    def _set_timer(self, cached: CachedDevice, ctx: Any, now_ms: int) -> None:
        detector = cached.detector
        silence_in_ms = look_in_ms(detector.silences.look_ms, self._silent_until_ms(cached, now_ms))
        timer_ms = next_look_ms(detector.state, cached.clock_ahead_ms, now_ms, silence_in_ms)
        if timer_ms is None or 0 < cached.timer_ms <= timer_ms:
            return
        if cached.timer_ms:
            ctx.timer_service().delete_processing_time_timer(cached.timer_ms)
        ctx.timer_service().register_processing_time_timer(timer_ms)
        cached.timer_ms = timer_ms

    def _read_log(self) -> dict[str, list[AlarmEvent]]:
        """What the log last said of recent alarms, by device: a replay may come out differently."""
        logged: dict[str, list[AlarmEvent]] = {}
        try:
            for event in recent_alarms(self._bootstrap):
                logged.setdefault(event.device_id, []).append(event)
        except TopicError as error:
            # Detection must run; without the log, an alarm that a failure left behind stays as announced.
            _log.error("alarm-log-not-read", reason=str(error))
        return logged

    def _settle(self, cached: CachedDevice, event_now_ms: int) -> list[AlarmEvent]:
        """Hold the state against what the log said up to now, and tell what sets it right."""
        detector = cached.detector
        corrections = []
        for logged in cached.passed_of_log(event_now_ms):
            detector.state, correction = reconcile(detector.state, logged, event_now_ms)
            if correction is not None:
                self._count_corrected.inc()
                corrections.append(correction)
        return corrections

    def _adopt(self, cached: CachedDevice, edge_state: bytes, event_time_ms: int) -> list[AlarmEvent]:
        """Kafka lacks frames that the gateway's own detection has seen: go on from what it knows."""
        try:
            site, edge = unpack(edge_state)
        except UnknownLayoutError:
            # Of a newer gateway. Without it alarms may get ids of their own; the frame counts all the same.
            self._count_not_adopted.inc()
            return []
        detector = cached.detector
        detector.site = detector.site or site
        self._count_adopted.inc()
        return go_on_from(detector, edge, event_time_ms)

    def _emit(self, event: AlarmEvent) -> Row:
        event = msgspec.structs.replace(event, detect_out_us=time.time_ns() // 1000)
        if self._critical_path is not None:
            event = self._critical_path.publish(event)
        self._count_events.inc()
        fingerprint = {topics.HEADER_FINGERPRINT: ALARM_CODEC.fingerprint.encode()}
        return Row(event.device_id, ALARM_CODEC.encode(event), fingerprint)

    def _reject(self, body: bytes | None, ctx: Any, reason: str, received_us: int) -> tuple[OutputTag, Row]:
        self._count_rejected.inc()
        headers = {
            topics.HEADER_REASON: reason.encode(),
            topics.HEADER_SOURCE: f"kafka:{topics.TELEMETRY_RAW}".encode(),
            topics.HEADER_RECEIVED_TIME: str(received_us // 1000).encode(),
        }
        return REJECTED, Row(ctx.get_current_key(), body or b"", headers)

"""The alarms of patterns as a Flink function: matches → alarm events.

In: `domain.pattern_alarms.Match` or LoggedAlarm as JSON, keyed by device. Out: AlarmEvents as Kafka rows.
Guarantees: alarms follow event time alone, so a replay of the same matches gives the same events.
Not here: what a match is (`domain.patterns`) and means (`domain.pattern_alarms`), the topology
(`jobs.telemetry_patterns`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction
from pyflink.datastream.state import ValueStateDescriptor

from plantwire.domain.pattern_alarms import HeldAlarm, Match, hold_ended, let_go, take_match
from plantwire.domain.patterns import GRACE_MS
from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC
from plantwire.schemas.patterns import Pattern
from plantwire.schemas.records import AlarmEvent

# A state's name is stored data: a savepoint is restored by it.
HELD_STATE: Final = "pattern-alarms"


class LoggedAlarm(msgspec.Struct, frozen=True, tag="logged"):
    """An alarm of a pattern that the log showed active when the job was submitted; None is no alarm."""

    event: AlarmEvent | None


class PatternAlarms(KeyedProcessFunction):
    """Holds the alarms of a device's patterns until they clear."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = tuple(patterns)

    def open(self, runtime_context: Any) -> None:
        # Cleared by `_save` once no alarm of the device is held; every alarm ends by a timer or a match.
        self._state = runtime_context.get_state(ValueStateDescriptor(HELD_STATE, Types.PICKLED_BYTE_ARRAY()))
        self._by_id = {pattern.pattern_id: pattern for pattern in self._patterns}
        self._decoder = msgspec.json.Decoder(Match | LoggedAlarm)
        self._held_decoder = msgspec.msgpack.Decoder(list[tuple[str, str, HeldAlarm]])
        metrics = runtime_context.get_metrics_group().add_group("plantwire")
        self._count_matches = metrics.counter("pattern_matches")
        self._count_events = metrics.counter("alarm_events")
        self._count_let_go = metrics.counter("alarms_let_go")

    def process_element(self, body: bytes, ctx: Any) -> Iterator[Row]:
        detect_in_us = time.time_ns() // 1000
        told = self._decoder.decode(body)
        held = self._load()
        if isinstance(told, LoggedAlarm):
            if told.event is not None and not self._still_held(told.event, held):
                self._count_let_go.inc()
                self._save(held)
                yield self._emit(let_go(told.event, detect_in_us // 1000), detect_in_us)
            return
        self._count_matches.inc()
        pattern = self._patterns[told.pattern_no]
        key = (pattern.pattern_id, told.metric)
        alarm, events = take_match(pattern, told, held.pop(key, None))
        if alarm is not None:
            held[key] = alarm
            if alarm.clear_ms is not None:
                # When the watermark of the samples' rows is there, all matches up to that time have come.
                ctx.timer_service().register_event_time_timer(alarm.clear_ms + GRACE_MS)
        self._save(held)
        for event in events:
            yield self._emit(event, detect_in_us)

    def on_timer(self, timestamp: int, ctx: Any) -> Iterator[Row]:
        detect_in_us = time.time_ns() // 1000
        held = self._load()
        events = []
        for key, alarm in list(held.items()):
            pattern = self._by_id.get(key[0])
            if pattern is not None and alarm.clear_ms is not None and alarm.clear_ms + GRACE_MS <= timestamp:
                events.append(hold_ended(pattern, ctx.get_current_key(), key[1], held.pop(key)))
        if events:
            self._save(held)
        for event in events:
            yield self._emit(event, detect_in_us)

    def _still_held(self, logged: AlarmEvent, held: dict[tuple[str, str], HeldAlarm]) -> bool:
        """Whether the alarm will be cleared in time; one whose pattern is gone is forgotten here."""
        for key, alarm in list(held.items()):
            if alarm.alarm_id == logged.alarm_id:
                if key[0] in self._by_id:
                    return True
                del held[key]
        return False

    def _load(self) -> dict[tuple[str, str], HeldAlarm]:
        packed = self._state.value()
        if packed is None:
            return {}
        return {
            (pattern_id, metric): alarm for pattern_id, metric, alarm in self._held_decoder.decode(packed)
        }

    def _save(self, held: dict[tuple[str, str], HeldAlarm]) -> None:
        if held:
            self._state.update(msgspec.msgpack.encode([(*key, alarm) for key, alarm in held.items()]))
        else:
            self._state.clear()

    def _emit(self, event: AlarmEvent, detect_in_us: int) -> Row:
        self._count_events.inc()
        event = msgspec.structs.replace(
            event, detect_in_us=detect_in_us, detect_out_us=time.time_ns() // 1000
        )
        fingerprint = {topics.HEADER_FINGERPRINT: ALARM_CODEC.fingerprint.encode()}
        return Row(event.device_id, ALARM_CODEC.encode(event), fingerprint)

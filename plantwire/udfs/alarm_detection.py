"""Alarm detection as a Flink function: hand frames, rules and timers to the domain, yield what it tells.

In: TelemetryFrame bodies keyed by device; AlarmRule bodies by broadcast.
Out: AlarmEvents as Kafka rows; frames that cannot be read as rows of the side output `REJECTED`.
Guarantees: every write goes to Flink's keyed state at once; rules are in force from the first frame, also
after a restore; nothing waits for a watermark.
Not here: how frames become alarms (`domain.plant_detection`), the topology (`jobs.alarm_detection`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
import structlog
from pyflink.common import Row, Types
from pyflink.datastream import KeyedBroadcastProcessFunction, OutputTag
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor

from plantwire.domain.plant_detection import PlantDetection
from plantwire.platform.alarm_log import recent_alarms_if_readable
from plantwire.platform.critical_path import CriticalPath
from plantwire.platform.rule_topic import read_rules
from plantwire.platform.topic_reader import TopicError
from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC
from plantwire.schemas.records import AlarmEvent, AlarmRule
from plantwire.udfs.flink_keeper import FlinkKeeper

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
RULES_TIMEOUT_S: Final = 10.0

_log = structlog.get_logger(__name__)


class AlarmDetection(KeyedBroadcastProcessFunction):
    """`first_rules` are in force where the rules topic cannot be read at a start, until the broadcast brings
    newer versions. `bootstrap` is where that topic and the alarm log are. `redis_url` None leaves the fast
    path out.
    """

    def __init__(self, first_rules: Iterable[AlarmRule], bootstrap: str, redis_url: str | None) -> None:
        self._first_rules = tuple(first_rules)
        self._bootstrap = bootstrap
        self._redis_url = redis_url

    def open(self, runtime_context: Any) -> None:
        # Cleared by `PlantDetection` once a device has nothing to remember.
        self._state = runtime_context.get_state(
            ValueStateDescriptor(DEVICE_STATE, Types.PICKLED_BYTE_ARRAY())
        )
        counter = runtime_context.get_metrics_group().add_group("plantwire").counter
        opened_ms = time.time_ns() // 1_000_000
        self._critical_path = CriticalPath(self._redis_url, counter) if self._redis_url else None
        rules = self._read_rules()
        # What a checkpoint holds of rules is older than what the topic says now.
        self._restored_rules = rules is not None
        first = self._first_rules if rules is None else rules
        self._detection = PlantDetection(
            first, recent_alarms_if_readable(self._bootstrap), opened_ms, counter
        )
        self._count_events = counter("alarm_events")

    def process_element(self, body: bytes | None, ctx: Any) -> Iterable[Any] | None:
        detect_in_us = time.time_ns() // 1000
        if self._detection.passes(body, detect_in_us):
            return None
        return self._judge(body or b"", ctx, detect_in_us)

    def _judge(self, body: bytes, ctx: Any, detect_in_us: int) -> Iterator[Any]:
        if not self._restored_rules:
            self._restore_rules(ctx)
        keeper = FlinkKeeper(self._state, ctx)
        judged = self._detection.judge(body, ctx.get_current_key(), keeper, detect_in_us)
        if judged.rejected is not None:
            yield self._reject(body, ctx, judged.rejected, detect_in_us)
        for event in judged.events:
            yield self._emit(event)

    def on_timer(self, timestamp: int, ctx: Any) -> Iterator[Any]:
        detect_in_us = time.time_ns() // 1000
        if not self._restored_rules:
            # A timer can be overdue after a restore, and come before any frame or rule.
            self._restore_rules(ctx)
        keeper = FlinkKeeper(self._state, ctx)
        for event in self._detection.wake(ctx.get_current_key(), timestamp, keeper, detect_in_us):
            yield self._emit(event)

    def process_broadcast_element(self, row: Any, ctx: Any) -> Iterator[Any]:
        """A rule record; a null body is a deletion (a tombstone in the compacted topic)."""
        if not self._restored_rules:
            self._restore_rules(ctx)
        rule_id, body = row[0], row[1]
        changed = self._detection.take_rule(rule_id, body)
        if changed or body is None:
            ctx.get_broadcast_state(RULES_DESCRIPTOR).put(rule_id, DELETED if body is None else body)
        yield from ()

    def _restore_rules(self, ctx: Any) -> None:
        """After a restore the broadcast state holds rules that `first_rules` may not have."""
        for rule_id, body in ctx.get_broadcast_state(RULES_DESCRIPTOR).items():
            self._detection.take_rule(rule_id, None if body == DELETED else body)
        self._restored_rules = True

    def _read_rules(self) -> Iterable[AlarmRule] | None:
        """The rules in force now. After a failure frames are read anew from a checkpoint, and those that are
        read before the broadcast brings a rule that came since would pass unjudged by it.
        """
        try:
            return read_rules(self._bootstrap, RULES_TIMEOUT_S).values()
        except TopicError as error:
            _log.error("rules-not-read", reason=str(error))
            return None

    def _emit(self, event: AlarmEvent) -> Row:
        event = msgspec.structs.replace(event, detect_out_us=time.time_ns() // 1000)
        if self._critical_path is not None:
            event = self._critical_path.publish(event)
        self._count_events.inc()
        fingerprint = {topics.HEADER_FINGERPRINT: ALARM_CODEC.fingerprint.encode()}
        return Row(event.device_id, ALARM_CODEC.encode(event), fingerprint)

    def _reject(self, body: bytes, ctx: Any, reason: str, received_us: int) -> tuple[OutputTag, Row]:
        headers = {
            topics.HEADER_REASON: reason.encode(),
            topics.HEADER_SOURCE: f"kafka:{topics.TELEMETRY_RAW}".encode(),
            topics.HEADER_RECEIVED_TIME: str(received_us // 1000).encode(),
        }
        return REJECTED, Row(ctx.get_current_key(), body, headers)

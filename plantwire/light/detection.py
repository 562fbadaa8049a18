"""Frames and rules → alarm events: what the job alarm-detection does, in one process.

In: `device.telemetry.raw`, `alarms.rules`. Out: `alarms.fire`, the dead-letter topic; critical events to
Redis at once.
Guarantees: rules are in force before the first frame; an event is on its way before anything is saved.
Not here: how frames become alarms (`domain.plant_detection`), what is saved when (`engine`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import structlog

from plantwire.domain.plant_detection import PlantDetection
from plantwire.light.engine import TICK_S
from plantwire.light.kafka_source import Cluster, KafkaSource, ReadUp, Record
from plantwire.light.metrics import LightMetrics
from plantwire.light.outlet import Outlet
from plantwire.light.states import States
from plantwire.platform.alarm_log import recent_alarms_if_readable
from plantwire.platform.critical_path import CriticalPath
from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC
from plantwire.schemas.records import AlarmEvent

NAME: Final = "alarm-detection"
TOPICS: Final = (topics.TELEMETRY_RAW, topics.ALARMS_RULES, topics.ALARMS_FIRE, topics.TELEMETRY_DLQ)
"""What must be there before it begins."""
BODY_MAX_BYTES: Final = 900_000
"""Of a dead letter: below what Kafka takes, with its headers."""

_FINGERPRINT: Final = {topics.HEADER_FINGERPRINT: ALARM_CODEC.fingerprint.encode()}
_log = structlog.get_logger(__name__)


class Detection:
    """An `engine.Work`; see there."""

    topics: tuple[str, ...] = (topics.TELEMETRY_RAW,)

    def __init__(
        self,
        bootstrap: str,
        source: KafkaSource,
        outlet: Outlet,
        critical_path: CriticalPath,
        metrics: LightMetrics,
        stopping: threading.Event,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._bootstrap = bootstrap
        self._source = source
        self._outlet = outlet
        self._critical_path = critical_path
        self._metrics = metrics
        self._stopping = stopping
        self._clock_us = clock_us
        self._count_events = metrics.counter("alarm_events")

    def prepare(self, cluster: Cluster, states: States, windows: bytes | None) -> bool:  # noqa: ARG002
        """Read the rules to their end; wake every device that has a state, once frames are read."""
        opened_ms = self._clock_us() // 1000
        self._states = states
        self._detection = PlantDetection(
            (), recent_alarms_if_readable(self._bootstrap), opened_ms, self._metrics.counter
        )
        for device_id in states.packed:
            states.timers.set(device_id, opened_ms)
        partitions = cluster.partitions[topics.ALARMS_RULES]
        self._source.begin(topics.ALARMS_RULES, partitions)
        waiting = set(partitions)
        while waiting and not self._stopping.is_set():
            for came in self._source.take(TICK_S):
                if isinstance(came, ReadUp):
                    waiting.discard(came.partition)
                else:
                    self.take(came)
        return not waiting

    def add(self, topic: str, partition: int) -> None:
        """Nothing is kept by partition."""

    def read_up(self, topic: str, partition: int) -> None:
        """Detection waits for nothing."""

    def take(self, record: Record) -> None:
        """A frame or a rule."""
        if record.topic == topics.ALARMS_RULES:
            self._detection.take_rule(record.key or "", record.body)
            return
        detect_in_us = self._clock_us()
        if self._detection.passes(record.body, detect_in_us):
            return
        body = record.body or b""
        judged = self._detection.judge(body, record.key, self._states.of(record.key or ""), detect_in_us)
        if judged.rejected is not None:
            self._reject(record, judged.rejected, detect_in_us)
        self._tell(judged.events)

    def wake(self, device_id: str, timer_ms: int) -> None:
        """See `PlantDetection.wake`."""
        self._tell(self._detection.wake(device_id, timer_ms, self._states.of(device_id), self._clock_us()))

    def tick(self) -> None:
        """Hear what Kafka has acknowledged."""
        self._outlet.poll()

    @property
    def mark(self) -> int:
        """How many records were sent."""
        return self._outlet.sent

    def has_settled(self, mark: int) -> bool:
        """Whether Kafka has so many."""
        return self._outlet.has_settled(mark)

    def open_windows(self) -> bytes | None:
        """There are none."""
        return None

    def finish(self, timeout_s: float) -> bool:
        """Wait for Kafka."""
        return self._outlet.close(timeout_s)

    def close(self) -> None:
        """What was not sent is sent again after the next start."""
        self._outlet.close(0.0)

    def _tell(self, events: Iterable[AlarmEvent]) -> None:
        for event in events:
            told = self._critical_path.publish(msgspec.structs.replace(event, detect_out_us=self._clock_us()))
            self._outlet.send(topics.ALARMS_FIRE, told.device_id, ALARM_CODEC.encode(told), _FINGERPRINT)
            self._count_events.inc()

    def _reject(self, record: Record, reason: str, received_us: int) -> None:
        headers = {
            topics.HEADER_REASON: reason.encode(),
            topics.HEADER_SOURCE: f"kafka:{topics.TELEMETRY_RAW}".encode(),
            topics.HEADER_RECEIVED_TIME: str(received_us // 1000).encode(),
        }
        body = record.body or b""
        if len(body) > BODY_MAX_BYTES:
            headers[topics.HEADER_WHOLE_SIZE] = str(len(body)).encode()
        self._outlet.send(topics.TELEMETRY_DLQ, record.key, body[:BODY_MAX_BYTES], headers)

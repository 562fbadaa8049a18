"""Frames and alarm events → Redis: what the jobs live-state and telemetry-aggregation do, in one process.

In: `device.telemetry.raw`, `alarms.fire`. Out: Redis (`platform.live_state`, `platform.live_windows`).
Guarantees: a message or an alarm event is written before its record counts as taken; while Redis is away the
process waits for it, and only this one.
Not here: which values go out when (`domain.live_values`), which windows there are (`domain.live_windows`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
import redis
import structlog

from plantwire.domain.live_values import LiveMessage, LiveValues
from plantwire.domain.live_windows import WindowMaker, pack_open, unpack_open
from plantwire.light.kafka_source import Cluster, Record
from plantwire.light.metrics import LightMetrics
from plantwire.light.states import States
from plantwire.platform.alarm_refill import AlarmRefill
from plantwire.platform.health import Health
from plantwire.platform.live_alarms import LiveAlarmWriter
from plantwire.platform.live_writer import RedisWriter
from plantwire.platform.window_show import WindowShow
from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC, UndecodableError

NAME: Final = "live-state"
TOPICS: Final = (topics.TELEMETRY_RAW, topics.ALARMS_FIRE)
"""What must be there before it begins."""
REDIS: Final = "redis"
RETRY_FOR_S: Final = 1.0
"""How long before it is looked whether to stop."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class StoppedError(Exception):
    """Told to stop while Redis was away: what was in hand is done again after the next start."""


class LivePicture:
    """An `engine.Work`; see there."""

    topics: tuple[str, ...] = TOPICS

    def __init__(
        self,
        redis_url: str,
        refill: AlarmRefill,
        interval_ms: int,
        metrics: LightMetrics,
        health: Health,
        stopping: threading.Event,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._writer = RedisWriter(redis_url, RETRY_FOR_S)
        self._alarms = LiveAlarmWriter(self._writer, metrics.counter)
        self._show = WindowShow(redis_url, metrics.counter)
        self._refill = refill
        self._refills = False
        self._health = health
        self._stopping = stopping
        self._clock_us = clock_us
        self._counter = metrics.counter
        self._values = LiveValues(interval_ms, metrics.counter)

    def prepare(self, cluster: Cluster, states: States, windows: bytes | None) -> bool:  # noqa: ARG002
        """Set the timers that follow from the states."""
        self._states = states
        for device_id, packed in states.packed.items():
            for timer_ms in self._values.timers_of(packed):
                states.timers.set(device_id, timer_ms)
        self._windows = self._window_maker(windows)
        self._refill.start()
        self._refills = True
        self._health.report(REDIS, None)
        return True

    def add(self, topic: str, partition: int) -> None:
        """Windows wait for every partition of frames."""
        if topic == topics.TELEMETRY_RAW:
            self._windows.add_partition(partition)

    def read_up(self, topic: str, partition: int) -> None:
        """Windows wait no longer for one that has nothing."""
        if topic == topics.TELEMETRY_RAW:
            self._windows.read_up(partition)

    def take(self, record: Record) -> None:
        """A frame or an alarm event."""
        if record.topic == topics.ALARMS_FIRE:
            self._until_written(lambda: self._alarms.take(record.body, self._clock_us()))
            return
        now_ms = self._clock_us() // 1000
        try:
            frame = FRAME_CODEC.decode_fields(record.body or b"")
        except UndecodableError:
            # Detection reads the same record and sends it to the dead-letter topic.
            self._values.reject()
            return
        self._windows.take(frame, record.key, record.partition, now_ms)
        keeper = self._states.of(record.key or "")
        self._tell(self._values.take_fields(frame, record.key, keeper, now_ms))

    def wake(self, device_id: str, timer_ms: int) -> None:
        """See `LiveValues.wake`."""
        self._tell(self._values.wake(device_id, timer_ms, self._states.of(device_id)))

    def tick(self) -> None:
        """Show the windows that ended."""
        now_ms = self._clock_us() // 1000
        for window, end_ms, devices in self._windows.advance(now_ms):
            if devices:
                self._show.show(window, end_ms, devices, now_ms)

    @property
    def mark(self) -> int:
        """Nothing is under way: Redis has answered for all of it."""
        return 0

    def has_settled(self, mark: int) -> bool:  # noqa: ARG002
        """See `mark`."""
        return True

    def open_windows(self) -> bytes | None:
        """Windows that have not ended."""
        return pack_open(self._windows.saved())

    def finish(self, timeout_s: float) -> bool:  # noqa: ARG002
        """See `mark`."""
        return True

    def close(self) -> None:
        """End the refill of a Redis that lost its alarms."""
        if self._refills:
            self._refill.stop()

    def _tell(self, message: LiveMessage | None) -> None:
        if message is not None:
            self._until_written(lambda: self._writer.write(lambda live: live.publish_telemetry(*message)))

    def _until_written(self, step: Callable[[], T]) -> T:
        """Wait for Redis, for as long as it takes. Raises StoppedError."""
        while True:
            try:
                written = step()
            except redis.RedisError as error:
                self._health.report(REDIS, f"Redis is away: {error}")
                if self._stopping.is_set():
                    raise StoppedError from None
                continue
            self._health.report(REDIS, None)
            return written

    def _window_maker(self, packed: bytes | None) -> WindowMaker:
        try:
            return WindowMaker(self._counter, None if packed is None else unpack_open(packed))
        except msgspec.DecodeError as error:
            # Of another version. They are live only: the next ones are whole, and the database has them all.
            _log.warning("open-windows-not-read", reason=str(error))
            return WindowMaker(self._counter)

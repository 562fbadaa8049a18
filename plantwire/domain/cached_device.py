"""A device's detector with what need not survive a restart.

In: what a frame or a timer changes. Out: the same, for the next one.
Guarantees: what most frames leave behind costs two assignments; it is looked into when someone asks.
Not here: state that is stored (`domain.plant_detection`).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from plantwire.domain.detection import DeviceDetector
from plantwire.domain.listening import Ear, Heard
from plantwire.schemas.frame_layout import FrameReading
from plantwire.schemas.records import AlarmEvent


class CachedDevice:
    """`logged` are the last events of the device's alarms in the log; `ear` see `domain.listening`."""

    __slots__ = (
        "_ear",
        "_logged",
        "clock_ahead_ms",
        "detector",
        "generation",
        "passed",
        "passed_us",
        "settle_after_ms",
        "timer_ms",
    )

    def __init__(self, detector: DeviceDetector, generation: int, logged: list[AlarmEvent], ear: Ear) -> None:
        self.detector = detector
        self.generation = generation
        # How far the device's clock is ahead of ours, for timers, which run on ours.
        self.clock_ahead_ms = 0
        self.timer_ms = 0
        self._ear = ear
        # The newest frame that passed by since, and when.
        self.passed: FrameReading | None = None
        self.passed_us = 0
        # Newest first, taken from the end; until its event time has passed, a replay may yet tell it.
        self._logged = sorted(logged, key=lambda event: event.event_time_ms, reverse=True)
        self._set_settle_after()

    @property
    def ear(self) -> Ear:
        """What the device's frames say of its clock, those included that passed by."""
        if self.passed is not None:
            passed = self.passed
            self.passed = None
            self._ear.hear(Heard(passed.event_time_ms, passed.received_time_ms, self.passed_us // 1000))
        return self._ear

    def passed_of_log(self, event_now_ms: int) -> Iterator[AlarmEvent]:
        """The logged events that the device's time has passed, each once."""
        while self._logged and self._logged[-1].event_time_ms < event_now_ms:
            yield self._logged.pop()
        self._set_settle_after()

    def _set_settle_after(self) -> None:
        self.settle_after_ms: float = self._logged[-1].event_time_ms if self._logged else inf

"""One device, watched at the edge: the same evaluation as the cloud's, for frames of this process.

In: its frames in order of arrival, the rules in force, the time. Out: AlarmEvents, and the state to keep.
Guarantees: the same frames and rules in the same order give the same (alarm_id, revision) as the detection
job, since both ask `domain.detection`; most frames of a healthy device cost one look at their numbers.
Not here: timers, storage, and which devices there are (`detection`).
"""

from __future__ import annotations

from typing import Final

from plantwire.domain.detection import DeviceDetector
from plantwire.domain.device_state import DeviceState
from plantwire.domain.limits import NORMAL
from plantwire.domain.listening import Ear, Heard, look_in_ms
from plantwire.domain.packed_state import pack
from plantwire.domain.rule_book import RuleBook
from plantwire.schemas.records import QUALITY_GOOD, AlarmEvent, TelemetryFrame

# A device that keeps changing its set of metrics goes the long way: its shapes are not worth a memory.
_SHAPES_REMEMBERED: Final = 16


class DeviceWatch:
    """A device's detector with what need not survive a restart. Time arrives as arguments, ms."""

    __slots__ = (
        "_ear",
        "_generation",
        "_shapes",
        "clock_ahead_ms",
        "detector",
        "dirty",
        "diverged_order",
        "look_at_ms",
    )

    def __init__(
        self,
        device_id: str,
        book: RuleBook,
        since_ms: int,
        site: str = "",
        state: DeviceState | None = None,
    ) -> None:
        self.detector = DeviceDetector(device_id, book.for_device(device_id), state)
        self.detector.site = site
        self._generation = book.generation
        self._ear = Ear(since_ms)
        self._shapes: set[tuple[str, ...]] = set()
        self.clock_ahead_ms = 0
        """How far the device's clock is ahead of ours, for timers, which run on ours."""
        self.look_at_ms = 0
        """When the running timer ends; 0 where none runs."""
        self.diverged_order: int | None = None
        """Order of the last frame that the cloud may not have seen live; None once it knows the state."""
        self.dirty = False
        """Whether what is stored is older than the state."""

    @property
    def at_rest(self) -> bool:
        """Whether forgetting the device would change nothing."""
        running = self.look_at_ms or self.diverged_order is not None or self.dirty
        return not self.detector.state and not running

    def packed(self, frame: TelemetryFrame) -> bytes:
        """Site and state before `frame`, as it carries them."""
        times = (
            (metric.name, metric.event_time_ms or frame.event_time_ms)
            for metric in frame.metrics
            if metric.number is not None and metric.quality == QUALITY_GOOD
        )
        return pack(self.detector.site, self.detector.state_before(times), self._ear.clock_ahead_ms or 0)

    def take_rules(self, book: RuleBook, event_now_ms: int) -> list[AlarmEvent]:
        """Use the rules in force, where they changed: before a frame, and before its state is looked at."""
        if self._generation == book.generation:
            return []
        self._shapes.clear()
        return self._refresh(book, event_now_ms)

    def take(self, frame: TelemetryFrame, now_ms: int) -> list[AlarmEvent]:
        """Evaluate a live frame that arrived at `now_ms`."""
        event_ms = frame.event_time_ms
        names: list[str] = []
        numbers: list[float] = []
        texts: list[tuple[str, int]] = []
        own_times = False
        for metric in frame.metrics:
            if metric.quality != QUALITY_GOOD:
                continue
            if metric.number is not None:
                names.append(metric.name)
                numbers.append(metric.number)
                own_times = own_times or metric.event_time_ms is not None
            elif metric.text is not None and self.detector.watches_silence:
                texts.append((metric.name, metric.event_time_ms or event_ms))
        heard = Heard(event_ms, frame.received_time_ms, now_ms)
        if not own_times and not texts:
            shape = tuple(names)
            if self._knows(shape) and self.detector.passes(shape, numbers, event_ms):
                self._ear.hear(heard)
                return []
        if names:
            # A frame that only marks values stale or bad has the gateway's time, not the device's.
            self.clock_ahead_ms = event_ms - now_ms
        readings = [
            (metric.name, metric.number, metric.event_time_ms or event_ms)
            for metric in frame.metrics
            if metric.number is not None and metric.quality == QUALITY_GOOD
        ]
        forward_ms = self._ear.put_forward_ms(heard) if self.detector.watches_silence else 0
        steps = self.detector.clock.steps
        events = self.detector.take_readings(readings, event_ms, frame.site, now_ms, texts, forward_ms)
        if self.detector.clock.newest_ms == event_ms:
            self._ear.hear(heard, is_put_back=self.detector.clock.steps != steps)
        return events

    def look(self, at_ms: int, book: RuleBook, now_ms: int) -> list[AlarmEvent]:
        """The timer that was to end at `at_ms` ended: let delays take effect, miss data that stay away,
        forget what is over, clear what no rule asks for.
        """
        event_now_ms = at_ms + self.clock_ahead_ms
        until_ms = self._ear.silent_until_ms(0, now_ms)
        if self._generation == book.generation:
            return self.detector.run_timers(event_now_ms, until_ms)
        return self._refresh(book, event_now_ms, until_ms)

    def silence_in_ms(self, now_ms: int) -> float:
        """In how many ms silence is to be asked for."""
        return look_in_ms(self.detector.silences.look_ms, self._ear.silent_until_ms(0, now_ms))

    def _refresh(
        self, book: RuleBook, event_now_ms: int, silent_until_ms: int | None = None
    ) -> list[AlarmEvent]:
        self._generation = book.generation
        rules = book.for_device(self.detector.device_id)
        return self.detector.take_rules(rules, event_now_ms, silent_until_ms)

    def _knows(self, shape: tuple[str, ...]) -> bool:
        """The first frame of a shape, and the first under new rules, goes the long way, as it does in the
        job: the two ways remember different metrics' times.
        """
        if shape in self._shapes:
            return True
        if len(self._shapes) < _SHAPES_REMEMBERED:
            self._shapes.add(shape)
        return False


def lasting(state: DeviceState) -> DeviceState:
    """What is kept over a restart: not for which data there is a wait. While the gateway was away nothing
    could come, so the wait begins anew with the first value; the cloud goes on with its own.
    """
    return {
        key: tracked for key, tracked in state.items() if not tracked.silence or tracked.limit.level != NORMAL
    }


def is_same_but_for_times(before: DeviceState, after: DeviceState) -> bool:
    """Whether two states differ only in how new the values were that they judged."""
    return before.keys() == after.keys() and all(
        tracked.limit == after[key].limit and tracked.alarm == after[key].alarm
        for key, tracked in before.items()
    )

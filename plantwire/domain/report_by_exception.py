"""Report by exception for one device: which of its values are worth sending on.

In: a device's live frames in order of arrival; per metric a deadband and the alarm rules. Out: the frame with
what is worth it, or nothing.
Guarantees: alarm detection finds the same alarms, at the same event times, in what goes on as in everything.
What is left out lies where every limit of every rule is normal, deadbands included, after values that were
there long enough for every off-delay, on a device of which nothing else is in alarm. A late value brings
along what makes it late: the newer value that was left out, and the newest time of the device. (A clock that
is put back by more than `MAX_LATE_MS` may be believed a frame later; a value of a frame that is too late, but
with a time of its own that is not, may be judged.) The first value of a metric, another
quality or text, a change between 0 and 1, and a value after `max_silence_ms` always go on. Where a rule is
about data that stay away, its metrics have no deadband, and of each frame of the device at least one good
value goes on, since its time shows how long the others are missing.
Not here: memory for many devices (`gateway.report_by_exception`), detection (`domain.detection`).

A deadband around the last value that went on, with a maximum time, is the exception reporting of plant
historians; OPC UA calls it a deadband of a data change filter (Part 4, 7.22.2).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from math import inf
from typing import Final, NamedTuple

import msgspec

from plantwire.domain.admission import is_too_far_ahead
from plantwire.domain.device_clock import MAX_LATE_MS, DeviceClock
from plantwire.domain.rule_book import CompiledRule
from plantwire.schemas.records import QUALITY_GOOD, Metric, TelemetryFrame

METRICS_PER_DEVICE_MAX: Final = 10_000
"""A device with more is not thinned."""
BROUGHT_MAX_BYTES: Final = 120_000
"""What late values bring along at most: with it, the largest frame that a gateway takes still fits a Kafka
record.
"""
_READING_BYTES: Final = 40
"""One number as Avro, without its name."""
_CHARACTER_BYTES: Final = 4


class Deadband(NamedTuple):
    """How far a value may be from the last one that went on and still not be worth sending: the larger of
    both.
    """

    absolute: float = 0.0
    percent: float = 0.0
    """Of the last value that went on."""
    max_silence_ms: int = 60_000
    """A value at least so long after the last one that went on is sent whatever it is."""


class Calm(NamedTuple):
    """Where the rules of a metric have nothing to say."""

    low: float
    high: float
    """From `low` to `high` every limit is normal, whatever it was before."""
    settle_ms: int
    """How long values have to stay there until no off-delay runs."""


def calm_of(rules: Iterable[CompiledRule]) -> Calm | None:
    """Where all of `rules` are normal; None where there are none."""
    low, high, settle_ms, any_rule = -inf, inf, 0, False
    for compiled in rules:
        any_rule = True
        settle_ms = max(settle_ms, compiled.rule.off_delay_ms)
        for limit in compiled.limits:
            low, high = max(low, limit.below + limit.deadband), min(high, limit.above - limit.deadband)
    return Calm(low, high, settle_ms) if any_rule else None


class DeadbandBook:
    """Deadbands by globs on device and metric; the first that matches both counts."""

    def __init__(self, entries: Iterable[tuple[str, str, Deadband]]) -> None:
        self._entries = tuple(
            (re.compile(fnmatch.translate(devices)), re.compile(fnmatch.translate(metrics)), deadband)
            for devices, metrics, deadband in entries
        )

    def for_device(self, device_id: str) -> Callable[[str], Deadband | None] | None:
        """The deadbands of a device by metric name; None where it has none."""
        found = [(metrics, band) for devices, metrics, band in self._entries if devices.match(device_id)]
        if not found:
            return None
        return lambda metric: next((band for metrics, band in found if metrics.match(metric)), None)


class MetricPlan(NamedTuple):
    """What is known of a metric beforehand."""

    deadband: Deadband | None
    """None: every value goes on."""
    calm: Calm | None


def is_change(deadband: Deadband, last: Metric, metric: Metric) -> bool:
    """Whether `metric` says something that `last`, the last one that went on, did not."""
    if metric.quality != last.quality:
        return True
    if metric.number is None or last.number is None:
        return metric.number is not last.number or metric.text != last.text
    if metric.number == last.number:
        return False
    difference = abs(metric.number - last.number)
    if difference == 1.0 and metric.number in (0.0, 1.0) and last.number in (0.0, 1.0):
        return True  # a boolean
    # Written so that what is no number counts as a change.
    return not difference <= max(deadband.absolute, deadband.percent / 100 * abs(last.number))


class _Memory:
    """What is remembered of one metric."""

    __slots__ = (
        "calm_since_ms",
        "held",
        "held_ms",
        "newest_ms",
        "plan",
        "settled",
        "told",
        "told_at",
        "told_ms",
    )

    def __init__(self, plan: MetricPlan) -> None:
        self.plan = plan
        self.newest_ms = 0
        # The last value that went on, its event time and its arrival; None before the first.
        self.told: Metric | None = None
        self.told_ms = self.told_at = 0
        # The newest value that was left out since, where alarm detection would have noted it.
        self.held: Metric | None = None
        self.held_ms = 0
        # Since when all values were calm; None before the first number, and while they are not.
        self.calm_since_ms: int | None = None
        self.settled = True

    def note_told(self, metric: Metric, event_ms: int, now_ms: int) -> None:
        self.told, self.told_ms, self.told_at = metric, event_ms, now_ms
        self.held = None

    def is_news(self, metric: Metric, event_ms: int, now_ms: int) -> bool:
        deadband, told = self.plan.deadband, self.told
        return (
            deadband is None
            or told is None
            or event_ms - self.told_ms >= deadband.max_silence_ms
            or now_ms - self.told_at >= deadband.max_silence_ms
            or is_change(deadband, told, metric)
        )


class DeviceReports:
    """One device. `plan_of` gives a metric's plan, None for a metric without deadband and rules; `is_awaited`
    is whether any rule is about data of the device that stay away.
    """

    __slots__ = (
        "_clock",
        "_is_awaited",
        "_is_full",
        "_memories",
        "_plan_of",
        "_told_ms",
        "_unsettled",
        "left_out",
    )

    def __init__(self, plan_of: Callable[[str], MetricPlan | None], *, is_awaited: bool = False) -> None:
        self._plan_of = plan_of
        self._is_awaited = is_awaited
        self._clock = DeviceClock()
        self._memories: dict[str, _Memory | None] = {}
        # Event time of the newest frame that went on and that detection takes the device's time from.
        self._told_ms = 0
        # How many metrics are, or may be, in alarm.
        self._unsettled = 0
        self._is_full = False
        self.left_out = 0
        """How many values were left out, for a counter."""

    def __len__(self) -> int:
        """How many metrics are remembered."""
        return len(self._memories)

    def take(self, frame: TelemetryFrame) -> TelemetryFrame | None:
        """The frame with what is worth sending on, perhaps the frame itself; None where nothing is."""
        frame_ms, now_ms = frame.event_time_ms, frame.received_time_ms
        if frame.historical or is_too_far_ahead(frame_ms, now_ms):
            return frame
        if not self._moves_clock(frame.metrics):
            # Detection passes over the whole frame, its time included.
            return self._take_unjudged(frame)
        newest_ms = self._clock.newest_ms
        step_ms = self._clock.admit(frame_ms, now_ms)
        if step_ms is None:
            # Not judged, wherever it goes; but it must look as late there as it is.
            if frame_ms <= self._told_ms - MAX_LATE_MS:
                return frame
            return self._emit(frame, frame.metrics, [], newest_ms)
        if step_ms:
            self._memories.clear()
            self._unsettled = self._told_ms = newest_ms = 0
        whole = bool(self._unsettled) or self._is_full or bool(frame.edge_state)
        kept: list[Metric] = []
        left: list[tuple[_Memory, Metric, int]] = []
        brought: list[Metric] = []
        for metric in frame.metrics:
            memory = self._memory(metric.name)
            event_ms = metric.event_time_ms or frame_ms
            if memory is None:
                kept.append(metric)
            elif event_ms < memory.newest_ms:
                if memory.held is not None and event_ms < memory.held_ms and _is_judged(metric):
                    brought.append(_timed(memory.held, memory.held_ms))
                    memory.held = None
                self._judge_late(memory, metric, event_ms)
                kept.append(metric)
            elif self._clock.is_too_late(event_ms):
                kept.append(metric)
            else:
                memory.newest_ms = event_ms
                self._judge(memory, metric, event_ms)
                if memory.is_news(metric, event_ms, now_ms):
                    memory.note_told(metric, event_ms, now_ms)
                    kept.append(metric)
                else:
                    left.append((memory, metric, event_ms))
            # At once: a further value of the same frame may settle what this one unsettled.
            whole = whole or self._unsettled > 0
        newest_ms = max(newest_ms, frame_ms)
        if whole:
            for memory, metric, event_ms in left:
                memory.note_told(metric, event_ms, now_ms)
            return self._emit(frame, frame.metrics, brought, newest_ms)
        if self._is_awaited and not any(_is_good(metric) for metric in kept):
            sign = next((each for each in left if _is_good(each[1])), None)
            if sign is not None:
                left.remove(sign)
                memory, metric, event_ms = sign
                memory.note_told(metric, event_ms, now_ms)
                kept.append(metric)
        self.left_out += len(left)
        for memory, metric, event_ms in left:
            if memory.plan.calm is not None and _is_judged(metric):
                memory.held, memory.held_ms = metric, event_ms
        if not kept:
            return None
        return self._emit(frame, tuple(kept) if left else frame.metrics, brought, newest_ms)

    def _take_unjudged(self, frame: TelemetryFrame) -> TelemetryFrame | None:
        """A frame that says nothing to alarm detection, nor anything of the device's clock."""
        whole = bool(self._unsettled) or self._is_full or bool(frame.edge_state)
        kept: list[Metric] = []
        for metric in frame.metrics:
            memory = self._memory(metric.name)
            event_ms = metric.event_time_ms or frame.event_time_ms
            if memory is None or event_ms < memory.newest_ms:
                kept.append(metric)
                continue
            memory.newest_ms = event_ms
            if whole or memory.is_news(metric, event_ms, frame.received_time_ms):
                memory.note_told(metric, event_ms, frame.received_time_ms)
                kept.append(metric)
        left_out = len(frame.metrics) - len(kept)
        self.left_out += left_out
        if not left_out:
            return frame
        return msgspec.structs.replace(frame, metrics=tuple(kept)) if kept else None

    def _moves_clock(self, metrics: Iterable[Metric]) -> bool:
        """Whether detection takes the device's time from a frame of these."""
        says = _is_good if self._is_awaited else _is_judged
        return any(says(metric) for metric in metrics)

    def forget_told(
        self, plan_of: Callable[[str], MetricPlan | None] | None = None, *, is_awaited: bool = False
    ) -> None:
        """Report every metric's next value: what went on did not get through, or the plans are others."""
        self._unsettled = 0
        if plan_of is not None:
            self._plan_of = plan_of
            self._is_awaited = is_awaited
            self._memories = {
                name: memory
                for name, memory in self._memories.items()
                if memory is not None and self._plan_again(memory, name)
            }
        for memory in self._memories.values():
            if memory is not None:
                memory.told, memory.calm_since_ms, memory.settled = None, None, True

    def _plan_again(self, memory: _Memory, name: str) -> bool:
        plan = self._plan_of(name)
        if plan is not None:
            memory.plan = plan
        return plan is not None

    def _memory(self, name: str) -> _Memory | None:
        try:
            return self._memories[name]
        except KeyError:
            pass
        if len(self._memories) >= METRICS_PER_DEVICE_MAX:
            self._is_full = True
            return None
        plan = self._plan_of(name)
        memory = self._memories[name] = _Memory(plan) if plan is not None else None
        return memory

    def _judge(self, memory: _Memory, metric: Metric, event_ms: int) -> None:
        """Follow whether a metric may be in alarm, by a value that is not late."""
        calm = memory.plan.calm
        if calm is None or not _is_judged(metric):
            return
        if not calm.low <= (metric.number or 0.0) <= calm.high:
            self._unsettle(memory)
            memory.calm_since_ms = None
            return
        if memory.calm_since_ms is None:
            # Also the first value of all: an alarm may be active from before this began.
            self._unsettle(memory)
            memory.calm_since_ms = event_ms
        if not memory.settled and event_ms - memory.calm_since_ms >= calm.settle_ms:
            memory.settled = True
            self._unsettled -= 1

    def _judge_late(self, memory: _Memory, metric: Metric, event_ms: int) -> None:
        """A late value may raise an alarm, and never clears one."""
        calm = memory.plan.calm
        if calm is None or not _is_judged(metric) or self._clock.is_too_late(event_ms):
            return
        if not calm.low <= (metric.number or 0.0) <= calm.high:
            self._unsettle(memory)
            memory.calm_since_ms = None

    def _unsettle(self, memory: _Memory) -> None:
        if memory.settled:
            memory.settled = False
            self._unsettled += 1

    def _emit(
        self, frame: TelemetryFrame, metrics: tuple[Metric, ...], brought: list[Metric], newest_ms: int
    ) -> TelemetryFrame:
        """The frame of `metrics`; with the device's newest time where that has not gone on before, since it
        is what tells how late a value is.
        """
        frame_ms = frame.event_time_ms
        if self._moves_clock(metrics):
            if frame_ms < newest_ms and self._told_ms < newest_ms:
                metrics = tuple([_timed(metric, metric.event_time_ms or frame_ms) for metric in metrics])
                frame_ms = newest_ms
            self._told_ms = max(self._told_ms, frame_ms)
        if brought and _size_bytes(brought) <= BROUGHT_MAX_BYTES:
            metrics = (*brought, *metrics)
        if metrics is frame.metrics:
            return frame
        return msgspec.structs.replace(frame, event_time_ms=frame_ms, metrics=metrics)


def _is_judged(metric: Metric) -> bool:
    """Whether alarm detection looks at it."""
    return metric.number is not None and metric.quality == QUALITY_GOOD


def _is_good(metric: Metric) -> bool:
    """Whether it is data, for those who wait for any."""
    return metric.quality == QUALITY_GOOD and (metric.number is not None or metric.text is not None)


def _size_bytes(numbers: list[Metric]) -> int:
    return sum(_CHARACTER_BYTES * len(metric.name) + _READING_BYTES for metric in numbers)


def _timed(metric: Metric, event_ms: int) -> Metric:
    return msgspec.structs.replace(metric, event_time_ms=event_ms)

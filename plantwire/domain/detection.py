"""Alarm detection for one device: values in, alarm events out.

In: a device's state, a frame's values, the rules that apply.
Out: the state after, AlarmEvents, and when to look again if nothing comes.
Guarantees: an event only on a change of level; a replay of the same frames from the same state gives the
same (alarm_id, revision) pairs.
Not here: Flink, Kafka, Redis (`udfs`); one rule on one value (`domain.limits`); data that stay away
(`domain.missing`); ids, revisions and counting (`domain.alarm_events`); lateness (`domain.device_clock`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from math import inf, isfinite
from typing import Final, TypedDict

from plantwire.domain.alarm_events import DEDUP_WINDOW_MS, Alarm, announce, withdraw
from plantwire.domain.device_clock import MAX_LATE_MS, DeviceClock
from plantwire.domain.device_state import DeviceState, Key, Tracked
from plantwire.domain.limits import NORMAL, LevelChange, LimitState, evaluate, expire
from plantwire.domain.limits import next_due_ms as next_limit_due_ms
from plantwire.domain.missing import SilenceWatch
from plantwire.domain.rule_book import WHOLE_DEVICE, DeviceRules
from plantwire.schemas.records import QUALITY_GOOD, AlarmEvent, AlarmRule

__all__ = ["DeviceDetector", "DeviceState", "FrameFields", "Key", "MetricFields", "Tracked", "next_due_ms"]

# A device has a few sets of metrics that it sends together; one that has many is not worth a memory.
_BANDS_REMEMBERED: Final = 64


class FrameFields(TypedDict):
    """What detection reads of a decoded TelemetryFrame."""

    device_id: str
    site: str
    event_time_ms: int
    metrics: Sequence[MetricFields]


class MetricFields(TypedDict):
    """What detection reads of a decoded Metric."""

    name: str
    number: float | None
    text: str | None
    quality: int
    event_time_ms: int | None


Reading = tuple[str, float, int]
"""(metric, number, event time in ms), of good quality."""


class DeviceDetector:
    """The alarms of one device. Fed with its frames in order of arrival.

    `state` is replaced, never changed in place: whoever stores it sees by identity whether it must.
    """

    __slots__ = (
        "_at_rest",
        "_bands",
        "_rules",
        "_seen_state",
        "clock",
        "device_id",
        "silences",
        "site",
        "state",
    )

    def __init__(self, device_id: str, rules: DeviceRules, state: DeviceState | None = None) -> None:
        self.device_id = device_id
        self.site = ""
        self.state: DeviceState = state or {}
        self.clock = DeviceClock()
        self.silences = SilenceWatch(device_id, rules, self.clock)
        self._rules = rules
        # Whether `_seen_state`, the state last looked at, holds nothing but alarms that are over.
        self._at_rest = False
        self._seen_state: DeviceState | None = None
        self._bands: dict[tuple[str, ...], tuple[tuple[float, float], ...]] = {}

    @property
    def watches_silence(self) -> bool:
        """Whether any rule of the device is about data that stay away."""
        return self._rules.watch_silence

    def take_rules(
        self, rules: DeviceRules, event_now_ms: int, silent_until_ms: int | None = None
    ) -> list[AlarmEvent]:
        """Use other rules from now on; alarms of rules that no longer apply clear, at `event_now_ms`.
        Otherwise as `run_timers`.
        """
        self._rules = rules
        self._bands.clear()
        self.silences.take_rules(rules)
        return self.run_timers(event_now_ms, silent_until_ms)

    def adopt(self, state: DeviceState, event_ms: int) -> None:
        """Go on from a state in which the times of silences are exact, as `exact_state` gives it, before a
        frame of `event_ms`.
        """
        self.state = state
        for (_, metric), tracked in state.items():
            if not tracked.silence:
                continue
            # It comes from outside: it must not make this frame look too late.
            newest_ms = min(tracked.newest_ms, event_ms + MAX_LATE_MS - 1)
            if metric == WHOLE_DEVICE:
                self.clock.newest_ms = max(self.clock.newest_ms, newest_ms)
            else:
                self.clock.note(metric, newest_ms)
        self.silences.look_again()

    def exact_state(self) -> DeviceState:
        """The state to go on from in another detector (`adopt`)."""
        return self.silences.exact(self.state) if self.watches_silence else self.state

    def state_before(self, times: Iterable[tuple[str, int]]) -> DeviceState:
        """The state to judge a frame from in another detector, one that may not have seen the newest values:
        of what is late in it, (metric, event time), the newest time that was seen is there too.
        """
        state = self.exact_state()
        after = state
        for metric, event_ms in times:
            newest_ms = self.clock.newest_of(metric)
            if event_ms >= newest_ms:
                continue
            for compiled in self._rules.for_metric(metric):
                key = (compiled.rule.rule_id, metric)
                if key not in after:
                    after = dict(state) if after is state else after
                    after[key] = Tracked(LimitState(), None, newest_ms)
        return after

    def passes(self, names: tuple[str, ...], numbers: Sequence[float], event_ms: int) -> bool:
        """Whether a frame changes nothing: no alarm is active and no delay runs, every number is where no
        rule is violated, and no other data are missed. Most frames of a healthy plant end here. `names` are
        those of `numbers`.
        """
        if self.state is not self._seen_state:
            self._seen_state = self.state
            self._at_rest = not any(
                tracked.limit.parts or tracked.limit.level != NORMAL for tracked in self.state.values()
            )
        if not self._at_rest or event_ms >= self.silences.look_ms:
            return False
        bands = self._bands.get(names)
        if bands is None:
            if self.silences.must_hear(names, self.state):
                return False
            bands = self._learn_bands(names)
        for number, (low, high) in zip(numbers, bands, strict=True):
            if not low <= number <= high:
                return False
        return self.clock.pass_by(names, event_ms)

    def take_frame(self, frame: FrameFields, now_ms: int, put_forward_ms: int = 0) -> list[AlarmEvent]:
        """Evaluate a frame's good numbers, which arrived at `now_ms`; other qualities are passed over, and
        text says only that data came. `put_forward_ms`: see `take_readings`.
        """
        frame_ms = frame["event_time_ms"]
        readings: list[Reading] = []
        texts: list[tuple[str, int]] = []
        for metric in frame["metrics"]:
            if metric["quality"] != QUALITY_GOOD:
                continue
            if metric["number"] is not None:
                readings.append((metric["name"], metric["number"], metric["event_time_ms"] or frame_ms))
            elif self._rules.watch_silence and metric["text"] is not None:
                texts.append((metric["name"], metric["event_time_ms"] or frame_ms))
        return self.take_readings(readings, frame_ms, frame["site"], now_ms, texts, put_forward_ms)

    def take_readings(
        self,
        readings: Sequence[Reading],
        frame_ms: int,
        site: str,
        now_ms: int,
        texts: Sequence[tuple[str, int]] = (),
        put_forward_ms: int = 0,
    ) -> list[AlarmEvent]:
        """Evaluate readings of a frame of `frame_ms`; `texts` are the (metric, event time) of its good texts,
        where silence is watched.

        Infinities and NaN are passed over, and so is what is too late (`domain.device_clock`). A frame
        without readings says nothing of the device's clock: one that marks values stale has its gateway's.
        `put_forward_ms` is how far the device's clock was put forward since its last frame.
        """
        events: list[AlarmEvent] = []
        if not readings and not texts:
            return events
        if put_forward_ms and self._rules.watch_silence:
            self.state = self.silences.put_forward(self.state, put_forward_ms)
        last_ms = self.clock.newest_ms and self.clock.newest_ms + put_forward_ms
        step_ms = self.clock.admit(frame_ms, now_ms)
        if step_ms is None:
            return events
        if step_ms:
            self.state = _rebased(self.state, step_ms, frame_ms)
            self.silences.look_again()
            last_ms += step_ms
        before = after = self.state
        heard: dict[str, int] = {}
        if self._rules.watch_silence:
            self.site = site
            after = self._hear(readings, texts, heard, events)
            after = self.silences.hear(after, WHOLE_DEVICE, last_ms, frame_ms, site, events)
        for name, value, event_ms in readings:
            found = self._rules.for_metric(name)
            if not found or not isfinite(value) or self.clock.is_too_late(event_ms):
                continue
            newest_ms = self.clock.newest_of(name)
            for compiled in found:
                key = (compiled.rule.rule_id, name)
                tracked = after.get(key)
                if tracked is None:
                    if compiled.safe_low <= value <= compiled.safe_high:
                        continue
                    tracked = Tracked(LimitState(), None, newest_ms)
                late = event_ms < max(tracked.newest_ms, newest_ms)
                limit, changes = evaluate(compiled, tracked.limit, value, event_ms, late=late)
                if after is before:
                    after = dict(before)
                self.site = site
                alarm = self._follow(compiled.rule, name, tracked.alarm, changes, events)
                _store(after, key, Tracked(limit, alarm, max(tracked.newest_ms, event_ms)), event_ms)
            self.clock.note(name, event_ms)
        for name, event_ms in heard.items():
            self.clock.note(name, event_ms)
        if self.clock.newest_ms >= self.silences.look_ms:
            after = self._sweep(after, self.clock.newest_ms, events)
        if after != before:
            self.state = after
        return events

    def _hear(
        self,
        readings: Sequence[Reading],
        texts: Sequence[tuple[str, int]],
        heard: dict[str, int],
        events: list[AlarmEvent],
    ) -> DeviceState:
        """What it means to those that wait for data that these came; their times go to `heard`."""
        state = self.state
        came = [(name, event_ms) for name, value, event_ms in readings if isfinite(value)]
        for name, event_ms in (*came, *texts):
            if not self._rules.silences_of(name) or self.clock.is_too_late(event_ms):
                continue
            last_ms = heard.get(name) or self.silences.seen_ms(name)
            state = self.silences.hear(state, name, last_ms, event_ms, self.site, events)
            heard[name] = max(last_ms, event_ms)
        return state

    def _sweep(self, state: DeviceState, until_ms: int, events: list[AlarmEvent]) -> DeviceState:
        after = self.silences.sweep(state, until_ms, self.site, events)
        if self.silences.has_quiet:
            # `passes` asks `must_hear` only of metrics that it has no bands of.
            self._bands.clear()
        return after

    def _learn_bands(self, names: tuple[str, ...]) -> tuple[tuple[float, float], ...]:
        bands = []
        for name in names:
            found = self._rules.for_metric(name)
            low = max((compiled.safe_low for compiled in found), default=-inf)
            high = min((compiled.safe_high for compiled in found), default=inf)
            if self._rules.silences_of(name):
                # What is not finite is no value, and must not pass for one.
                low, high = max(low, -sys.float_info.max), min(high, sys.float_info.max)
            bands.append((low, high))
        if len(self._bands) >= _BANDS_REMEMBERED:
            self._bands.clear()
        self._bands[names] = tuple(bands)
        return self._bands[names]

    def run_timers(self, event_now_ms: int, silent_until_ms: int | None = None) -> list[AlarmEvent]:
        """Let delays that ended by `event_now_ms` take effect, forget what is over, and clear the
        alarms of rules that no longer apply. `silent_until_ms` is until when, by the device's clock, it is
        known that nothing came but what was taken (`domain.listening`); None: it is not asked.
        """
        events: list[AlarmEvent] = []
        after = dict(self.state)
        for key, tracked in self.state.items():
            rule_id, metric = key
            if tracked.silence and self.silences.silence_of(key) is not None:
                continue
            compiled = next((c for c in self._rules.for_metric(metric) if c.rule.rule_id == rule_id), None)
            if compiled is None or tracked.silence:
                del after[key]
                if tracked.limit.level != NORMAL and tracked.alarm is not None:
                    events.append(
                        withdraw(tracked.alarm, rule_id, self.device_id, self.site, metric, event_now_ms)
                    )
                continue
            limit, changes = expire(compiled, tracked.limit, event_now_ms)
            alarm = self._follow(compiled.rule, metric, tracked.alarm, changes, events)
            _store(after, key, Tracked(limit, alarm, tracked.newest_ms), event_now_ms)
        if silent_until_ms is not None and silent_until_ms >= self.silences.look_ms:
            after = self._sweep(after, silent_until_ms, events)
        if after != self.state:
            self.state = after
        return events

    def _follow(
        self,
        rule: AlarmRule,
        metric: str,
        alarm: Alarm | None,
        changes: tuple[LevelChange, ...],
        events: list[AlarmEvent],
    ) -> Alarm | None:
        for change in changes:
            alarm, event = announce(rule, self.device_id, self.site, metric, alarm, change)
            events.append(event)
        return alarm


def next_due_ms(state: DeviceState) -> int | None:
    """The event time at which `run_timers` next has something to do; None when never."""
    due: int | None = None
    for limit, alarm, _, silence in state.values():
        if silence:
            continue  # see `SilenceWatch.look_ms`
        moment = next_limit_due_ms(limit)
        if not moment:
            if limit.level != NORMAL or alarm is None:
                continue
            moment = alarm.raise_ms + DEDUP_WINDOW_MS
        due = moment if due is None else min(due, moment)
    return due


def _store(state: DeviceState, key: Key, tracked: Tracked, event_now_ms: int) -> None:
    """Store what must be remembered and drop what need not: the clearing rule of this state."""
    alarm = tracked.alarm
    if tracked.limit.parts or (alarm is not None and event_now_ms < alarm.raise_ms + DEDUP_WINDOW_MS):
        state[key] = tracked
    else:
        state.pop(key, None)


def _rebased(state: DeviceState, step_ms: int, event_ms: int) -> DeviceState:
    """The state on a clock that was put back: running delays keep what they have left."""
    rebased = {}
    for key, tracked in state.items():
        if tracked.silence:
            # What was silent until the clock was put back has been so for as long afterwards.
            rebased[key] = tracked._replace(newest_ms=tracked.newest_ms + step_ms)
            continue
        limit, alarm = tracked.limit, tracked.alarm
        parts = tuple(
            part._replace(due_ms=part.due_ms + step_ms) if part.due_ms else part for part in limit.parts
        )
        # A millisecond before, so that the value at `event_ms` does not look like one already told.
        changed_ms = min(limit.changed_ms, event_ms - 1)
        rebased[key] = Tracked(LimitState(limit.level, changed_ms, parts), alarm, 0)
    return rebased

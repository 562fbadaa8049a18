"""Alarm detection for one device: values in, alarm events out.

In: a device's state, a frame's values, the rules that apply.
Out: the state after, AlarmEvents, and when to look again if nothing comes.
Guarantees: an event only on a change of level; ids follow from device, rule, metric and raise time,
revisions count up, so a replay produces the same (alarm_id, revision) pairs. Raises of the same device
and message within 60 s of the first are one alarm, counted.
Not here: clocks, Flink, Kafka, Redis (`udfs`); one rule on one value (`domain.limits`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from math import inf, isfinite
from typing import Final, NamedTuple, TypedDict

from plantwire.domain.limits import NORMAL, LevelChange, LimitState, evaluate, expire
from plantwire.domain.limits import next_due_ms as next_limit_due_ms
from plantwire.domain.rule_book import DeviceRules
from plantwire.schemas.records import QUALITY_GOOD, AlarmEvent, AlarmKind, AlarmRule
from plantwire.schemas.severity import Severity

DEDUP_WINDOW_MS: Final = 60_000
# A device has a few sets of metrics that it sends together; one that has many is not worth a memory.
_BANDS_REMEMBERED: Final = 64


class Alarm(NamedTuple):
    """The alarm that a rule on a metric last raised; kept until it is cleared and its window is over."""

    alarm_id: str
    revision: int
    raise_ms: int
    raises: int
    severity: int


class Tracked(NamedTuple):
    """One rule on one metric of one device, while there is something to remember."""

    limit: LimitState
    alarm: Alarm | None


Key = tuple[str, str]
"""(rule id, metric)."""
DeviceState = dict[Key, Tracked]
"""What is remembered of a device; empty while all is normal."""


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
    quality: int
    event_time_ms: int | None


class DeviceDetector:
    """The alarms of one device. Fed with its frames in order of arrival.

    `state` is replaced, never changed in place: whoever stores it sees by identity whether it must.
    """

    __slots__ = (
        "_at_rest",
        "_bands",
        "_newest_ms",
        "_passed_ms",
        "_rules",
        "_seen_state",
        "device_id",
        "site",
        "state",
    )

    def __init__(self, device_id: str, rules: DeviceRules, state: DeviceState | None = None) -> None:
        self.device_id = device_id
        self.site = ""
        self.state: DeviceState = state or {}
        self._rules = rules
        # Whether `_seen_state`, the state last looked at, holds nothing but alarms that are over.
        self._at_rest = False
        self._seen_state: DeviceState | None = None
        # Event time of the newest value, per metric that has rules; what `passes` let by is folded in late.
        self._newest_ms: dict[str, int] = {}
        self._passed_ms: dict[tuple[str, ...], int] = {}
        self._bands: dict[tuple[str, ...], tuple[tuple[float, float], ...]] = {}

    def take_rules(self, rules: DeviceRules, now_ms: int) -> list[AlarmEvent]:
        """Use other rules from now on; alarms of rules that no longer apply clear, at `now_ms`."""
        self._rules = rules
        self._bands.clear()
        return self.run_timers(now_ms)

    def passes(self, names: tuple[str, ...], numbers: Sequence[float], event_ms: int) -> bool:
        """Whether a frame changes nothing: no alarm is active and no delay runs, and every number is where
        no rule is violated. Most frames of a healthy plant end here. `names` are those of `numbers`.
        """
        if self.state is not self._seen_state:
            self._seen_state = self.state
            self._at_rest = not any(limit.parts for limit, _ in self.state.values())
        if not self._at_rest:
            return False
        bands = self._bands.get(names)
        if bands is None:
            bands = self._learn_bands(names)
        for number, (low, high) in zip(numbers, bands, strict=True):
            if not low <= number <= high:
                return False
        if event_ms > self._passed_ms.get(names, 0):
            self._passed_ms[names] = event_ms
        return True

    def take_frame(self, frame: FrameFields) -> list[AlarmEvent]:
        """Evaluate a frame's good numbers; text and other qualities are passed over."""
        frame_ms = frame["event_time_ms"]
        return self.take_readings(
            (
                (metric["name"], metric["number"], metric["event_time_ms"] or frame_ms)
                for metric in frame["metrics"]
                if metric["number"] is not None and metric["quality"] == QUALITY_GOOD
            ),
            frame["site"],
        )

    def take_readings(self, readings: Iterable[tuple[str, float, int]], site: str) -> list[AlarmEvent]:
        """Evaluate (metric, number, event time) readings, all of good quality; infinities and NaN are
        passed over.
        """
        events: list[AlarmEvent] = []
        before = after = self.state
        for_metric = self._rules.for_metric
        newest_ms = self._newest_ms
        if self._passed_ms:
            self._fold_in_passed()
        for name, value, event_ms in readings:
            found = for_metric(name)
            if not found or not isfinite(value):
                continue
            late = event_ms < newest_ms.get(name, 0)
            if not late:
                newest_ms[name] = event_ms
            for compiled in found:
                tracked = after.get((compiled.rule.rule_id, name))
                if tracked is None:
                    if compiled.safe_low <= value <= compiled.safe_high:
                        continue
                    tracked = Tracked(LimitState(), None)
                limit, changes = evaluate(compiled, tracked.limit, value, event_ms, late=late)
                if limit is tracked.limit:
                    continue
                if after is before:
                    after = dict(before)
                self.site = site
                followed = self._follow(compiled.rule, name, tracked, limit, changes, events)
                _store(after, (compiled.rule.rule_id, name), followed, event_ms)
        self.state = after
        return events

    def _learn_bands(self, names: tuple[str, ...]) -> tuple[tuple[float, float], ...]:
        bands = []
        for name in names:
            found = self._rules.for_metric(name)
            low = max((compiled.safe_low for compiled in found), default=-inf)
            high = min((compiled.safe_high for compiled in found), default=inf)
            bands.append((low, high))
        if len(self._bands) >= _BANDS_REMEMBERED:
            self._bands.clear()
        self._bands[names] = tuple(bands)
        return self._bands[names]

    def _fold_in_passed(self) -> None:
        newest_ms = self._newest_ms
        for names, passed_ms in self._passed_ms.items():
            for name in names:
                if passed_ms > newest_ms.get(name, 0) and self._rules.for_metric(name):
                    newest_ms[name] = passed_ms
        self._passed_ms.clear()

    def run_timers(self, now_ms: int) -> list[AlarmEvent]:
        """Let delays that ended by `now_ms` (event time) take effect, forget what is over, and clear the
        alarms of rules that no longer apply.
        """
        events: list[AlarmEvent] = []
        after = dict(self.state)
        for key, tracked in self.state.items():
            rule_id, metric = key
            compiled = next((c for c in self._rules.for_metric(metric) if c.rule.rule_id == rule_id), None)
            if compiled is None:
                del after[key]
                if tracked.limit.level != NORMAL and tracked.alarm is not None:
                    events.append(
                        _withdraw(tracked.alarm, rule_id, self.device_id, self.site, metric, now_ms)
                    )
                continue
            limit, changes = expire(compiled, tracked.limit, now_ms)
            _store(after, key, self._follow(compiled.rule, metric, tracked, limit, changes, events), now_ms)
        if after != self.state:
            self.state = after
        return events

    def _follow(
        self,
        rule: AlarmRule,
        metric: str,
        tracked: Tracked,
        limit: LimitState,
        changes: tuple[LevelChange, ...],
        events: list[AlarmEvent],
    ) -> Tracked:
        alarm = tracked.alarm
        for change in changes:
            alarm, event = _announce(rule, self.device_id, self.site, metric, alarm, change)
            events.append(event)
        return Tracked(limit, alarm)


def next_due_ms(state: DeviceState) -> int | None:
    """The event time at which `run_timers` next has something to do; None when never."""
    due: int | None = None
    for limit, alarm in state.values():
        moment = next_limit_due_ms(limit)
        if not moment:
            if limit.level != NORMAL or alarm is None:
                continue
            moment = alarm.raise_ms + DEDUP_WINDOW_MS
        due = moment if due is None else min(due, moment)
    return due


def alarm_id_of(device_id: str, rule_id: str, metric: str, raise_ms: int) -> str:
    """The id of the alarm that a rule raised: 24 hex digits, the same on every replay."""
    name = "\0".join((device_id, rule_id, metric, str(raise_ms)))
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _store(state: DeviceState, key: Key, tracked: Tracked, now_ms: int) -> None:
    """Store what must be remembered and drop what need not: the clearing rule of this state."""
    limit, alarm = tracked
    quiet = not limit.parts
    if quiet and (alarm is None or now_ms >= alarm.raise_ms + DEDUP_WINDOW_MS):
        state.pop(key, None)
    else:
        state[key] = tracked


def _announce(
    rule: AlarmRule, device_id: str, site: str, metric: str, alarm: Alarm | None, change: LevelChange
) -> tuple[Alarm, AlarmEvent]:
    if change.before == NORMAL:
        kind = AlarmKind.RAISED
        if alarm is not None and 0 <= change.at_ms - alarm.raise_ms < DEDUP_WINDOW_MS:
            alarm = alarm._replace(
                revision=alarm.revision + 1, raises=alarm.raises + 1, severity=change.after
            )
        else:
            alarm = Alarm(
                alarm_id=alarm_id_of(device_id, rule.rule_id, metric, change.at_ms),
                revision=1,
                raise_ms=change.at_ms,
                raises=1,
                severity=change.after,
            )
    elif alarm is None:
        raise AssertionError("a level in force always has its alarm")
    elif change.after == NORMAL:
        kind = AlarmKind.CLEARED
        alarm = alarm._replace(revision=alarm.revision + 1)
    else:
        kind = AlarmKind.SEVERITY_CHANGED
        alarm = alarm._replace(revision=alarm.revision + 1, severity=change.after)
    event = AlarmEvent(
        alarm_id=alarm.alarm_id,
        revision=alarm.revision,
        rule_id=rule.rule_id,
        rule_version=rule.version,
        device_id=device_id,
        site=site,
        metric=metric,
        value=change.value,
        limit=change.limit,
        severity=alarm.severity,
        kind=kind,
        message=render_message(rule, device_id, site, metric, alarm.severity, change),
        event_time_ms=change.at_ms,
        raise_time_ms=alarm.raise_ms,
        count=alarm.raises,
    )
    return alarm, event


def _withdraw(alarm: Alarm, rule_id: str, device_id: str, site: str, metric: str, now_ms: int) -> AlarmEvent:
    return AlarmEvent(
        alarm_id=alarm.alarm_id,
        revision=alarm.revision + 1,
        rule_id=rule_id,
        rule_version=0,
        device_id=device_id,
        site=site,
        metric=metric,
        value=None,
        limit=None,
        severity=alarm.severity,
        kind=AlarmKind.CLEARED,
        message=f"{device_id} {metric}: rule {rule_id} no longer applies",
        event_time_ms=now_ms,
        raise_time_ms=alarm.raise_ms,
        count=alarm.raises,
    )


def render_message(
    rule: AlarmRule, device_id: str, site: str, metric: str, severity: int, change: LevelChange
) -> str:
    """Fill the rule's template. Plain replacement, so that no template can reach into an object."""
    message = rule.message
    for name, text in (
        ("{device}", device_id),
        ("{site}", site),
        ("{metric}", metric),
        ("{value}", f"{change.value:g}"),
        ("{limit}", "" if change.limit is None else f"{change.limit:g}"),
        ("{severity}", Severity(severity).name),
        ("{rule}", rule.rule_id),
    ):
        message = message.replace(name, text)
    return message

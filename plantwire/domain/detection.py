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
from collections.abc import Iterable
from typing import Final, NamedTuple

from plantwire.domain.limits import NORMAL, LevelChange, LimitState, evaluate, expire
from plantwire.domain.limits import next_due_ms as next_limit_due_ms
from plantwire.domain.rule_book import DeviceRules
from plantwire.schemas.records import AlarmEvent, AlarmKind, AlarmRule
from plantwire.schemas.severity import Severity

DEDUP_WINDOW_MS: Final = 60_000


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


class Sample(NamedTuple):
    """One number of a frame, good and finite."""

    metric: str
    value: float
    event_ms: int
    late: bool


def detect(
    state: DeviceState, device_id: str, site: str, rules: DeviceRules, samples: Iterable[Sample]
) -> tuple[DeviceState, list[AlarmEvent]]:
    """Evaluate a frame's samples. Returns `state` itself, unchanged, when nothing changed."""
    events: list[AlarmEvent] = []
    after = state
    for sample in samples:
        for compiled in rules.for_metric(sample.metric):
            key = (compiled.rule.rule_id, sample.metric)
            tracked = after.get(key)
            if tracked is None:
                if compiled.safe_low <= sample.value <= compiled.safe_high:
                    continue
                tracked = Tracked(LimitState(), None)
            limit, changes = evaluate(
                compiled, tracked.limit, sample.value, sample.event_ms, late=sample.late
            )
            if limit is tracked.limit:
                continue
            if after is state:
                after = dict(state)
            alarm = tracked.alarm
            for change in changes:
                alarm, event = _announce(compiled.rule, device_id, site, sample.metric, alarm, change)
                events.append(event)
            _keep(after, key, Tracked(limit, alarm), sample.event_ms)
    return after, events


def run_timers(
    state: DeviceState, device_id: str, site: str, rules: DeviceRules, now_ms: int
) -> tuple[DeviceState, list[AlarmEvent]]:
    """Let delays that ran out by `now_ms` (event time) take effect, forget what is over, and clear the
    alarms of rules that no longer apply.
    """
    events: list[AlarmEvent] = []
    after = dict(state)
    for key, tracked in state.items():
        rule_id, metric = key
        compiled = next((c for c in rules.for_metric(metric) if c.rule.rule_id == rule_id), None)
        if compiled is None:
            del after[key]
            if tracked.limit.level != NORMAL and tracked.alarm is not None:
                events.append(_withdraw(tracked.alarm, rule_id, device_id, site, metric, now_ms))
            continue
        alarm = tracked.alarm
        limit, changes = expire(compiled, tracked.limit, now_ms)
        for change in changes:
            alarm, event = _announce(compiled.rule, device_id, site, metric, alarm, change)
            events.append(event)
        _keep(after, key, Tracked(limit, alarm), now_ms)
    return (after, events) if after != state or events else (state, events)


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


def _keep(state: DeviceState, key: Key, tracked: Tracked, now_ms: int) -> None:
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
            alarm = alarm._replace(revision=alarm.revision + 1, raises=alarm.raises + 1, severity=change.after)
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

"""An alarm's identity and its events: ids, revisions, counting, messages.

In: a rule, a change of level, the alarm so far. Out: the alarm after, and the AlarmEvent that tells it.
Guarantees: ids follow from device, rule, metric and raise time; revisions count up by one; raises of the
same device and message within 60 s of the first are one alarm, counted.
Not here: when a level changes (`domain.limits`).
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from plantwire.domain.limits import NORMAL, LevelChange
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


def alarm_id_of(device_id: str, rule_id: str, metric: str, raise_ms: int) -> str:
    """The id of the alarm that a rule raised: 24 hex digits, the same on every replay."""
    name = "\0".join((device_id, rule_id, metric, str(raise_ms)))
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def announce(
    rule: AlarmRule, device_id: str, site: str, metric: str, alarm: Alarm | None, change: LevelChange
) -> tuple[Alarm, AlarmEvent]:
    """The alarm after a change of level, and its event."""
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
        message=_cleared_message(device_id, metric, change)
        if kind == AlarmKind.CLEARED
        else render_message(rule, device_id, site, metric, alarm.severity, change),
        event_time_ms=change.at_ms,
        raise_time_ms=alarm.raise_ms,
        count=alarm.raises,
    )
    return alarm, event


def withdraw(alarm: Alarm, rule_id: str, device_id: str, site: str, metric: str, now_ms: int) -> AlarmEvent:
    """The clear of an alarm whose rule no longer applies, which no value caused."""
    ended = alarm._replace(revision=alarm.revision + 1)
    message = f"{subject(device_id, metric)}: rule {rule_id} no longer applies"
    return restate(ended, AlarmKind.CLEARED, rule_id, device_id, site, metric, now_ms, message)


def restate(
    alarm: Alarm,
    kind: str,
    rule_id: str,
    device_id: str,
    site: str,
    metric: str,
    now_ms: int,
    message: str,
) -> AlarmEvent:
    """An event that no value caused: `alarm`, whose revision is the event's, is what `kind` says."""
    return AlarmEvent(
        alarm_id=alarm.alarm_id,
        revision=alarm.revision,
        rule_id=rule_id,
        rule_version=0,
        device_id=device_id,
        site=site,
        metric=metric,
        value=None,
        limit=None,
        severity=alarm.severity,
        kind=kind,
        message=message,
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
        ("{value}", "" if change.value is None else f"{change.value:g}"),
        ("{limit}", "" if change.limit is None else f"{change.limit:g}"),
        ("{severity}", Severity(severity).name),
        ("{rule}", rule.rule_id),
        ("{after_s}", _after_s(rule, severity)),
    ):
        message = message.replace(name, text)
    return message


def subject(device_id: str, metric: str) -> str:
    """What an alarm is about: a metric of a device, or the device as a whole."""
    return f"{device_id} {metric}" if metric else device_id


def _after_s(rule: AlarmRule, severity: int) -> str:
    """How long data may stay away, in seconds; empty for a rule on values."""
    after_ms = next((missing.after_ms for missing in rule.missing if missing.severity == severity), None)
    return "" if after_ms is None else f"{after_ms / 1000:g}"


def _cleared_message(device_id: str, metric: str, change: LevelChange) -> str:
    """A rule's template says what is wrong; of a return to normal it would say it falsely."""
    if change.value is None:
        return f"{subject(device_id, metric)}: data are back"
    limit = "" if change.limit is None else f", limit {change.limit:g}"
    return f"{device_id} {metric} back to normal at {change.value:g}{limit}"

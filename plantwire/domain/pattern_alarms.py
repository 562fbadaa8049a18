"""What the matches of a pattern mean: alarms that are raised, counted and cleared.

In: matches of one pattern on one metric of one device in event-time order, and the passing of event time.
Out: AlarmEvents, and what has to be remembered.
Guarantees: ids and revisions follow from the matches alone, so a replay gives them again; every alarm that is
raised clears: `hold_s` after its last match, or when the stuck value moves.
Not here: how matches are found (`domain.patterns`).

A further match while the alarm holds is the same alarm, counted, and prolongs it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from plantwire.domain.alarm_events import alarm_id_of
from plantwire.schemas.patterns import Pattern, Stuck
from plantwire.schemas.records import AlarmEvent, AlarmKind
from plantwire.schemas.severity import Severity


class Match(msgspec.Struct, frozen=True, tag="match"):
    """One row of `domain.patterns.matches_sql`; times in ms of event time, `pattern_no` a position."""

    pattern_no: int
    device_id: str
    metric: str
    site: str
    begins: bool
    start_ms: int
    end_ms: int
    number: float
    limit_number: float | None = None


class HeldAlarm(NamedTuple):
    """A pattern's alarm that has not cleared. `clear_ms` is None where it waits for a value to move."""

    alarm_id: str
    revision: int
    matches: int
    start_ms: int
    raise_ms: int
    clear_ms: int | None
    site: str


def take_match(
    pattern: Pattern, match: Match, held: HeldAlarm | None
) -> tuple[HeldAlarm | None, list[AlarmEvent]]:
    """The alarm after a match, and the events that tell it."""
    events: list[AlarmEvent] = []
    if not match.begins:
        # At a metric's first sample it is not known what was before; whatever is held is of then.
        if held is None or held.start_ms >= match.end_ms:
            return held, events
        message = f"{match.device_id} {match.metric} moves again, at {match.number:g}"
        return None, [_cleared(pattern, match.device_id, match.metric, held, match.end_ms, message)]
    if held is not None and held.clear_ms is not None and held.clear_ms < match.end_ms:
        # Event time has passed its end; that the timer comes later must not make this one alarm of two.
        events.append(hold_ended(pattern, match.device_id, match.metric, held))
        held = None
    stuck = isinstance(pattern.shape, Stuck)
    if held is not None and stuck:
        if held.start_ms == match.start_ms:
            return held, events
        # The end of the stuck value before was not seen.
        message = f"{match.device_id} {match.metric} has moved meanwhile"
        events.append(_cleared(pattern, match.device_id, match.metric, held, match.end_ms, message))
        held = None
    clear_ms = None if stuck else match.end_ms + pattern.hold_s * 1000
    if held is None:
        held = HeldAlarm(
            # By the match's start: it names the match, and a pattern's name is never that of a rule.
            alarm_id=alarm_id_of(match.device_id, pattern.rule_id, match.metric, match.start_ms),
            revision=1,
            matches=1,
            start_ms=match.start_ms,
            raise_ms=match.end_ms,
            clear_ms=clear_ms,
            site=match.site,
        )
    else:
        held = held._replace(
            revision=held.revision + 1, matches=held.matches + 1, clear_ms=clear_ms, site=match.site
        )
    events.append(_raised(pattern, match, held))
    return held, events


def hold_ended(pattern: Pattern, device_id: str, metric: str, held: HeldAlarm) -> AlarmEvent:
    """The alarm's end, once event time has passed `clear_ms`."""
    if held.clear_ms is None:
        raise AssertionError("the alarm of a stuck value has no time to end at")
    message = f"{device_id} {metric}: not again within {pattern.hold_s} s"
    return _cleared(pattern, device_id, metric, held, held.clear_ms, message)


def let_go(logged: AlarmEvent, at_ms: int) -> AlarmEvent:
    """The end of an alarm that the log shows active and that nobody holds any more: watching began anew,
    with other patterns or after its state was lost. Where its cause still is there, it is raised anew.
    """
    return msgspec.structs.replace(
        logged,
        revision=logged.revision + 1,
        kind=AlarmKind.CLEARED,
        value=None,
        event_time_ms=max(at_ms, logged.event_time_ms),
        message=f"{logged.device_id} {logged.metric}: watching for patterns began anew",
        device_us=0,
        gateway_in_us=0,
        gateway_out_us=0,
        detect_in_us=0,
        detect_out_us=0,
        published_us=0,
    )


def _raised(pattern: Pattern, match: Match, held: HeldAlarm) -> AlarmEvent:
    return AlarmEvent(
        alarm_id=held.alarm_id,
        revision=held.revision,
        rule_id=pattern.rule_id,
        rule_version=pattern.version,
        device_id=match.device_id,
        site=match.site,
        metric=match.metric,
        value=match.number,
        limit=match.limit_number,
        severity=pattern.severity,
        kind=AlarmKind.RAISED,
        message=_message(pattern, match),
        event_time_ms=match.end_ms,
        raise_time_ms=held.raise_ms,
        count=held.matches,
        device_us=match.end_ms * 1000,
    )


def _cleared(
    pattern: Pattern, device_id: str, metric: str, held: HeldAlarm, at_ms: int, message: str
) -> AlarmEvent:
    return AlarmEvent(
        alarm_id=held.alarm_id,
        revision=held.revision + 1,
        rule_id=pattern.rule_id,
        rule_version=pattern.version,
        device_id=device_id,
        site=held.site,
        metric=metric,
        value=None,
        limit=None,
        severity=pattern.severity,
        kind=AlarmKind.CLEARED,
        message=message,
        event_time_ms=at_ms,
        raise_time_ms=held.raise_ms,
        count=held.matches,
    )


def _message(pattern: Pattern, match: Match) -> str:
    """Fill the template. Plain replacement, so that no template can reach into an object."""
    message = pattern.message
    for name, text in (
        ("{device}", match.device_id),
        ("{site}", match.site),
        ("{metric}", match.metric),
        ("{value}", f"{match.number:g}"),
        ("{limit}", "" if match.limit_number is None else f"{match.limit_number:g}"),
        ("{severity}", Severity(pattern.severity).name),
        ("{pattern}", pattern.pattern_id),
    ):
        message = message.replace(name, text)
    return message

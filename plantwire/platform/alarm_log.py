"""The alarm log: Kafka `alarms.fire`, read up to its present end.

In: a bootstrap address. Out: the last event of each alarm, of all that are active or of the recent ones.
Guarantees: what was in the topic when the call began is seen; an event that was told again after a failure
counts once.
Not here: following the topic live (the live-state job).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import structlog

from plantwire.platform.topic_reader import TopicError, TopicRecord, read_to_end
from plantwire.schemas.codec import ALARM_CODEC, UndecodableError
from plantwire.schemas.patterns import is_pattern_alarm
from plantwire.schemas.records import AlarmEvent, AlarmKind
from plantwire.schemas.topics import ALARMS_FIRE

_log = structlog.get_logger(__name__)

RECENT_EVENTS: Final = 10_000
"""Per partition: what a failure can have cut off from a job's state lies within, but for a flood."""


def active_of(events: Iterable[AlarmEvent]) -> list[AlarmEvent]:
    """The last event of each alarm that they leave active. Memory is that of the active alarms, as an
    alarm's events come in order.
    """
    return list(_last_of(events, forget_cleared=True).values())


def active_alarms(bootstrap: str, timeout_s: float = 60.0) -> list[AlarmEvent]:
    """The active alarms according to `alarms.fire`; raises `platform.topic_reader.TopicError`."""
    return active_of(_events(read_to_end(bootstrap, ALARMS_FIRE, timeout_s)))


def recent_alarms(bootstrap: str, timeout_s: float = 10.0) -> list[AlarmEvent]:
    """The last event of every alarm of a rule near the log's end; raises `platform.topic_reader.TopicError`.

    Those of patterns are held by another job: detection would see that it does not hold them, and clear them.
    """
    records = read_to_end(bootstrap, ALARMS_FIRE, timeout_s, last=RECENT_EVENTS)
    of_rules = (event for event in _events(records) if not is_pattern_alarm(event.rule_id))
    return list(_last_of(of_rules, forget_cleared=False).values())


def recent_alarms_if_readable(bootstrap: str) -> list[AlarmEvent]:
    """`recent_alarms`, or none where the log cannot be read, which is logged: detection must run. Without
    the log, an alarm that a failure left behind stays as announced.
    """
    try:
        return recent_alarms(bootstrap)
    except TopicError as error:
        _log.error("alarm-log-not-read", reason=str(error))
        return []


def active_pattern_alarms(bootstrap: str, timeout_s: float = 60.0) -> list[AlarmEvent]:
    """The active alarms of patterns according to `alarms.fire`; raises `platform.topic_reader.TopicError`."""
    return [event for event in active_alarms(bootstrap, timeout_s) if is_pattern_alarm(event.rule_id)]


def _last_of(events: Iterable[AlarmEvent], *, forget_cleared: bool) -> dict[str, AlarmEvent]:
    last: dict[str, AlarmEvent] = {}
    for event in events:
        known = last.get(event.alarm_id)
        if known is not None and known.revision >= event.revision:
            continue  # told again after a failure
        if forget_cleared and event.kind == AlarmKind.CLEARED:
            last.pop(event.alarm_id, None)
        else:
            last[event.alarm_id] = event
    return last


def _events(records: Iterable[TopicRecord]) -> Iterator[AlarmEvent]:
    for record in records:
        try:
            yield ALARM_CODEC.decode(record.body or b"", record.fingerprint)
        except UndecodableError:
            continue  # live-state counts what it cannot read when it comes to it

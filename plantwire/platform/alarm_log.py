"""The alarm log: Kafka `alarms.fire`, read from its beginning to its present end.

In: a bootstrap address. Out: the events of the alarms that are active.
Guarantees: what was in the topic when the call began is seen; of each alarm the event with the highest
revision counts, whatever the order.
Not here: following the topic live (the live-state job).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from plantwire.platform.topic_reader import read_to_end
from plantwire.schemas.codec import ALARM_CODEC, UndecodableError
from plantwire.schemas.records import AlarmEvent, AlarmKind
from plantwire.schemas.topics import ALARMS_FIRE


def active_of(events: Iterable[AlarmEvent]) -> list[AlarmEvent]:
    """The last event of each alarm that it leaves active."""
    last: dict[str, AlarmEvent] = {}
    for event in events:
        known = last.get(event.alarm_id)
        if known is None or known.revision < event.revision:
            last[event.alarm_id] = event
    return [event for event in last.values() if event.kind != AlarmKind.CLEARED]


def active_alarms(bootstrap: str, timeout_s: float = 60.0) -> list[AlarmEvent]:
    """The active alarms according to `alarms.fire`; raises `platform.topic_reader.TopicError`."""
    return active_of(_events(bootstrap, timeout_s))


def _events(bootstrap: str, timeout_s: float) -> Iterator[AlarmEvent]:
    for record in read_to_end(bootstrap, ALARMS_FIRE, timeout_s):
        try:
            yield ALARM_CODEC.decode(record.body or b"", record.fingerprint)
        except UndecodableError:
            continue  # live-state counts what it cannot read when it comes to it

"""Whether `alarms.fire` holds every raise and every clear of a run. Pure.

In: expected raises, the events of the topic. Out: `FireCheck`. Not here: reading (`bench.alarm_topic`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from bench.deliveries import ExpectedRaise, Matcher
from plantwire.schemas.records import AlarmEvent, AlarmKind
from plantwire.schemas.severity import Severity


class FireCheck(msgspec.Struct, frozen=True):
    """What the durable record of a run lacks or has too much of."""

    events: int
    expected_raises: int
    missing_raises: int
    missing_clears: int
    """Expected raises of which an alarm id has no clear, or that have no id at all."""
    doubled: int
    """Records whose (alarm id, revision) was there already; at least once allows them, an undisturbed run
    has none."""
    second_ids: int
    """Alarm ids beyond the first that stand for one expected raise."""


def check_fire(expected: Sequence[ExpectedRaise], events: Iterable[AlarmEvent]) -> FireCheck:
    """Match the topic's events with the raises."""
    matcher = Matcher(expected)
    raised_ids: defaultdict[int, set[str]] = defaultdict(set)
    cleared_ids: set[str] = set()
    seen: Counter[tuple[str, int]] = Counter()
    for event in events:
        seen[event.alarm_id, event.revision] += 1
        if event.kind == AlarmKind.CLEARED:
            cleared_ids.add(event.alarm_id)
        elif event.kind == AlarmKind.RAISED and event.severity == Severity.CRITICAL:
            index = matcher.find(event.device_id, event.metric, event.event_time_ms, clear=False)
            if index is not None:
                raised_ids[index].add(event.alarm_id)
    return FireCheck(
        events=seen.total(),
        expected_raises=len(expected),
        missing_raises=len(expected) - len(raised_ids),
        missing_clears=sum(
            index not in raised_ids or not raised_ids[index] <= cleared_ids for index in range(len(expected))
        ),
        doubled=seen.total() - len(seen),
        second_ids=sum(len(ids) - 1 for ids in raised_ids.values()),
    )

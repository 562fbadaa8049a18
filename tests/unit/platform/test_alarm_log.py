"""Which alarms a log leaves active."""

from __future__ import annotations

from plantwire.platform.alarm_log import active_of
from plantwire.schemas.records import AlarmKind
from tests.builders import alarm_event


def test_the_last_event_of_each_alarm_counts() -> None:
    raised = alarm_event(alarm_id="a", revision=1)
    changed = alarm_event(alarm_id="a", revision=2, kind=AlarmKind.SEVERITY_CHANGED)
    told_again = alarm_event(alarm_id="a", revision=1)
    assert active_of([raised, changed, told_again]) == [changed]


def test_cleared_alarms_are_not_active_until_they_are_raised_again() -> None:
    raised = alarm_event(alarm_id="b", revision=1)
    cleared = alarm_event(alarm_id="b", revision=2, kind=AlarmKind.CLEARED)
    again = alarm_event(alarm_id="b", revision=3, count=2)
    assert active_of([raised, cleared]) == []
    assert active_of([raised, cleared, again]) == [again]

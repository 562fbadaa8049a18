"""Which alarms a log leaves active."""

from __future__ import annotations

from plantwire.platform.alarm_log import active_of
from plantwire.schemas.records import AlarmKind
from tests.builders import alarm_event


def test_the_highest_revision_counts_whatever_the_order() -> None:
    raised = alarm_event(alarm_id="a", revision=1)
    changed = alarm_event(alarm_id="a", revision=2, kind=AlarmKind.SEVERITY_CHANGED)
    cleared = alarm_event(alarm_id="b", revision=2, kind=AlarmKind.CLEARED)
    assert active_of([changed, raised]) == [changed]
    assert active_of([cleared, alarm_event(alarm_id="b", revision=1)]) == []
    again = alarm_event(alarm_id="b", revision=3, count=2)
    assert active_of([again, cleared, raised]) == [again, raised]

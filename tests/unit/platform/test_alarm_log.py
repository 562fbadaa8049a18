"""Which alarms a log leaves active."""

from __future__ import annotations

import pytest

from plantwire.platform import alarm_log
from plantwire.platform.alarm_log import active_of, active_pattern_alarms, recent_alarms
from plantwire.platform.topic_reader import TopicRecord
from plantwire.schemas.codec import ALARM_CODEC
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


def test_alarms_of_rules_and_of_patterns_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    of_rule = alarm_event(alarm_id="a", rule_id="spiky")
    of_pattern = alarm_event(alarm_id="b", rule_id="pattern:spiky")
    over = alarm_event(alarm_id="c", rule_id="pattern:spiky", revision=2, kind=AlarmKind.CLEARED)
    records = [
        TopicRecord(0, event.device_id.encode(), ALARM_CODEC.encode(event), ALARM_CODEC.fingerprint)
        for event in (of_rule, of_pattern, over)
    ]
    monkeypatch.setattr(alarm_log, "read_to_end", lambda *_arguments, **_options: records)
    assert recent_alarms("nowhere") == [of_rule]
    assert active_pattern_alarms("nowhere") == [of_pattern]

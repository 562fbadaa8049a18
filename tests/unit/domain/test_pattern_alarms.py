"""The alarms of patterns: raised, counted, cleared, and the same on every replay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.domain.pattern_alarms import HeldAlarm, Match, hold_ended, let_go, take_match
from plantwire.schemas.patterns import Pattern, Spikes, Stuck
from plantwire.schemas.records import AlarmEvent, AlarmKind
from tests.builders import alarm_event

SPIKES = Pattern(
    "spiky", 3, "*", "*", 1, "{device} {metric} {value} {limit} {pattern}", Spikes(3, 60, above=90), 100
)
STUCK = Pattern("frozen", 1, "*", "*", 2, "stuck at {value}", Stuck(60, 2), 300)


def match(start_ms: int, end_ms: int, **changes: Any) -> Match:
    fields: dict[str, Any] = {
        "pattern_no": 0,
        "device_id": "press-1",
        "metric": "temperature",
        "site": "hall",
        "begins": True,
        "start_ms": start_ms,
        "end_ms": end_ms,
        "number": 95.5,
        "limit_number": 90.0,
    }
    return Match(**(fields | changes))


def told(events: list[AlarmEvent]) -> list[tuple[str, int, int, int]]:
    return [(event.kind, event.revision, event.count, event.event_time_ms) for event in events]


def test_a_match_raises_an_alarm_that_its_start_names() -> None:
    held, (event,) = take_match(SPIKES, match(1_000, 31_000), None)
    assert held is not None
    assert held.clear_ms == 131_000
    assert (event.kind, event.revision, event.count, event.severity) == (AlarmKind.RAISED, 1, 1, 1)
    assert (event.rule_id, event.rule_version, event.site) == ("pattern:spiky", 3, "hall")
    assert (event.value, event.limit) == (95.5, 90.0)
    assert (event.event_time_ms, event.raise_time_ms) == (31_000, 31_000)
    assert event.message == "press-1 temperature 95.5 90 spiky"
    _, (again,) = take_match(SPIKES, match(1_000, 31_000), None)
    assert again == event
    _, (other,) = take_match(SPIKES, match(1_001, 31_000), None)
    assert other.alarm_id != event.alarm_id


def test_a_further_match_is_counted_and_prolongs() -> None:
    held, _ = take_match(SPIKES, match(0, 10_000), None)
    held, events = take_match(SPIKES, match(50_000, 110_000), held)
    assert told(events) == [(AlarmKind.RAISED, 2, 2, 110_000)]
    assert held is not None
    assert events[0].raise_time_ms == 10_000
    cleared = hold_ended(SPIKES, "press-1", "temperature", held)
    assert told([cleared]) == [(AlarmKind.CLEARED, 3, 2, 210_000)]


def test_a_match_after_the_hold_is_an_alarm_of_its_own_even_before_the_timer() -> None:
    held, (first,) = take_match(SPIKES, match(0, 10_000), None)
    held, events = take_match(SPIKES, match(100_000, 110_001), held)
    assert told(events) == [(AlarmKind.CLEARED, 2, 1, 110_000), (AlarmKind.RAISED, 1, 1, 110_001)]
    assert events[0].alarm_id == first.alarm_id != events[1].alarm_id


def test_a_stuck_value_clears_when_it_moves() -> None:
    held, (raised,) = take_match(STUCK, match(1_000, 61_000, limit_number=None), None)
    assert held is not None
    assert held.clear_ms is None
    assert raised.message == "stuck at 95.5"
    held, events = take_match(STUCK, match(1_000, 90_000, begins=False, number=7.0), held)
    assert held is None
    assert told(events) == [(AlarmKind.CLEARED, 2, 1, 90_000)]
    assert "moves again, at 7" in events[0].message
    with pytest.raises(AssertionError):
        hold_ended(STUCK, "d", "m", HeldAlarm("a", 1, 1, 0, 0, None, ""))


def test_an_end_ends_what_began_before_it() -> None:
    assert take_match(STUCK, match(1, 2, begins=False), None) == (None, [])
    held, _ = take_match(STUCK, match(1_000, 61_000), None)
    assert take_match(STUCK, match(900, 999, begins=False), held) == (held, [])
    # The first sample after a long silence: it is its own start.
    ended, events = take_match(STUCK, match(70_000, 70_000, begins=False), held)
    assert ended is None
    assert told(events) == [(AlarmKind.CLEARED, 2, 1, 70_000)]


def test_the_next_stuck_value_ends_one_whose_end_was_not_seen() -> None:
    held, (first,) = take_match(STUCK, match(1_000, 61_000), None)
    assert take_match(STUCK, match(1_000, 61_000), held) == (held, [])
    held, events = take_match(STUCK, match(500_000, 560_000), held)
    assert told(events) == [(AlarmKind.CLEARED, 2, 1, 560_000), (AlarmKind.RAISED, 1, 1, 560_000)]
    assert events[0].alarm_id == first.alarm_id


def test_what_nobody_holds_is_let_go_after_what_was_told_last() -> None:
    logged = alarm_event(rule_id="pattern:gone", revision=4, event_time_ms=5_000, value=1.0)
    event = let_go(logged, 4_000)
    assert told([event]) == [(AlarmKind.CLEARED, 5, 1, 5_000)]
    assert (event.alarm_id, event.published_us, event.value) == (logged.alarm_id, 0, None)
    assert let_go(logged, 9_000).event_time_ms == 9_000


@given(st.lists(st.tuples(st.integers(1, 60_000), st.integers(1, 60_000), st.booleans()), max_size=30))
def test_every_alarm_that_is_raised_clears_and_revisions_have_no_gap(
    steps: list[tuple[int, int, bool]],
) -> None:
    held, at_ms, events = None, 0, []
    for gap_ms, length_ms, timer_first in steps:
        start_ms = at_ms + gap_ms
        at_ms = start_ms + length_ms
        if timer_first and held is not None and held.clear_ms is not None and held.clear_ms < at_ms:
            events.append(hold_ended(SPIKES, "press-1", "temperature", held))
            held = None
        held, new = take_match(SPIKES, match(start_ms, at_ms), held)
        events += new
    if held is not None:
        events.append(hold_ended(SPIKES, "press-1", "temperature", held))
    assert [event.event_time_ms for event in events] == sorted(event.event_time_ms for event in events)
    for alarm_id in {event.alarm_id for event in events}:
        of_alarm = [event for event in events if event.alarm_id == alarm_id]
        assert [event.revision for event in of_alarm] == list(range(1, len(of_alarm) + 1))
        assert [event.kind == AlarmKind.CLEARED for event in of_alarm] == [False] * (len(of_alarm) - 1) + [
            True
        ]
        assert of_alarm[-1].count == len(of_alarm) - 1

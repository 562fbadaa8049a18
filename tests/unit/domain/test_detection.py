"""Alarms of one device: ids, revisions, counting, rules that change."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from plantwire.domain.detection import DEDUP_WINDOW_MS, DeviceDetector, alarm_id_of, next_due_ms
from plantwire.domain.rule_book import RuleBook
from plantwire.schemas.records import QUALITY_BAD, QUALITY_GOOD, AlarmEvent, AlarmRule, Limit
from plantwire.schemas.severity import Severity
from plantwire.udfs.packed_state import pack, unpack

CRITICAL, HIGH = int(Severity.CRITICAL), int(Severity.HIGH)
HOT = AlarmRule(
    "hot",
    3,
    "press-*",
    "temp*",
    (Limit(HIGH, above=90, deadband=2), Limit(CRITICAL, above=100, deadband=2)),
    message="{device} {metric} at {value}, limit {limit} ({severity}, {rule}, {site})",
)
SLOW = AlarmRule("slow", 1, "*", "pressure", (Limit(HIGH, above=5),), on_delay_ms=1000)


def frame(at_ms: int, quality: int = QUALITY_GOOD, **metrics: float | None) -> Any:
    return {
        "device_id": "press-1",
        "site": "hall",
        "event_time_ms": at_ms,
        "metrics": [
            {"name": name, "number": number, "quality": quality, "event_time_ms": None}
            for name, number in metrics.items()
        ],
    }


def detector(*rules: AlarmRule) -> DeviceDetector:
    return DeviceDetector("press-1", RuleBook(rules or (HOT, SLOW)).for_device("press-1"))


def told(events: list[AlarmEvent]) -> list[tuple[str, int, int, int]]:
    return [(e.kind, e.severity, e.revision, e.count) for e in events]


def test_raise_change_clear_is_one_alarm() -> None:
    d = detector()
    events = [
        e for at, v in ((1, 95.0), (2, 101.0), (3, 50.0)) for e in d.take_frame(frame(at, temperature=v))
    ]
    assert told(events) == [
        ("RAISED", HIGH, 1, 1),
        ("SEVERITY_CHANGED", CRITICAL, 2, 1),
        ("CLEARED", CRITICAL, 3, 1),
    ]
    assert {e.alarm_id for e in events} == {alarm_id_of("press-1", "hot", "temperature", 1)}
    assert events[1].message == "press-1 temperature at 101, limit 100 (CRITICAL, hot, hall)"
    assert events[0].rule_version == 3
    assert {e.raise_time_ms for e in events} == {1}


def test_an_unchanged_state_is_the_same_object() -> None:
    d = detector()
    before = d.state
    d.take_frame(frame(1, temperature=50.0, pressure=1.0))
    assert d.state is before
    d.take_frame(frame(2, temperature=95.0))
    before = d.state
    d.take_frame(frame(3, temperature=95.5))
    assert d.state is before


def test_a_raise_within_the_window_is_counted_into_the_same_alarm() -> None:
    d = detector()
    ids = set()
    for at_ms, value in ((0, 95.0), (10, 50.0), (DEDUP_WINDOW_MS - 1, 96.0), (DEDUP_WINDOW_MS + 10, 50.0)):
        events = d.take_frame(frame(at_ms, temperature=value))
        ids |= {e.alarm_id for e in events}
    assert told(events) == [("CLEARED", HIGH, 4, 2)]
    assert len(ids) == 1
    (later,) = d.take_frame(frame(DEDUP_WINDOW_MS + 20, temperature=95.0))
    assert told([later]) == [("RAISED", HIGH, 1, 1)]
    assert later.alarm_id not in ids


def test_state_is_forgotten_when_all_is_over() -> None:
    d = detector()
    d.take_frame(frame(0, temperature=95.0))
    d.take_frame(frame(10, temperature=50.0))
    assert d.state
    assert next_due_ms(d.state) == DEDUP_WINDOW_MS
    d.run_timers(DEDUP_WINDOW_MS)
    assert not d.state


def test_a_delay_needs_no_further_frame() -> None:
    d = detector()
    assert d.take_frame(frame(0, pressure=6.0)) == []
    assert next_due_ms(d.state) == 1000
    (event,) = d.run_timers(1234)
    assert (event.kind, event.event_time_ms, event.site) == ("RAISED", 1000, "hall")


def passes(d: DeviceDetector, at_ms: int, **metrics: float) -> bool:
    return d.passes(tuple(metrics), tuple(metrics.values()), at_ms)


def test_frames_that_change_nothing_pass() -> None:
    d = detector()
    assert passes(d, 1, temperature=50.0, pressure=1.0, other=1e9)
    assert not passes(d, 2, temperature=95.0, pressure=1.0)
    assert not passes(d, 2, temperature=float("nan"), pressure=1.0)
    d.take_frame(frame(2, temperature=95.0))
    assert not passes(d, 3, temperature=50.0)
    d.take_frame(frame(3, temperature=50.0))
    # Cleared: what is left to remember is for counting only.
    assert d.state
    assert passes(d, 4, temperature=50.0)
    d.take_rules(RuleBook([AlarmRule("low", 1, "*", "*", (Limit(HIGH, below=60),))]).for_device("press-1"), 5)
    assert not passes(d, 6, temperature=50.0)


def test_what_passed_makes_older_values_late() -> None:
    d = detector()
    assert passes(d, 1000, temperature=50.0)
    (raised,) = d.take_frame(frame(900, temperature=95.0))
    assert raised.kind == "RAISED"
    assert d.take_frame(frame(950, temperature=50.0)) == []


def test_bad_quality_text_and_unruled_metrics_are_passed_over() -> None:
    d = detector()
    assert d.take_frame(frame(1, quality=QUALITY_BAD, temperature=200.0)) == []
    assert d.take_frame(frame(2, temperature=None, other=1e9)) == []
    assert d.take_frame(frame(3, temperature=float("nan"))) == []
    assert d.take_frame(frame(4, temperature=float("inf"))) == []
    assert not d.state


def test_a_late_frame_raises_but_does_not_clear_and_a_repeated_one_does_nothing() -> None:
    d = detector()
    d.take_frame(frame(1000, temperature=50.0))
    (raised,) = d.take_frame(frame(900, temperature=95.0))
    assert (raised.kind, raised.event_time_ms) == ("RAISED", 900)
    assert d.take_frame(frame(950, temperature=50.0)) == []
    (cleared,) = d.take_frame(frame(1100, temperature=50.0))
    assert cleared.kind == "CLEARED"
    assert d.take_frame(frame(900, temperature=95.0)) == []


def test_metrics_of_one_device_may_be_late_to_each_other() -> None:
    d = detector(HOT, AlarmRule("p", 1, "*", "pressure", (Limit(HIGH, above=5),)))
    d.take_frame(frame(1000, temperature=50.0))
    d.take_frame(frame(500, pressure=6.0))
    (cleared,) = d.take_frame(frame(600, pressure=1.0))
    assert cleared.kind == "CLEARED"


def test_a_withdrawn_rule_clears_its_alarms() -> None:
    d = detector()
    d.take_frame(frame(1, temperature=95.0))
    (event,) = d.take_rules(RuleBook([SLOW]).for_device("press-1"), 50)
    assert told([event]) == [("CLEARED", HIGH, 2, 1)]
    assert "no longer applies" in event.message
    assert not d.state


def test_a_changed_rule_keeps_the_alarm_and_tells_its_version() -> None:
    d = detector()
    d.take_frame(frame(1, temperature=95.0))
    changed = AlarmRule("hot", 4, "press-*", "temp*", (Limit(CRITICAL, above=94),))
    assert d.take_rules(RuleBook([changed]).for_device("press-1"), 2) == []
    (event,) = d.take_frame(frame(3, temperature=95.0))
    assert (event.kind, event.severity, event.revision, event.rule_version) == (
        "SEVERITY_CHANGED",
        CRITICAL,
        2,
        4,
    )


def test_message_templates_cannot_reach_into_objects() -> None:
    rule = AlarmRule("hot", 1, "*", "*", (Limit(HIGH, above=1),), message="{device.__class__} {0} {value}")
    (event,) = detector(rule).take_frame(frame(1, x=2.0))
    assert event.message == "{device.__class__} {0} 2"


steps = st.lists(
    st.tuples(st.integers(-500, 20_000), st.floats(80, 110), st.floats(0, 10), st.booleans()), max_size=30
)


@given(steps=steps, cut=st.integers(0, 30))
def test_a_restart_anywhere_tells_the_same(steps: list[tuple[int, float, float, bool]], cut: int) -> None:
    def play(restart_at: int | None, shortcut: bool = False) -> list[AlarmEvent]:
        d, now_ms, events = detector(), 0, []
        for index, (gap_ms, temperature, pressure, timer) in enumerate(steps):
            now_ms += gap_ms
            if index == restart_at:
                # What a restore brings back: the packed state, and nothing of what was only remembered.
                site, state = unpack(pack(d.site, d.state))
                newest_ms, passed_ms = d._newest_ms, d._passed_ms
                d = detector()
                d.state, d.site, d._newest_ms, d._passed_ms = state, site, newest_ms, passed_ms
            if timer:
                events += d.run_timers(now_ms)
            at_ms = max(now_ms, 1)
            # Passing a frame by must be the same as taking it.
            if not (shortcut and passes(d, at_ms, temperature=temperature, pressure=pressure)):
                events += d.take_frame(frame(at_ms, temperature=temperature, pressure=pressure))
        return events

    assert play(cut) == play(None)
    assert play(cut, shortcut=True) == play(None)
    revisions: dict[str, list[int]] = {}
    for event in play(None):
        revisions.setdefault(event.alarm_id, []).append(event.revision)
    for numbers in revisions.values():
        assert numbers == list(range(1, len(numbers) + 1))

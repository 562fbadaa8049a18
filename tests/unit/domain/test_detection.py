"""Alarms of one device: ids, revisions, counting, rules that change."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from plantwire.domain.alarm_events import DEDUP_WINDOW_MS, alarm_id_of
from plantwire.domain.detection import DeviceDetector, next_due_ms
from plantwire.domain.device_clock import MAX_LATE_MS, STEP_AFTER_MS
from plantwire.domain.limits import NORMAL
from plantwire.domain.packed_state import pack, unpack
from plantwire.domain.reconciliation import reconcile
from plantwire.domain.rule_book import RuleBook
from plantwire.schemas.records import QUALITY_BAD, QUALITY_GOOD, AlarmEvent, AlarmRule, Limit
from plantwire.schemas.severity import Severity

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


def take(d: DeviceDetector, of: Any, now_ms: int | None = None) -> list[AlarmEvent]:
    """Frames arrive when they are measured, unless a test says otherwise."""
    return d.take_frame(of, of["event_time_ms"] if now_ms is None else now_ms)


def detector(*rules: AlarmRule) -> DeviceDetector:
    return DeviceDetector("press-1", RuleBook(rules or (HOT, SLOW)).for_device("press-1"))


def told(events: list[AlarmEvent]) -> list[tuple[str, int, int, int]]:
    return [(e.kind, e.severity, e.revision, e.count) for e in events]


def test_raise_change_clear_is_one_alarm() -> None:
    d = detector()
    events = [e for at, v in ((1, 95.0), (2, 101.0), (3, 50.0)) for e in take(d, frame(at, temperature=v))]
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
    take(d, frame(1, temperature=50.0, pressure=1.0))
    assert d.state is before
    take(d, frame(2, temperature=95.0))
    before = d.state
    # What is late must be the same after a restore, so the newest time of a violation is part of the state.
    take(d, frame(3, temperature=95.5))
    assert d.state is not before


def test_a_raise_within_the_window_is_counted_into_the_same_alarm() -> None:
    d = detector()
    ids = set()
    for at_ms, value in ((0, 95.0), (10, 50.0), (DEDUP_WINDOW_MS - 1, 96.0), (DEDUP_WINDOW_MS + 10, 50.0)):
        events = take(d, frame(at_ms, temperature=value))
        ids |= {e.alarm_id for e in events}
    assert told(events) == [("CLEARED", HIGH, 4, 2)]
    assert len(ids) == 1
    (later,) = take(d, frame(DEDUP_WINDOW_MS + 20, temperature=95.0))
    assert told([later]) == [("RAISED", HIGH, 1, 1)]
    assert later.alarm_id not in ids


def test_state_is_forgotten_when_all_is_over() -> None:
    d = detector()
    take(d, frame(0, temperature=95.0))
    take(d, frame(10, temperature=50.0))
    assert d.state
    assert next_due_ms(d.state) == DEDUP_WINDOW_MS
    d.run_timers(DEDUP_WINDOW_MS)
    assert not d.state


def test_a_delay_needs_no_further_frame() -> None:
    d = detector()
    assert take(d, frame(0, pressure=6.0)) == []
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
    take(d, frame(2, temperature=95.0))
    assert not passes(d, 3, temperature=50.0)
    take(d, frame(3, temperature=50.0))
    # Cleared: what is left to remember is for counting only.
    assert d.state
    assert passes(d, 4, temperature=50.0)
    d.take_rules(RuleBook([AlarmRule("low", 1, "*", "*", (Limit(HIGH, below=60),))]).for_device("press-1"), 5)
    assert not passes(d, 6, temperature=50.0)


def test_what_passed_makes_older_values_late() -> None:
    d = detector()
    assert passes(d, 1000, temperature=50.0)
    (raised,) = take(d, frame(900, temperature=95.0))
    assert raised.kind == "RAISED"
    assert take(d, frame(950, temperature=50.0)) == []


def test_bad_quality_text_and_unruled_metrics_are_passed_over() -> None:
    d = detector()
    assert take(d, frame(1, quality=QUALITY_BAD, temperature=200.0)) == []
    assert take(d, frame(2, temperature=None, other=1e9)) == []
    assert take(d, frame(3, temperature=float("nan"))) == []
    assert take(d, frame(4, temperature=float("inf"))) == []
    assert not d.state


def test_a_late_frame_raises_but_does_not_clear_and_a_repeated_one_does_nothing() -> None:
    d = detector()
    take(d, frame(1000, temperature=50.0))
    (raised,) = take(d, frame(900, temperature=95.0))
    assert (raised.kind, raised.event_time_ms) == ("RAISED", 900)
    assert take(d, frame(950, temperature=50.0)) == []
    (cleared,) = take(d, frame(1100, temperature=50.0))
    assert cleared.kind == "CLEARED"
    assert take(d, frame(900, temperature=95.0)) == []


def test_metrics_of_one_device_may_be_late_to_each_other() -> None:
    d = detector(HOT, AlarmRule("p", 1, "*", "pressure", (Limit(HIGH, above=5),)))
    take(d, frame(1000, temperature=50.0))
    take(d, frame(500, pressure=6.0))
    (cleared,) = take(d, frame(600, pressure=1.0))
    assert cleared.kind == "CLEARED"


def test_a_withdrawn_rule_clears_its_alarms() -> None:
    d = detector()
    take(d, frame(1, temperature=95.0))
    (event,) = d.take_rules(RuleBook([SLOW]).for_device("press-1"), 50)
    assert told([event]) == [("CLEARED", HIGH, 2, 1)]
    assert "no longer applies" in event.message
    assert not d.state


def test_a_changed_rule_keeps_the_alarm_and_tells_its_version() -> None:
    d = detector()
    take(d, frame(1, temperature=95.0))
    changed = AlarmRule("hot", 4, "press-*", "temp*", (Limit(CRITICAL, above=94),))
    assert d.take_rules(RuleBook([changed]).for_device("press-1"), 2) == []
    (event,) = take(d, frame(3, temperature=95.0))
    assert (event.kind, event.severity, event.revision, event.rule_version) == (
        "SEVERITY_CHANGED",
        CRITICAL,
        2,
        4,
    )


def test_message_templates_cannot_reach_into_objects() -> None:
    rule = AlarmRule("hot", 1, "*", "*", (Limit(HIGH, above=1),), message="{device.__class__} {0} {value}")
    (event,) = take(detector(rule), frame(1, x=2.0))
    assert event.message == "{device.__class__} {0} 2"


def test_a_value_that_is_too_late_is_not_judged() -> None:
    """It could raise an alarm that was raised, cleared and forgotten: under the same id, seen by no one."""
    d = detector()
    take(d, frame(1, temperature=95.0))
    take(d, frame(2, temperature=50.0))
    d.run_timers(2 + DEDUP_WINDOW_MS)
    take(d, frame(2 + MAX_LATE_MS, temperature=50.0))
    assert take(d, frame(1, temperature=95.0), now_ms=2 + MAX_LATE_MS) == []
    assert d.clock.too_late == 1
    (event,) = take(d, frame(3 + MAX_LATE_MS, temperature=95.0))
    assert (event.kind, event.revision) == ("RAISED", 1)


def test_a_clock_that_is_put_back_is_believed_after_a_minute() -> None:
    hour_ms = 3_600_000
    d = detector()
    take(d, frame(hour_ms, temperature=95.0, pressure=6.0), now_ms=hour_ms)
    arrivals = range(hour_ms + 1000, hour_ms + STEP_AFTER_MS + 5000, 1000)
    events = [
        event
        for now_ms in arrivals
        for event in take(d, frame(now_ms - hour_ms, temperature=50.0, pressure=6.0), now_ms)
    ]
    assert d.clock.steps == 1
    # The alarm clears on the device's new time, and the running delay goes on with what it had left.
    assert [(e.kind, e.metric) for e in events] == [("CLEARED", "temperature"), ("RAISED", "pressure")]


def logged(kind: str, revision: int, severity: int = HIGH, at_ms: int = 1) -> AlarmEvent:
    (event,) = take(detector(), frame(1, temperature=95.0))
    return msgspec.structs.replace(
        event, kind=kind, revision=revision, severity=severity, event_time_ms=at_ms
    )


def test_an_announced_alarm_that_the_state_does_not_know_is_cleared() -> None:
    state, event = reconcile({}, logged("RAISED", 1), 500)
    assert state == {}
    assert event is not None
    assert (event.kind, event.revision, event.event_time_ms, event.value) == ("CLEARED", 2, 500, None)
    assert reconcile({}, logged("CLEARED", 2), 500) == ({}, None)


def test_an_alarm_that_was_announced_cleared_and_is_active_is_raised_again() -> None:
    d = detector()
    take(d, frame(1, temperature=95.0))
    d.state, event = reconcile(d.state, logged("CLEARED", 2), 500)
    assert event is not None
    assert (event.kind, event.revision) == ("RAISED", 3)
    (cleared,) = take(d, frame(600, temperature=50.0))
    assert (cleared.kind, cleared.revision, cleared.alarm_id) == ("CLEARED", 4, event.alarm_id)


def test_what_agrees_with_the_log_is_left_alone() -> None:
    d = detector()
    take(d, frame(1, temperature=95.0))
    assert reconcile(d.state, logged("RAISED", 1), 500) == (d.state, None)
    take(d, frame(2, temperature=105.0))
    assert reconcile(d.state, logged("RAISED", 1), 500) == (d.state, None)
    _, event = reconcile(d.state, logged("SEVERITY_CHANGED", 4), 500)
    assert event is not None
    assert (event.kind, event.severity, event.revision) == ("SEVERITY_CHANGED", CRITICAL, 5)


# (gap to the step before, temperature, pressure, how long the frame is held up while a timer runs; -1: none)
Step = tuple[int, float, float, int]
steps = st.lists(
    st.tuples(
        st.integers(-500, 3_000),
        st.sampled_from([50.0, 89.0, 95.0, 105.0]),
        st.sampled_from([1.0, 6.0]),
        st.sampled_from([-1, 0, 2_000]),
    ),
    max_size=30,
)


class Run:
    """A detector fed with steps, as the job feeds it, from any state."""

    def __init__(self, packed: bytes | None = None) -> None:
        self.detector = detector()
        if packed is not None:
            # All that a restore brings back.
            self.detector.site, self.detector.state = unpack(packed)
        self.events: list[AlarmEvent] = []

    def play(self, steps: list[Step], *, timers: bool, shortcut: bool = False) -> None:
        d = self.detector
        for at_ms, temperature, pressure, held_up_ms in steps:
            if held_up_ms >= 0 and timers:
                self.events += d.run_timers(at_ms + held_up_ms)
            # Passing a frame by must be the same as taking it.
            if not (shortcut and passes(d, at_ms, temperature=temperature, pressure=pressure)):
                self.events += take(d, frame(at_ms, temperature=temperature, pressure=pressure))


def absolute(steps: list[Step]) -> list[Step]:
    now_ms, timed = 100_000, []
    for gap_ms, *rest in steps:
        now_ms += gap_ms
        timed.append((now_ms, *rest))
    return timed  # type: ignore[return-value]


@given(steps=steps)
def test_the_shortcut_makes_no_difference(steps: list[Step]) -> None:
    long_way, short_way = Run(), Run()
    long_way.play(absolute(steps), timers=True)
    short_way.play(absolute(steps), timers=True, shortcut=True)
    assert short_way.events == long_way.events
    revisions: dict[str, list[int]] = {}
    for event in long_way.events:
        revisions.setdefault(event.alarm_id, []).append(event.revision)
    for numbers in revisions.values():
        assert numbers == list(range(1, len(numbers) + 1))


@given(steps=steps, cuts=st.tuples(st.integers(0, 30), st.integers(0, 30)), timers_again=st.booleans())
def test_after_a_failure_the_log_and_the_state_agree(
    steps: list[Step], cuts: tuple[int, int], timers_again: bool
) -> None:
    """Checkpoint at one step, crash at a later one, replay from the checkpoint: whatever timers did the
    first time and do not the second, no alarm stays active that is not, and none is hidden that is.
    """
    timed = absolute(steps)
    checkpoint, crash = sorted(min(cut, len(timed)) for cut in cuts)
    first = Run()
    first.play(timed[:checkpoint], timers=True)
    packed = pack(first.detector.site, first.detector.state)
    first.play(timed[checkpoint:crash], timers=True)
    log = first.events

    second = Run(packed)
    second.play(timed[checkpoint:], timers=timers_again)
    d = second.detector
    last: dict[str, AlarmEvent] = {}
    for event in log:
        last[event.alarm_id] = event
    end_ms = max((at_ms for at_ms, *_ in timed), default=0) + 100_000
    second.events += take(d, frame(end_ms, temperature=90.0, pressure=1.0))
    for event in last.values():
        d.state, correction = reconcile(d.state, event, end_ms)
        second.events += [correction] if correction is not None else []
    # What a consumer holds: of each alarm the highest revision, whichever came first under it.
    seen: dict[str, AlarmEvent] = {}
    for event in [*log, *second.events]:
        if event.alarm_id not in seen or seen[event.alarm_id].revision < event.revision:
            seen[event.alarm_id] = event
    shown = {event.alarm_id for event in seen.values() if event.kind != "CLEARED"}
    true = {t.alarm.alarm_id for t in d.state.values() if t.alarm is not None and t.limit.level != NORMAL}
    assert shown == true


def test_a_frame_without_good_numbers_says_nothing_of_the_devices_clock() -> None:
    d = detector()
    behind_ms = 10 * MAX_LATE_MS
    take(d, frame(1_000, temperature=50.0))
    # The gateway, whose clock is ahead, marks the values stale; then the device is back.
    take(d, frame(behind_ms, quality=QUALITY_BAD, temperature=50.0))
    assert told(take(d, frame(2_000, temperature=101.0), behind_ms)) == [("RAISED", CRITICAL, 1, 1)]

"""Data that stay away: when it is said, that it clears, and that nothing else is taken for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plantwire.domain import missing
from plantwire.domain.alarm_events import alarm_id_of
from plantwire.domain.detection import DeviceDetector
from plantwire.domain.device_clock import MAX_LATE_MS, STEP_AFTER_MS
from plantwire.domain.limits import NORMAL
from plantwire.domain.packed_state import pack, unpack
from plantwire.domain.reconciliation import reconcile
from plantwire.domain.rule_book import WHOLE_DEVICE, RuleBook, compile_silence
from plantwire.schemas.records import (
    QUALITY_BAD,
    QUALITY_GOOD,
    QUALITY_STALE,
    AlarmEvent,
    AlarmRule,
    Limit,
    Missing,
)
from plantwire.schemas.severity import Severity

CRITICAL, HIGH = int(Severity.CRITICAL), int(Severity.HIGH)
AFTER_MS = 60_000
LOST = AlarmRule(
    "lost",
    1,
    "*",
    "t",
    (),
    message="{device} {metric} {after_s} {severity}",
    missing=(Missing(HIGH, AFTER_MS),),
)
SILENT = AlarmRule(
    "silent", 1, "*", WHOLE_DEVICE, (), missing=(Missing(CRITICAL, 10 * AFTER_MS), Missing(HIGH, AFTER_MS))
)
HOT = AlarmRule("hot", 1, "*", "t", (Limit(HIGH, above=90),))
T0 = 1_795_000_000_000


def margin_ms(rule: AlarmRule) -> int:
    return compile_silence(rule).margin_ms


def frame(at_ms: int, quality: int = QUALITY_GOOD, **metrics: float | str | None) -> Any:
    return {
        "device_id": "press-1",
        "site": "hall",
        "event_time_ms": T0 + at_ms,
        "metrics": [
            {
                "name": name,
                "number": None if isinstance(value, str) else value,
                "text": value if isinstance(value, str) else None,
                "quality": quality,
                "event_time_ms": None,
            }
            for name, value in metrics.items()
        ],
    }


def rules(*of: AlarmRule) -> Any:
    return RuleBook(of).for_device("press-1")


def detector(*of: AlarmRule) -> DeviceDetector:
    return DeviceDetector("press-1", rules(*of))


def take(d: DeviceDetector, of: Any, put_forward_ms: int = 0) -> list[AlarmEvent]:
    return d.take_frame(of, of["event_time_ms"], put_forward_ms)


def look(d: DeviceDetector, until_ms: int) -> list[AlarmEvent]:
    """A timer, when it is known what came until then."""
    return d.run_timers(T0 + until_ms, T0 + until_ms)


def told(events: list[AlarmEvent]) -> list[tuple[str, str, int]]:
    return [(e.kind, e.metric, e.event_time_ms - T0) for e in events]


def test_the_next_frame_tells_a_gap_at_its_own_times() -> None:
    d = detector(LOST)
    assert take(d, frame(0, t=1.0)) == []
    assert take(d, frame(AFTER_MS, t=1.0)) == []
    raised, cleared = take(d, frame(3 * AFTER_MS, t=1.0))
    assert told([raised, cleared]) == [("RAISED", "t", 2 * AFTER_MS), ("CLEARED", "t", 3 * AFTER_MS)]
    assert raised.alarm_id == cleared.alarm_id == alarm_id_of("press-1", "lost", "t", T0 + 2 * AFTER_MS)
    assert (raised.revision, cleared.revision) == (1, 2)
    assert (raised.value, raised.limit, raised.severity, raised.site) == (None, None, HIGH, "hall")
    assert raised.message == "press-1 t 60 HIGH"
    assert cleared.message == "press-1 t: data are back"


def test_a_timer_tells_the_same_alarm_as_the_next_frame() -> None:
    by_frame, by_timer = detector(LOST), detector(LOST)
    for d in (by_frame, by_timer):
        take(d, frame(0, t=1.0))
    assert look(by_timer, AFTER_MS) == []
    [raised] = look(by_timer, AFTER_MS + 1)
    assert look(by_timer, 5 * AFTER_MS) == []
    [cleared] = take(by_timer, frame(9 * AFTER_MS, t=1.0))
    assert [raised, cleared] == take(by_frame, frame(9 * AFTER_MS, t=1.0))


def test_other_metrics_of_the_device_show_that_one_is_missing() -> None:
    d = detector(LOST, SILENT)
    take(d, frame(0, t=1.0, p=1.0))
    events = [e for at in range(1000, 70_000, 1000) for e in take(d, frame(at, p=1.0))]
    assert told(events) == [("RAISED", "t", AFTER_MS)]
    assert told(take(d, frame(70_000, t=1.0))) == [("CLEARED", "t", 70_000)]


def test_a_device_that_goes_on_being_silent_gets_worse() -> None:
    d = detector(SILENT)
    take(d, frame(0, anything=1.0))
    events = look(d, AFTER_MS + 1) + look(d, 10 * AFTER_MS + 1) + look(d, 99 * AFTER_MS)
    events += take(d, frame(100 * AFTER_MS, other=1.0))
    assert [(e.kind, e.severity, e.revision) for e in events] == [
        ("RAISED", HIGH, 1),
        ("SEVERITY_CHANGED", CRITICAL, 2),
        ("CLEARED", CRITICAL, 3),
    ]
    assert events[1].event_time_ms == T0 + 10 * AFTER_MS
    assert events[0].message == "press-1  at , limit "  # the default of `AlarmRule`; files have their own
    assert events[2].message == "press-1: data are back"
    assert {e.alarm_id for e in events} == {alarm_id_of("press-1", "silent", "", T0 + AFTER_MS)}


def test_what_was_never_seen_is_not_missed() -> None:
    d = detector(LOST)
    take(d, frame(0, p=1.0))
    assert take(d, frame(100 * AFTER_MS, p=1.0)) + look(d, 200 * AFTER_MS) == []
    assert d.state == {}


@pytest.mark.parametrize("quality", [QUALITY_BAD, QUALITY_STALE])
def test_values_that_are_not_good_are_no_data(quality: int) -> None:
    d = detector(LOST, SILENT)
    take(d, frame(0, t=1.0))
    for at_ms in range(1000, AFTER_MS, 1000):
        take(d, frame(at_ms, quality, t=1.0))
    events = look(d, AFTER_MS + 1)
    assert told(events) == [("RAISED", "t", AFTER_MS), ("RAISED", "", AFTER_MS)]
    assert take(d, frame(AFTER_MS + 2, quality, t=1.0)) == []
    assert {e.kind for e in take(d, frame(AFTER_MS + 3, t=1.0))} == {"CLEARED"}


def test_what_is_not_finite_is_no_value_but_the_device_is_there() -> None:
    d = detector(LOST, SILENT)
    take(d, frame(0, t=1.0))
    for number in (float("inf"), float("nan")):
        assert not d.passes(("t",), (number,), T0 + 1)
    events = [e for at in range(1000, 70_000, 1000) for e in take(d, frame(at, t=float("inf")))]
    assert told(events) == [("RAISED", "t", AFTER_MS)]


def test_text_is_data() -> None:
    d = detector(msgspec.structs.replace(LOST, metric="*"), SILENT)
    take(d, frame(0, mode="auto"))
    take(d, frame(50_000, mode="auto"))
    assert look(d, 100_000) == []
    assert told(look(d, 50_001 + AFTER_MS)) == [
        ("RAISED", "mode", 50_000 + AFTER_MS),
        ("RAISED", "", 50_000 + AFTER_MS),
    ]


def test_a_value_that_is_not_newer_than_the_last_clears_nothing() -> None:
    d = detector(LOST)
    take(d, frame(1000, t=1.0))
    assert len(look(d, 1001 + AFTER_MS)) == 1
    assert take(d, frame(1000, t=1.0)) + take(d, frame(500, t=1.0)) == []
    # One of before the alarm that was on its way: newer than the last, so data are back, but not before it.
    [cleared] = take(d, frame(30_000, t=1.0))
    assert told([cleared]) == [("CLEARED", "t", 1000 + AFTER_MS)]
    assert look(d, 30_001 + AFTER_MS)[0].kind == "RAISED"


def test_a_value_that_comes_too_late_is_no_sign_of_life() -> None:
    d = detector(LOST)
    take(d, frame(0, t=1.0))
    take(d, frame(2 * MAX_LATE_MS, p=1.0))
    assert take(d, frame(MAX_LATE_MS - 1, t=1.0)) == []
    assert take(d, frame(MAX_LATE_MS + 1, t=1.0))[0].kind == "CLEARED"


def test_limits_and_silence_of_one_metric_are_two_alarms() -> None:
    d = detector(HOT, LOST)
    take(d, frame(0, t=95.0))
    assert told(look(d, AFTER_MS + 1)) == [("RAISED", "t", AFTER_MS)]
    events = take(d, frame(2 * AFTER_MS, t=50.0))
    assert [(e.rule_id, e.kind) for e in events] == [("lost", "CLEARED"), ("hot", "CLEARED")]


def test_a_withdrawn_rule_clears_and_waits_no_more() -> None:
    d = detector(LOST, SILENT)
    take(d, frame(0, t=1.0))
    look(d, AFTER_MS + 1)
    events = d.take_rules(rules(SILENT), T0 + 2 * AFTER_MS)
    assert told(events) == [("CLEARED", "t", 2 * AFTER_MS)]
    assert "no longer applies" in events[0].message
    assert [key for key, _ in d.state] == ["silent"]
    events = d.take_rules(rules(), T0 + 3 * AFTER_MS)
    assert told(events) == [("CLEARED", "", 3 * AFTER_MS)]
    assert events[0].message == "press-1: rule silent no longer applies"
    assert d.state == {}
    assert d.passes(("t",), (1.0,), T0 + 4 * AFTER_MS)


def test_a_changed_rule_goes_on_from_the_last_value() -> None:
    d = detector(LOST)
    take(d, frame(0, t=1.0))
    longer = msgspec.structs.replace(LOST, version=2, missing=(Missing(HIGH, 2 * AFTER_MS),))
    assert d.take_rules(rules(longer), T0 + 1000) == []
    assert look(d, 2 * AFTER_MS) == []
    [raised] = look(d, 2 * AFTER_MS + 1)
    assert (raised.event_time_ms, raised.rule_version) == (T0 + 2 * AFTER_MS, 2)
    # Back to the shorter one: what is in force stays so.
    assert d.take_rules(rules(msgspec.structs.replace(LOST, version=3)), T0 + 3 * AFTER_MS) == []
    assert told(take(d, frame(4 * AFTER_MS, t=1.0))) == [("CLEARED", "t", 4 * AFTER_MS)]


def test_a_rule_that_becomes_one_of_the_other_kind_clears() -> None:
    limits = msgspec.structs.replace(HOT, rule_id="lost", version=2)
    d = detector(LOST)
    take(d, frame(0, t=1.0))
    look(d, AFTER_MS + 1)
    assert told(d.take_rules(rules(limits), T0 + 2 * AFTER_MS)) == [("CLEARED", "t", 2 * AFTER_MS)]
    assert told(take(d, frame(2 * AFTER_MS + 1, t=95.0))) == [("RAISED", "t", 2 * AFTER_MS + 1)]
    assert told(d.take_rules(rules(LOST), T0 + 3 * AFTER_MS)) == [("CLEARED", "t", 3 * AFTER_MS)]
    take(d, frame(3 * AFTER_MS + 1, t=95.0))
    assert told(look(d, 5 * AFTER_MS)) == [("RAISED", "t", 4 * AFTER_MS + 1)]


def test_a_device_of_very_many_metrics_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing, "KEYS_MAX", 3)
    d = detector(msgspec.structs.replace(LOST, metric="*"))
    take(d, frame(0, **{f"m{n}": 1.0 for n in range(5)}))
    assert len(d.state) == 3
    assert d.silences.refused == 2
    # What is not waited for does not keep the others from the short way.
    names = tuple(f"m{n}" for n in range(5))
    assert d.passes(names, (1.0,) * 5, T0 + 1)


def test_values_are_noted_lazily() -> None:
    d = detector(LOST, SILENT)
    take(d, frame(0, t=1.0))
    written = 0
    for at_ms in range(100, 100_000, 100):
        if not d.passes(("t",), (1.0,), T0 + at_ms):
            before = d.state
            take(d, frame(at_ms, t=1.0))
            written += d.state is not before
    assert written <= 100_000 // margin_ms(LOST) + 1
    # And yet the last one is known to the millisecond.
    assert look(d, 99_900 + AFTER_MS) == []
    assert {at_ms for _, _, at_ms in told(look(d, 99_901 + AFTER_MS))} == {99_900 + AFTER_MS}


def test_a_stored_state_is_exact_once_the_device_is_quiet() -> None:
    d = detector(LOST)
    for at_ms in range(0, 30_000, 100):
        if not d.passes(("t",), (1.0,), T0 + at_ms):
            take(d, frame(at_ms, t=1.0))
    look(d, 30_000 + margin_ms(LOST))
    restored = detector(LOST)
    restored.site, restored.state = unpack(pack("hall", d.state))
    assert look(restored, 31_000 + AFTER_MS) == look(d, 31_000 + AFTER_MS) != []


def test_looking_again_and_again_moves_nothing() -> None:
    d = detector(LOST)
    take(d, frame(0, t=1.0))
    for _ in range(10):
        restored = detector(LOST)
        _, restored.state = unpack(pack("hall", d.state))
        look(restored, 1000)
        d = restored
    assert told(look(d, 10 * AFTER_MS)) == [("RAISED", "t", margin_ms(LOST) + AFTER_MS)]


def test_a_clock_put_back_keeps_what_was_silent_already() -> None:
    d = detector(LOST)
    hour_ms = 3_600_000
    take(d, frame(hour_ms, t=1.0))
    now_ms, events = hour_ms, []
    while d.clock.steps == 0:
        now_ms += 1000
        events += d.take_frame(frame(now_ms - hour_ms, p=1.0), T0 + now_ms)
    # Frames in the new time are not judged for a minute; afterwards that minute has not passed.
    assert now_ms == hour_ms + STEP_AFTER_MS + 1000
    assert events == []
    at_ms = now_ms - hour_ms
    assert take(d, frame(at_ms + AFTER_MS, p=1.0)) == []
    assert len(take(d, frame(at_ms + AFTER_MS + margin_ms(LOST) + 1, p=1.0))) == 1


def test_a_clock_put_forward_is_no_silence() -> None:
    d = detector(LOST, SILENT)
    years_ms = 50 * 365 * 24 * 3_600_000
    take(d, frame(0, t=1.0, p=1.0))
    assert take(d, frame(years_ms, p=1.0), put_forward_ms=years_ms - 1000) == []
    assert told(look(d, years_ms + AFTER_MS)) == [("RAISED", "t", years_ms - 1000 + AFTER_MS)]
    assert told(look(d, years_ms + AFTER_MS + 1)) == [("RAISED", "", years_ms + AFTER_MS)]
    again = detector(LOST, SILENT)
    take(again, frame(0, t=1.0))
    assert len(take(again, frame(years_ms, t=1.0))) == 5, "it is by event time alone"


def test_what_the_log_says_of_a_silence_is_held_against_the_state() -> None:
    d = detector(LOST)
    take(d, frame(0, t=1.0))
    before = d.state
    [raised] = look(d, AFTER_MS + 1)
    assert reconcile(d.state, raised, T0 + 2 * AFTER_MS) == (d.state, None)
    # A replay in which the value came in time.
    _, corrected = reconcile(before, raised, T0 + 2 * AFTER_MS)
    assert corrected is not None
    assert (corrected.kind, corrected.revision) == ("CLEARED", 2)


# (time to the frame before, the metrics in it, whether the frame is looked at the short way first,
# whether a timer looks before it)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([1, 500, 1000, 2500, 3999, 4000, 4001, 9000, 15_000, 70_000]),
        st.sets(st.sampled_from("tup"), min_size=1),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)
MODEL_RULES = (
    AlarmRule("all", 1, "*", "*", (), missing=(Missing(CRITICAL, 12_000), Missing(HIGH, 4_000))),
    AlarmRule("device", 1, "*", WHOLE_DEVICE, (), missing=(Missing(HIGH, 3_000),)),
)


def expected_changes(steps: list[Any], end_ms: int) -> set[tuple[str, str, str, int]]:
    """(rule, metric, kind, time) by looking at the times at which each key was seen, and nothing else."""
    seen: dict[tuple[str, str], list[int]] = {}
    at_ms = 0
    for gap_ms, metrics, *_ in steps:
        at_ms += gap_ms
        for key in [("device", ""), *(("all", metric) for metric in metrics)]:
            seen.setdefault(key, []).append(at_ms)
    changes = set()
    for (rule_id, metric), times in seen.items():
        for last_ms, next_ms in zip(times, [*times[1:], None], strict=True):
            gap_ms = (end_ms if next_ms is None else next_ms) - last_ms
            of_rule = next(rule for rule in MODEL_RULES if rule.rule_id == rule_id)
            over = sorted(m.after_ms for m in of_rule.missing if gap_ms > m.after_ms)
            for n, after_ms in enumerate(over):
                changes.add((rule_id, metric, "SEVERITY_CHANGED" if n else "RAISED", last_ms + after_ms))
            if over and next_ms is not None:
                changes.add((rule_id, metric, "CLEARED", next_ms))
    return changes


def play(steps: list[Any], d: DeviceDetector, at_ms: int = 0) -> tuple[list[AlarmEvent], int]:
    events: list[AlarmEvent] = []
    for gap_ms, metrics, short, timer in steps:
        if timer:
            events += look(d, at_ms + gap_ms - 1)
        at_ms += gap_ms
        names = tuple(sorted(metrics))
        if not (short and d.passes(names, (1.0,) * len(names), T0 + at_ms)):
            events += take(d, frame(at_ms, **dict.fromkeys(names, 1.0)))
    return events, at_ms


def changes_of(events: list[AlarmEvent]) -> list[tuple[str, str, str, int]]:
    return [(e.rule_id, e.metric, e.kind, e.event_time_ms - T0) for e in events]


@given(STEPS, st.sampled_from([0, 2_999, 3_001, 4_001, 20_000]))
@settings(max_examples=300, deadline=None)
def test_every_silence_is_told_once_whoever_notices(steps: list[Any], then_ms: int) -> None:
    d = detector(*MODEL_RULES)
    events, end_ms = play(steps, d)
    events += look(d, end_ms + then_ms)
    assert sorted(changes_of(events)) == sorted(expected_changes(steps, end_ms + then_ms))
    revisions: dict[str, list[int]] = {}
    for event in events:
        revisions.setdefault(event.alarm_id, []).append(event.revision)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in revisions.values())
    active = {t.alarm.alarm_id for t in d.state.values() if t.alarm and t.limit.level != NORMAL}
    last = {event.alarm_id: event.kind for event in events}
    assert active == {alarm_id for alarm_id, kind in last.items() if kind != "CLEARED"}


@given(STEPS, STEPS, st.integers(0, 10))
@example([(1, {"t"}, False, False), (900, {"t"}, True, False)], [(3_500, {"t"}, False, True)], 1)
@settings(max_examples=300, deadline=None)
def test_what_is_restored_misses_nothing_that_came(before: list[Any], after: list[Any], lost: int) -> None:
    """What was written by some frame is gone on from after frames that left nothing behind. Silence may be
    told later than it was, by what a row may be ahead; never sooner, and never where there was none.
    """
    d = detector(*MODEL_RULES)
    play(before, d)
    packed = pack("hall", d.state)
    passed = 0
    at_ms = sum(gap_ms for gap_ms, *_ in before)
    for _ in range(lost):
        if not d.passes(("t",), (1.0,), T0 + at_ms + 100):
            break
        at_ms += 100
        passed += 1
    whole = [*before, *([(100, {"t"}, True, False)] * passed), *after]
    restored = detector(*MODEL_RULES)
    restored.site, restored.state = unpack(packed)
    events, end_ms = play(after, restored, at_ms)
    events += look(restored, end_ms + 20_000)
    true = {(rule, metric): [] for rule, metric, *_ in expected_changes(whole, end_ms + 20_000)}  # type: ignore[var-annotated]
    for rule, metric, kind, when_ms in sorted(expected_changes(whole, end_ms + 20_000), key=lambda c: c[3]):
        true[rule, metric].append((kind, when_ms))
    most_ms = max(margin_ms(rule) for rule in MODEL_RULES)
    for rule_id, metric, kind, when_ms in changes_of(events):
        if kind != "CLEARED":
            assert any(k != "CLEARED" and t <= when_ms <= t + most_ms for k, t in true[rule_id, metric])

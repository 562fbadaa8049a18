"""One rule on one metric: limits, deadband, delays, late values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.domain.limits import NORMAL, LevelChange, LimitState, evaluate, expire, next_due_ms
from plantwire.domain.rule_book import CompiledRule, compile_rule
from plantwire.schemas.records import AlarmRule, Limit
from plantwire.schemas.severity import Severity

CRITICAL, HIGH = int(Severity.CRITICAL), int(Severity.HIGH)


def compiled(*limits: Limit, on_delay_ms: int = 0, off_delay_ms: int = 0) -> CompiledRule:
    return compile_rule(
        AlarmRule("r", 1, "*", "*", limits, on_delay_ms=on_delay_ms, off_delay_ms=off_delay_ms)
    )


def run(
    rule: CompiledRule, samples: list[tuple[int, float]], state: LimitState | None = None
) -> tuple[LimitState, list[LevelChange]]:
    state = state or LimitState()
    changes: list[LevelChange] = []
    for at_ms, value in samples:
        state, new = evaluate(rule, state, value, at_ms)
        changes += new
    return state, changes


TEMPERATURE = compiled(Limit(HIGH, above=90, deadband=2), Limit(CRITICAL, above=100, deadband=2))


def levels(changes: list[LevelChange]) -> list[tuple[int, int, int]]:
    return [(c.at_ms, c.before, c.after) for c in changes]


def test_a_value_on_the_limit_is_normal_and_above_it_is_not() -> None:
    assert run(TEMPERATURE, [(1, 90.0)])[1] == []
    assert levels(run(TEMPERATURE, [(1, 90.0001)])[1]) == [(1, NORMAL, HIGH)]


def test_fires_only_on_a_change_of_level() -> None:
    _, changes = run(TEMPERATURE, [(1, 95), (2, 96), (3, 101), (4, 102), (5, 95), (6, 80), (7, 80)])
    assert levels(changes) == [(1, NORMAL, HIGH), (3, HIGH, CRITICAL), (5, CRITICAL, HIGH), (6, HIGH, NORMAL)]


def test_deadband_holds_each_limit_by_itself() -> None:
    _, changes = run(TEMPERATURE, [(1, 101), (2, 98.5), (3, 98), (4, 88.5), (5, 88)])
    assert levels(changes) == [(1, NORMAL, CRITICAL), (3, CRITICAL, HIGH), (5, HIGH, NORMAL)]


def test_deadband_of_one_side_does_not_hold_the_other() -> None:
    rule = compiled(Limit(HIGH, above=90, below=10, deadband=5))
    _, changes = run(rule, [(1, 95), (2, 12)])
    assert levels(changes) == [(1, NORMAL, HIGH), (2, HIGH, NORMAL)]


def test_from_one_side_to_the_other_is_no_change_of_level() -> None:
    rule = compiled(Limit(HIGH, above=90, below=10, deadband=5))
    state, changes = run(rule, [(1, 95), (2, 5), (3, 14)])
    assert levels(changes) == [(1, NORMAL, HIGH)]
    assert state.level == HIGH


def test_a_change_tells_the_value_and_the_threshold() -> None:
    _, changes = run(TEMPERATURE, [(1, 101), (2, 80)])
    assert [(c.value, c.limit) for c in changes] == [(101, 100), (80, 100)]


def test_on_delay_wants_the_whole_of_it() -> None:
    rule = compiled(Limit(HIGH, above=90), on_delay_ms=1000)
    _, changes = run(rule, [(0, 95), (900, 95), (950, 80), (1000, 95), (1999, 95)])
    assert changes == []
    _, changes = run(rule, [(0, 95), (900, 96), (1500, 97)])
    assert levels(changes) == [(1000, NORMAL, HIGH)]
    assert changes[0].value == 96


def test_a_value_holds_until_the_next_one() -> None:
    # The delay ends at 1000, before the normal value arrives: both the raise and the clear happened.
    rule = compiled(Limit(HIGH, above=90), on_delay_ms=1000)
    _, changes = run(rule, [(0, 95), (1500, 80)])
    assert levels(changes) == [(1000, NORMAL, HIGH), (1500, HIGH, NORMAL)]


def test_each_limit_has_a_clock_of_its_own() -> None:
    # The critical limit is violated only for the last 100 ms of the delay: HIGH first, CRITICAL later.
    rule = compiled(Limit(HIGH, above=90), Limit(CRITICAL, above=100), on_delay_ms=1000)
    _, changes = run(rule, [(0, 95), (900, 105), (1000, 105), (1899, 105), (1900, 105)])
    assert levels(changes) == [(1000, NORMAL, HIGH), (1900, HIGH, CRITICAL)]


def test_off_delay_wants_the_whole_of_it() -> None:
    rule = compiled(Limit(HIGH, above=90), off_delay_ms=1000)
    _, changes = run(rule, [(0, 95), (100, 80), (1000, 95), (1100, 80), (2099, 80)])
    assert levels(changes) == [(0, NORMAL, HIGH)]
    _, changes = run(rule, [(0, 95), (100, 80), (1100, 80)])
    assert levels(changes) == [(0, NORMAL, HIGH), (1100, HIGH, NORMAL)]


def test_a_timer_and_the_next_value_tell_the_same() -> None:
    rule = compiled(Limit(HIGH, above=90), on_delay_ms=1000)
    pending, _ = run(rule, [(0, 95)])
    assert next_due_ms(pending) == 1000
    by_timer = expire(rule, pending, 5000)
    by_value = evaluate(rule, pending, 95, 5000)
    assert by_timer == by_value


def test_a_late_value_raises_but_never_clears() -> None:
    _, changes = evaluate(TEMPERATURE, LimitState(), 95.0, 500, late=True)
    assert levels(list(changes)) == [(500, NORMAL, HIGH)]
    raised, _ = run(TEMPERATURE, [(1000, 95)])
    assert evaluate(TEMPERATURE, raised, 20.0, 1500, late=True) == (raised, ())
    # Before the last change it is a duplicate of what was told, or part of it.
    assert evaluate(TEMPERATURE, raised, 101.0, 1000, late=True) == (raised, ())


def test_a_late_value_does_not_stop_a_running_delay() -> None:
    rule = compiled(Limit(HIGH, above=90), on_delay_ms=1000)
    pending, _ = run(rule, [(1000, 95)])
    assert evaluate(rule, pending, 20.0, 900, late=True) == (pending, ())


def test_a_rule_that_lost_its_severe_limit_lowers_the_level() -> None:
    state, _ = run(TEMPERATURE, [(1, 105)])
    milder = compiled(Limit(HIGH, above=90, deadband=2))
    state, changes = evaluate(milder, state, 105, 2)
    assert levels(list(changes)) == [(2, CRITICAL, HIGH)]


def test_safe_band_is_where_nothing_is_violated() -> None:
    rule = compiled(Limit(HIGH, above=90, below=10), Limit(CRITICAL, above=100))
    assert (rule.safe_low, rule.safe_high) == (10, 90)
    assert compiled(Limit(HIGH, below=10)).safe_high == math.inf


values = st.floats(min_value=0, max_value=200, allow_nan=False)
delays = st.sampled_from([0, 500, 2000])


@given(
    gaps_and_values=st.lists(st.tuples(st.integers(1, 3000), values), max_size=40),
    on_delay_ms=delays,
    off_delay_ms=delays,
    deadband=st.sampled_from([0.0, 5.0]),
)
def test_properties(
    gaps_and_values: list[tuple[int, float]], on_delay_ms: int, off_delay_ms: int, deadband: float
) -> None:
    rule = compiled(
        Limit(HIGH, above=90, below=20, deadband=deadband),
        Limit(CRITICAL, above=100, deadband=deadband),
        on_delay_ms=on_delay_ms,
        off_delay_ms=off_delay_ms,
    )
    state, now_ms, changes = LimitState(), 0, []
    with_timers, timed = LimitState(), []
    for gap_ms, value in gaps_and_values:
        # A timer somewhere in the gap must make no difference to what is told, nor to when.
        with_timers, new = expire(rule, with_timers, now_ms + gap_ms // 2)
        timed += new
        now_ms += gap_ms
        state, new = evaluate(rule, state, value, now_ms)
        changes += new
        with_timers, new = evaluate(rule, with_timers, value, now_ms)
        timed += new
    assert timed == changes
    assert with_timers == state
    level = NORMAL
    last_ms = 0
    for change in changes:
        assert change.before == level
        assert change.after != change.before
        assert change.at_ms >= last_ms
        level, last_ms = change.after, change.at_ms
    assert state.level == level
    if not on_delay_ms and not off_delay_ms and not deadband and gaps_and_values:
        value = gaps_and_values[-1][1]
        expected = CRITICAL if value > 100 else HIGH if value > 90 or value < 20 else NORMAL
        assert state.level == expected


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinity_is_a_violation_of_an_open_limit(value: float) -> None:
    # Edges refuse infinities; if one gets here it must at least not look normal.
    rule = compiled(Limit(HIGH, above=90, below=10))
    assert levels(run(rule, [(1, value)])[1]) == [(1, NORMAL, HIGH)]

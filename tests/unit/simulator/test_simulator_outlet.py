"""Back-off and counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plantwire.simulator.outlet import (
    RETRY_FIRST_S,
    RETRY_LONGEST_S,
    Accepted,
    Dropped,
    Gate,
    Outcome,
    Rejected,
    Tally,
    Unchanged,
)


def test_the_gate_closes_for_longer_after_each_failure_up_to_a_bound() -> None:
    gate, now_s, waits = Gate(), 100.0, []
    for _ in range(8):
        gate.fail(now_s, chance=1.0)
        waits.append(gate.wait_s(now_s))
        assert not gate.is_open(now_s)
        now_s += waits[-1]
        assert gate.is_open(now_s)
    assert waits[:4] == [RETRY_FIRST_S, 2 * RETRY_FIRST_S, 4 * RETRY_FIRST_S, 8 * RETRY_FIRST_S]
    assert waits[-1] == RETRY_LONGEST_S


def test_failures_at_once_count_as_one_and_success_starts_over() -> None:
    gate = Gate()
    for _ in range(20):
        gate.fail(0.0, chance=1.0)
    assert gate.wait_s(0.0) == RETRY_FIRST_S
    gate.succeed()
    gate.fail(10.0, chance=1.0)
    assert gate.wait_s(10.0) == RETRY_FIRST_S


def test_retry_after_is_heeded_within_the_bound() -> None:
    gate = Gate()
    gate.fail(0.0, chance=0.0, at_least_s=3.0)
    assert gate.wait_s(0.0) == 3.0
    gate.fail(3.0, chance=0.0, at_least_s=9_999.0)
    assert gate.wait_s(3.0) == RETRY_LONGEST_S


@given(st.floats(0, 1, exclude_max=True))
def test_chance_spreads_over_the_upper_half(chance: float) -> None:
    gate = Gate()
    gate.fail(0.0, chance)
    assert RETRY_FIRST_S / 2 <= gate.wait_s(0.0) <= RETRY_FIRST_S


OUTCOMES = st.one_of(
    st.just(Accepted()),
    st.just(Unchanged()),
    st.builds(Rejected, st.text(max_size=3)),
    st.builds(Dropped, st.integers(0, 200).map(str)),
)


@given(st.lists(st.tuples(st.sampled_from(["http", "mqtt"]), OUTCOMES)))
def test_every_frame_is_counted_once_under_a_bounded_number_of_reasons(
    outcomes: list[tuple[str, Outcome]],
) -> None:
    tally = Tally()
    for outlet, outcome in outcomes:
        tally.count(outlet, outcome)
    assert tally.made == len(outcomes)
    told = tally.accepted.total() + tally.rejected.total() + tally.dropped.total()
    assert tally.made == told + tally.unchanged
    assert max(len(tally.rejected), len(tally.dropped)) <= 51


def test_only_a_new_reason_is_news() -> None:
    tally = Tally()
    outcomes = [
        Accepted(),
        Unchanged(),
        Dropped("away"),
        Dropped("away"),
        Rejected("away"),
        Dropped("busy"),
    ]
    assert [tally.count("http", outcome) for outcome in outcomes] == [
        False,
        False,
        True,
        False,
        True,
        True,
    ]

"""The rate limit: a burst, then a steady rate, whatever the order of calls; bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.rate_limit import RateLimit


def test_a_burst_goes_through_and_then_one_has_to_wait() -> None:
    limit = RateLimit(per_s=10, burst=5)
    for _ in range(5):
        assert limit.wait_s("a", 100.0) == 0
        limit.charge("a", 1, 100.0)
    assert limit.wait_s("a", 100.0) == pytest.approx(0.1)
    assert limit.wait_s("b", 100.0) == 0
    assert limit.wait_s("a", 100.1) < 1e-9


def test_a_request_larger_than_the_burst_is_paid_for_afterwards() -> None:
    limit = RateLimit(per_s=10, burst=5)
    limit.charge("a", 25, 100.0)
    assert limit.wait_s("a", 100.0) == pytest.approx(2.1)
    assert limit.wait_s("a", 102.1) < 1e-9


def test_who_was_charged_longest_ago_is_forgotten_first() -> None:
    limit = RateLimit(per_s=1, burst=1, clients_max=2)
    for key in ("a", "b", "a", "c"):
        limit.charge(key, 10, 0.0)
    assert len(limit) == 2
    assert limit.wait_s("b", 0.0) == 0
    assert limit.wait_s("a", 0.0) > 10
    assert limit.wait_s("c", 0.0) > 0


@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 30)), max_size=60),
    st.integers(1, 50),
    st.integers(1, 50),
)
def test_no_more_than_the_burst_the_rate_and_one_request(
    calls: list[tuple[float, int]], per_s: int, burst: int
) -> None:
    limit, now_s, taken, largest = RateLimit(per_s, burst), 1000.0, 0, 0
    for pause_s, amount in calls:
        now_s += pause_s
        if limit.wait_s("a", now_s) == 0:
            limit.charge("a", amount, now_s)
            taken, largest = taken + amount, max(largest, amount)
    assert taken <= burst + per_s * (now_s - 1000.0) + largest + 1e-6


@given(st.floats(0.01, 1000), st.integers(1, 1000), st.integers(1, 5000), st.floats(0, 1e6))
def test_who_waits_as_long_as_told_may_go_on(per_s: float, burst: int, amount: int, now_s: float) -> None:
    limit = RateLimit(per_s, burst)
    limit.charge("a", amount, now_s)
    assert limit.wait_s("a", now_s + limit.wait_s("a", now_s) + 1e-3) == 0

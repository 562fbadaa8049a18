"""The back-off: grows, stays under its ceiling, spreads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plantwire.platform.backoff import jittered_backoff_s


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_it_stays_between_half_the_ceiling_and_the_longest(failures: int, chance: float) -> None:
    delay_s = jittered_backoff_s(failures, 0.25, 30.0, chance)
    ceiling_s = min(30.0, 0.25 * 2 ** min(failures - 1, 32))
    assert ceiling_s / 2 <= delay_s <= ceiling_s


def test_it_doubles() -> None:
    assert [jittered_backoff_s(n, 1.0, 8.0, 0.0) for n in (1, 2, 3, 4, 5)] == [0.5, 1.0, 2.0, 4.0, 4.0]

"""The knee is a rate that held, with one that did not just above it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.knee import KneeSearch


def search(true_knee: int, start: int = 500, ceiling: int = 5_000) -> tuple[int | None, list[int]]:
    found, tried = KneeSearch(start, step=250, resolution=50, ceiling=ceiling), []
    while (rate := found.next_rate()) is not None:
        tried.append(rate)
        found.note(rate, held=rate <= true_knee)
    return found.knee, tried


def test_it_climbs_and_then_halves() -> None:
    assert search(1_130) == (1_100, [500, 750, 1_000, 1_250, 1_100, 1_150])


def test_a_start_that_does_not_hold_is_halved_down() -> None:
    knee, tried = search(180)
    assert knee == 150
    assert tried[0] == 500


def test_nothing_holds() -> None:
    knee, tried = search(0)
    assert knee is None
    assert min(tried) == 50


def test_the_ceiling_ends_it() -> None:
    assert search(9_999, ceiling=1_100) == (1_100, [500, 750, 1_000, 1_100])


@given(true_knee=st.integers(0, 6_000), start=st.integers(1, 5_000))
def test_it_always_ends_within_the_resolution(true_knee: int, start: int) -> None:
    knee, tried = search(true_knee, start)
    assert len(tried) <= 30
    assert (knee or 0) <= true_knee
    assert min(true_knee, 5_000) - (knee or 0) < 50 or any(
        rate > true_knee and rate - (knee or 0) <= 50 for rate in tried
    )


def test_a_step_finer_than_the_resolution_is_refused() -> None:
    with pytest.raises(ValueError, match="resolution"):
        KneeSearch(500, step=20, resolution=50, ceiling=1_000)

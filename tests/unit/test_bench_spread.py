"""Percentiles are measured values; the spread of repeats is what textbooks say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.spread import distribution, median, percentile, repeats

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


def test_nearest_rank_of_a_hundred_values_is_the_value_of_that_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, q) for q in (0.01, 0.5, 0.95, 0.99, 1.0)] == [1, 50, 95, 99, 100]


def test_a_product_just_above_a_whole_rank_does_not_skip_to_the_next() -> None:
    assert percentile([float(n) for n in range(1, 21)], 0.95) == 19


def test_p99_of_fewer_than_a_hundred_values_is_the_largest() -> None:
    assert percentile([1.0, 2.0, 300.0], 0.99) == 300.0


@given(st.lists(finite, min_size=1), st.floats(min_value=0.01, max_value=1))
def test_a_percentile_is_measured_and_not_exceeded_by_its_fraction(
    values: list[float], fraction: float
) -> None:
    ordered = sorted(values)
    found = percentile(ordered, fraction)
    assert found in ordered
    assert sum(1 for value in ordered if value <= found) >= fraction * len(ordered) - 1e-6


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01])
def test_a_fraction_outside_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        percentile([1.0], fraction)


def test_nothing_measured_has_no_distribution() -> None:
    assert distribution([]) is None
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 0.5)


def test_distribution_holds_the_tail() -> None:
    found = distribution([1.0] * 98 + [50.0, 200.0])
    assert found is not None
    assert (found.count, found.p50, found.p95, found.p99, found.max) == (100, 1.0, 1.0, 50.0, 200.0)
    assert found.mean == 3.48


def test_repeats_give_median_extremes_and_interquartile_range() -> None:
    found = repeats([10.0, 30.0, 20.0, 50.0, 40.0])
    assert (found.median, found.min, found.max, found.iqr) == (30.0, 10.0, 50.0, 20.0)
    assert found.values == (10.0, 30.0, 20.0, 50.0, 40.0)


def test_median_of_an_even_number_lies_between() -> None:
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5

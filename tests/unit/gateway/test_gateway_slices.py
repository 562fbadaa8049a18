"""Frames in slices: all of them, in order, none too costly."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.slices import cost_of, slices
from plantwire.schemas.records import Metric, TelemetryFrame


def frame(number: int, metrics: int) -> TelemetryFrame:
    return TelemetryFrame("d", "", number, 1, 1, "http", False, (Metric("t", 1.0),) * metrics)


def test_few_are_one_slice() -> None:
    frames = (frame(0, 10), frame(1, 10))
    assert list(slices(frames)) == [frames]
    assert list(slices(())) == []


@given(st.lists(st.integers(1, 120), max_size=60))
def test_nothing_is_lost_and_no_slice_costs_more_than_it_may(sizes: list[int]) -> None:
    frames = tuple(frame(number, size) for number, size in enumerate(sizes))
    parts = list(slices(frames, cost_max=100))
    assert tuple(one for part in parts for one in part) == frames
    for part in parts:
        assert sum(cost_of(one) for one in part) <= 100 or len(part) == 1
    for part, following in pairwise(parts):
        assert sum(cost_of(one) for one in (*part, following[0])) > 100, "cut only where it must be"

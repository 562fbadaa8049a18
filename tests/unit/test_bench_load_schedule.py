"""The plan of the load: open loop, evenly spread, never inside the deduplication window."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load_schedule import DEDUPLICATION_WINDOW_MS, LoadPlan


def short_plan(**changes: int) -> LoadPlan:
    return LoadPlan(**({"warm_up_ms": 2_000, "window_ms": 10_000} | changes))


def test_the_default_load_is_what_the_acceptance_states() -> None:
    plan = LoadPlan()
    assert plan.frames_per_s * plan.metrics == 5_000
    assert (plan.warm_up_ms, plan.window_ms) == (30_000, 180_000)
    assert sum(plan.in_window(r.raise_offset_ms) for r in plan.raises()) == pytest.approx(900, abs=2)


def test_every_device_sends_at_its_rate() -> None:
    plan = short_plan()
    sent = Counter(plan.device_of(frame) for frame in range(plan.frame_count))
    assert set(sent.values()) == {plan.frame_count // plan.devices}
    of_one_ms = [plan.offset_ms(f) for f in range(plan.frame_count) if plan.device_of(f) == 7]
    assert {b - a for a, b in itertools.pairwise(of_one_ms)} == {100}


def test_a_raise_and_its_clear_are_frames_of_its_device() -> None:
    plan = short_plan()
    for planned in plan.raises():
        assert plan.device_of(planned.raise_frame) == planned.device
        assert plan.device_of(planned.clear_frame) == planned.device
        held_ms = planned.clear_offset_ms - planned.raise_offset_ms
        assert plan.hold_ms <= held_ms <= plan.hold_ms + plan.device_interval_ms
        assert planned.clear_frame < plan.frame_count


def test_raises_fall_on_many_phases_of_the_second() -> None:
    phases = {planned.raise_offset_ms % 1000 for planned in LoadPlan().raises()}
    assert len(phases) >= 100


def test_a_following_plan_goes_on_with_other_pairs() -> None:
    first = short_plan()
    second = short_plan(first_raise=first.raise_count)
    pairs = [{(r.device, r.metric) for r in plan.raises()} for plan in (first, second)]
    assert pairs[0].isdisjoint(pairs[1])


@given(
    frames_per_s=st.integers(20, 5_000),
    devices=st.integers(1, 120),
    metrics=st.integers(1, 20),
    raises_per_s=st.integers(1, 10),
    first_raise=st.integers(0, 1_000),
)
def test_no_pair_is_raised_again_within_the_deduplication_window(
    frames_per_s: int, devices: int, metrics: int, raises_per_s: int, first_raise: int
) -> None:
    try:
        plan = LoadPlan(
            frames_per_s=frames_per_s,
            devices=devices,
            metrics=metrics,
            raises_per_s=raises_per_s,
            first_raise=first_raise,
            warm_up_ms=0,
            window_ms=150_000,
            tail_ms=12_000,
        )
    except ValueError:
        return
    by_pair = defaultdict(list)
    for planned in plan.raises():
        by_pair[planned.device, planned.metric].append(planned)
    slack_ms = 2 * plan.device_interval_ms + 2_000  # the grid of the device's own frames
    for raises in by_pair.values():
        for earlier, later in itertools.pairwise(raises):
            assert later.raise_offset_ms - earlier.clear_offset_ms > DEDUPLICATION_WINDOW_MS - slack_ms


def test_too_few_pairs_are_refused_with_the_number_needed() -> None:
    with pytest.raises(ValueError, match=r"need 316 .* are 100"):
        LoadPlan(devices=10, metrics=10)


def test_a_tail_that_ends_before_the_last_clear_is_refused() -> None:
    with pytest.raises(ValueError, match="tail"):
        LoadPlan(tail_ms=3_000)


@pytest.mark.parametrize(
    "field", ["frames_per_s", "devices", "metrics", "raises_per_s", "hold_ms", "window_ms"]
)
def test_nothing_but_positive_numbers(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        LoadPlan(**{field: 0})

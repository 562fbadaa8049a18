"""The shapes: deterministic, bounded, continuous where they say so."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.simulator.signals import (
    NO_FAULT,
    FaultPlan,
    duty_cycle,
    gaussian,
    load_steps,
    mix,
    sawtooth,
    uniform,
    wander,
    white_noise,
)

SEEDS = st.integers(0, 2**40)
TIMES = st.floats(0, 1e7)


def test_the_generator_is_the_same_on_every_machine() -> None:
    assert [mix(1, 0), mix(1, 1), mix(2, 0)] == [
        6685036501382267578,
        6627595767028125708,
        3047811371739217279,
    ]


def test_noise_has_mean_0_and_deviation_1() -> None:
    values = [gaussian(7, index) for index in range(20_000)]
    assert statistics.fmean(values) == pytest.approx(0, abs=0.03)
    assert statistics.stdev(values) == pytest.approx(1, abs=0.03)
    assert statistics.correlation(values[:-1], values[1:]) == pytest.approx(0, abs=0.03)


@given(SEEDS, SEEDS, TIMES)
def test_everything_stays_in_its_bounds(seed: int, index: int, t_s: float) -> None:
    assert 0 <= uniform(seed, index) < 1
    assert abs(gaussian(seed, index)) <= 3.5
    assert abs(wander(seed, t_s, 30)) <= 3.5
    assert 2 <= load_steps(seed, t_s, 20, 2, 5) <= 5
    assert 0 <= duty_cycle(t_s, 6, 0.4, 0.5) <= 1
    assert 0 <= sawtooth(t_s, 60, 0.7) <= 1


@given(SEEDS, st.floats(0, 1e5))
def test_slow_signals_do_not_jump(seed: int, t_s: float) -> None:
    later_s = t_s + 0.001
    assert abs(wander(seed, later_s, 30) - wander(seed, t_s, 30)) < 0.01
    assert abs(load_steps(seed, later_s, 20, 0, 1) - load_steps(seed, t_s, 20, 0, 1)) < 0.01
    assert abs(sawtooth(later_s, 60, 0.7) - sawtooth(t_s, 60, 0.7)) < 0.01


def test_white_noise_holds_for_its_step() -> None:
    assert white_noise(3, 10.01) == white_noise(3, 10.09) != white_noise(3, 10.11)


def test_a_fault_comes_stays_goes_and_comes_again() -> None:
    plan = FaultPlan(first_s=100, every_s=1000, rise_s=10, hold_s=20, fall_s=10)
    assert plan.length_s == 40
    for start_s in (100, 1100, 5100):
        degrees = [plan.degree(start_s + after_s) for after_s in (-1, 0, 5, 10, 29, 35, 40, 500)]
        assert degrees == [0, 0, 0.5, 1, 1, 0.5, 0, 0]


@given(TIMES)
def test_no_fault_is_none_at_any_time(t_s: float) -> None:
    assert NO_FAULT.degree(t_s) == 0

"""The plan that `bench.aggregation` holds every engine's windows against."""

from __future__ import annotations

import pytest

from bench.aggregation import DEFAULT, parse_arguments, summarise
from bench.aggregation_engines import BY_WORD, SQL
from bench.aggregation_run import WindowsRun
from bench.engine_processes import QUIX
from bench.engines.windows_order import Accumulated, SampleReader, add, window_message
from bench.frame_bodies import FrameBodies
from bench.frame_plan import METRICS_PER_FRAME, machine_id
from bench.window_plan import OPEN_AT_END_MS, ROUND_MS, SAMPLES_PER_WINDOW, WindowPlan, difference
from bench.window_topic import END_SEPARATOR
from plantwire.schemas.windows import ONE_SECOND, WindowValues, unpack_windows

BASE_MS = 1_700_000_000_000
PLAN = WindowPlan(rounds=2_200, devices=4)


@pytest.mark.parametrize("by_layout", [True, False])
def test_the_plan_s_windows_are_those_that_a_peer_s_own_steps_give(by_layout: bool) -> None:
    """The steps that Quix Streams and Bytewax run, on the bytes that they read."""
    reader, bodies = SampleReader(by_layout=by_layout), FrameBodies()
    open_windows: dict[tuple[str, int], Accumulated] = {}
    for round_number in range(PLAN.rounds):
        for device in range(PLAN.devices):
            at_ms = PLAN.event_time_ms(BASE_MS, device, round_number)
            opened = reader.open(bodies.body(PLAN.template(device, round_number), at_ms))
            assert opened is not None
            event_time_ms, samples = opened
            assert (event_time_ms, len(samples)) == (at_ms, METRICS_PER_FRAME)
            end_ms = (at_ms // ONE_SECOND.size_ms + 1) * ONE_SECOND.size_ms
            add(open_windows.setdefault((machine_id(device), end_ms), {}), samples)
    found = {}
    for (device_id, end_ms), accumulated in open_windows.items():
        end_s, _, packed = window_message(device_id, end_ms, accumulated).decode().partition(END_SEPARATOR)
        devices, rejected = unpack_windows(packed)
        assert rejected == 0
        found[device_id, int(end_s) * 1000] = devices[device_id]
    expected = PLAN.windows(BASE_MS)
    assert difference(expected, found) is None
    assert len(expected) == PLAN.devices * (PLAN.rounds * ROUND_MS - OPEN_AT_END_MS) // ONE_SECOND.size_ms
    assert {v.samples for metrics in expected.values() for v in metrics.values()} == {SAMPLES_PER_WINDOW}


def test_every_difference_is_seen() -> None:
    expected = {("a", 1000): {"x": WindowValues(1.0, 1.0, 1.0, 1)}}
    assert difference(expected, {**expected, ("b", 1000): {}}) is None
    # Engines may add in another order.
    assert difference(expected, {("a", 1000): {"x": WindowValues(1.0 + 1e-12, 1.0, 1.0, 1)}}) is None
    for found in (
        {},
        {("a", 2000): expected["a", 1000]},
        {("a", 1000): {"y": expected["a", 1000]["x"]}},
        {("a", 1000): {"x": WindowValues(1.001, 1.0, 1.0, 1)}},
        {("a", 1000): {"x": WindowValues(1.0, 0.9, 1.0, 1)}},
        {("a", 1000): {"x": WindowValues(1.0, 1.0, 1.0, 2)}},
    ):
        assert difference(expected, found) is not None


@pytest.mark.parametrize("rounds", [0, 900])
def test_a_plan_without_windows_is_refused(rounds: int) -> None:
    with pytest.raises(ValueError, match="rounds"):
        WindowPlan(rounds=rounds)


def _run(engine: str, samples_per_s: float) -> WindowsRun:
    return WindowsRun(
        engine, 1.0, 100, 1.0, {"process": 2.0}, 2.0, 2.5, samples_per_s, samples_per_s / 2, 10.0, 10, 0
    )


def test_ratios_are_of_medians_in_one_run() -> None:
    runs = [_run(SQL, 200.0), _run(SQL, 400.0), _run(SQL, 300.0), _run(QUIX, 100.0)]
    figures, ratios, targets = summarise(runs)
    assert set(figures) == {SQL, QUIX}
    assert ratios == {f"{SQL} / {QUIX}, per core": 3.0, f"{SQL} / {QUIX}, wall clock": 3.0}
    assert [(t.value, t.holds) for t in targets] == [(3.0, True)]
    assert summarise([_run(QUIX, 1.0)])[1:] == ({}, ())


def test_engines_are_chosen_by_a_word() -> None:
    assert parse_arguments(["--engines", "quix,flink"]).engines == (QUIX, SQL)
    assert parse_arguments([]).engines == DEFAULT
    assert set(DEFAULT) < set(BY_WORD.values())
    with pytest.raises(SystemExit):
        parse_arguments(["--engines", "storm"])

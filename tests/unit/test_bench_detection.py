"""Ratios are of medians, and only against engines that ran."""

from __future__ import annotations

import argparse

import pytest

from bench.detection import parse_arguments, summarise
from bench.detection_run import EngineRun
from bench.engine_processes import BARE, BYTEWAX, FLINK, QUIX, alarms_topic_of


def run_of(engine: str, per_core: float, wall: float) -> EngineRun:
    return EngineRun(
        engine=engine,
        start_up_s=1.0,
        frames=1,
        wall_s=1.0,
        cpu_s={},
        cpu_total_s=1.0,
        cpu_by_thread_s={},
        machine_busy_s=1.0,
        samples_per_s=wall,
        samples_per_cpu_s=per_core,
        rss_mib=1.0,
        rates_per_tenth=(),
        alarm_events=1,
        doubled_events=0,
    )


def test_ratios_are_of_the_medians() -> None:
    runs = [run_of(FLINK, per_core, 10.0) for per_core in (90.0, 110.0, 500.0)]
    runs += [run_of(QUIX, per_core, 20.0) for per_core in (100.0, 1.0, 101.0)]
    _, ratios, targets = summarise(runs)
    assert ratios == {f"{FLINK} / {QUIX}, per core": 1.1, f"{FLINK} / {QUIX}, wall clock": 0.5}
    assert [(target.value, target.holds) for target in targets] == [(1.1, True)]


def test_a_tie_is_not_ahead() -> None:
    _, _, targets = summarise([run_of(FLINK, 100.0, 1.0), run_of(BYTEWAX, 100.0, 1.0)])
    assert [target.holds for target in targets] == [False]


def test_the_yard_stick_has_a_ratio_but_is_no_target() -> None:
    _, ratios, targets = summarise([run_of(FLINK, 100.0, 1.0), run_of(BARE, 200.0, 1.0)])
    assert ratios[f"{FLINK} / {BARE}, per core"] == 0.5
    assert targets == ()


def test_engines_write_to_topics_of_their_own() -> None:
    assert len({alarms_topic_of(engine) for engine in (FLINK, QUIX, BYTEWAX, BARE)}) == 4


def test_engines_are_chosen_by_short_names() -> None:
    assert parse_arguments(["--engines", "bytewax,flink"]).engines == (BYTEWAX, FLINK)
    with pytest.raises((SystemExit, argparse.ArgumentTypeError)):
        parse_arguments(["--engines", "spark"])

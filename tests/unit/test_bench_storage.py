"""The storage bench's samples, its pace, and what it makes of its runs."""

from __future__ import annotations

import pytest

from bench.frame_plan import METRICS_PER_FRAME
from bench.storage import PACES, SERIES, PacedPlan, make_batches, summary
from bench.storage_run import Run
from bench.storage_ways import COPY_AND_UPSERT, STORAGE, WAYS


def test_batches_have_every_series_in_turn_and_no_key_twice() -> None:
    batches = list(make_batches(3, 5_000))
    assert [len(batch) for batch in batches] == [5_000] * 3
    samples = [sample for batch in batches for sample in batch]
    assert len({(s.device_id, s.metric) for s in samples}) == SERIES
    assert len({(s.device_id, s.metric, s.at_ms) for s in samples}) == len(samples)
    assert [s.at_ms for s in samples] == sorted(s.at_ms for s in samples)


@pytest.mark.parametrize("interval_ms", PACES.values())
def test_the_plan_knows_how_many_seconds_it_makes(interval_ms: int) -> None:
    plan = PacedPlan(rounds=60, devices=8, marks=2, interval_ms=interval_ms)
    times = [
        (device, plan.event_time_ms(1_234, device, number) // 1000)
        for device in range(8)
        for number in range(60)
    ]
    assert plan.seconds(1_234) == len(set(times)) * METRICS_PER_FRAME
    assert plan.seconds(1_234) <= plan.samples


def test_figures_ratios_and_targets() -> None:
    rates = {name: [1000.0] for name in WAYS} | {COPY_AND_UPSERT: [8000.0, 9000.0, 7000.0], STORAGE: [6000.0]}
    runs = [Run(60_000.4, 500_000.0, 10, 2.0), Run(40_000.0, 400_000.0, 10, 3.0), Run(55_000.0, 1.0, 10, 2.5)]
    figures, ratios, targets = summary({"A": rates}, {"A": {"10 Hz": runs, "1 Hz": runs[1:2]}})
    assert figures["rows_per_s"]["A"][COPY_AND_UPSERT]["median"] == 8000
    assert figures["process"]["A"]["10 Hz"]["samples_per_s"]["values"] == (60_000, 40_000, 55_000)
    assert ratios["A: numbered / text keys, COPY and upsert"] == 0.12
    assert ratios["A: storage, with the 1 s tier / COPY and upsert"] == 0.75
    assert [(target.value, target.holds) for target in targets] == [(55_000, True), (40_000, False)]

"""What the anomaly bench counts: alarms of scores, the limit for a budget, and both against windows."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.anomaly import PROBATION, Recording, on_faults, summarise
from bench.anomaly_alarms import Window, alarms_at, judge, limit_for
from bench.anomaly_detectors import LEVEL, MOVEMENT, Z_SCORE, rolling_z_score, z_score
from bench.anomaly_faults import FAULTS, STEP_S, VALUES, all_series

HOUR_S = 3600.0


def test_an_alarm_lasts_until_no_score_was_above_for_the_off_delay() -> None:
    times_s = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    scores = [0.0, 5.0, 0.0, 5.0, 0.0, 0.0, 0.0, 5.0]
    assert alarms_at(scores, times_s, 5.0, off_delay_s=2.0) == [1, 7]
    assert alarms_at(scores, times_s, 5.0, off_delay_s=1.0) == [1, 3, 7]
    assert alarms_at(scores, times_s, 5.1, off_delay_s=1.0) == []


@given(
    scores=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    budget=st.integers(0, 8),
    off_delay_s=st.integers(0, 6),
    step_back=st.integers(0, 60),
)
def test_the_limit_for_a_budget_is_the_lowest_before_which_it_is_kept(
    scores: list[int], budget: int, off_delay_s: int, step_back: int
) -> None:
    times_s = [float(n if n < step_back else n - 3) for n in range(len(scores))]
    limit = limit_for(scores, times_s, budget, off_delay_s)
    expected = inf
    for candidate in sorted(set(scores) - {0}, reverse=True):
        if len(alarms_at(scores, times_s, candidate, off_delay_s)) > budget:
            break
        expected = candidate
    assert limit == expected


def test_alarms_are_held_against_the_windows() -> None:
    times_s = [HOUR_S * n for n in range(49)]
    scores = [0.0] * 49
    for hour in (3, 12, 14, 30):
        scores[hour] = 9.0
    windows = [Window(10 * HOUR_S, 20 * HOUR_S), Window(40 * HOUR_S, 45 * HOUR_S)]
    judged = judge(scores, times_s, windows, 9.0, off_delay_s=HOUR_S / 2)
    assert (judged.alarms, judged.true_alarms, judged.windows_found) == (4, 2, 1)
    assert (judged.precision, judged.recall, judged.false_alarms_per_day) == (0.5, 0.5, 1.0)
    assert judged.lead_h == (2.0, None)
    assert judge(scores, times_s, windows, inf, HOUR_S).precision == 0.0


def test_the_z_scores_are_plain() -> None:
    assert z_score([1.0, 3.0, 6.0, 2.0]) == pytest.approx(
        [0.0, 0.0, 4.0, abs(2 - 10 / 3) / (sum((x - 10 / 3) ** 2 for x in (1, 3, 6)) / 3) ** 0.5]
    )
    assert rolling_z_score(2)([1.0, 3.0, 6.0, 2.0]) == pytest.approx([0.0, 0.0, 4.0, 2.5 / 1.5])


def test_made_up_faults_are_where_their_windows_are() -> None:
    all_of = all_series()
    assert len({series.name for series in all_of}) == len(all_of) == 15
    for series in all_of:
        assert len(series.values) == VALUES
        assert len(series.windows) == len(FAULTS)
        starts = [window.start_s for window in series.windows]
        assert starts == sorted(starts)
        assert min(starts) > PROBATION * STEP_S
        assert max(window.end_s for window in series.windows) < VALUES * STEP_S
        stuck = int(starts[FAULTS.index("stuck")] / STEP_S)
        assert len(set(series.values[stuck : stuck + 72])) == 1


def test_a_detector_that_knows_finds_every_fault_and_one_that_does_not_finds_none() -> None:
    all_of = all_series()[:2]
    by_values = {series.values: series for series in all_of}

    def knows(values: object) -> list[float]:
        series = by_values[values]  # type: ignore[index]
        return [
            float(any(start <= STEP_S * n <= end for start, end in series.windows)) for n in range(VALUES)
        ]

    found = on_faults(knows, all_of)
    assert (found.precision, found.recall, found.alarms, found.median_lead_values) == (1.0, 1.0, 10, 0.0)
    assert found.found == dict.fromkeys(FAULTS, 2)
    assert on_faults(lambda values: [0.0] * len(values), all_of).recall == 0.0


def test_the_recording_is_the_benchmarks() -> None:
    recording = Recording()
    assert len(recording.values) == 22_695
    assert len(recording.times_s) == 22_695 - PROBATION
    assert [(end - start) / HOUR_S for start, end in recording.windows] == [pytest.approx(47 + 1 / 6)] * 4
    assert recording.windows[0].start_s > recording.times_s[0]


def test_targets_hold_ours_against_the_plain_z_score() -> None:
    recording = Recording()
    perfect = [0.0] * len(recording.values)
    for start_s, _ in recording.windows:
        perfect[PROBATION + recording.times_s.index(start_s)] = 1.0
    plain = z_score(recording.values)
    at_budgets = {
        name: {str(budget): recording.judge(scores, budget) for budget in (4, 7, 10)}
        for name, scores in ((LEVEL, perfect), (Z_SCORE, plain))
    }
    some = on_faults(z_score, all_series()[:1])
    ratios, targets = summarise({"at_budgets": at_budgets}, {MOVEMENT: some, Z_SCORE: some})
    assert [target.holds for target in targets] == [True] * 6 + [False]
    assert ratios["recording, 10 alarms: precision, level / z-score"] == 2.0

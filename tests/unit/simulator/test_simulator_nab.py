"""The replayed machine and rules/nab.yaml: the figures that docs/simulator.md states."""

from __future__ import annotations

from itertools import pairwise

import pytest

from plantwire.schemas.records import AlarmKind
from plantwire.schemas.severity import Severity
from plantwire.simulator.nab import (
    DEVICE_ID,
    METRIC,
    START_INDEX,
    Replay,
    Sample,
    load_samples,
    load_windows,
)
from tests.unit.simulator.simulated_detection import Watch, rules_in

SAMPLES_PER_S = 4
"""The default of `--nab-speed`."""
DEDUP_WINDOW_S = 60


@pytest.fixture(scope="module")
def levels() -> list[tuple[int, int | None]]:
    """Where the alarm's severity changes: (index of the sample, severity or None for clear)."""
    watch = Watch(DEVICE_ID, rules_in("nab.yaml"))
    return [
        (index, None if event.kind == AlarmKind.CLEARED else event.severity)
        for index, sample in enumerate(load_samples())
        for event in watch.see(index / SAMPLES_PER_S, {METRIC: sample.value})
    ]


def windows_hit(indices: list[int]) -> list[int | None]:
    """For each sample the number of its labelled window, from 1, or None."""
    samples, windows = load_samples(), load_windows()
    return [
        next((number for number, window in enumerate(windows, 1) if window.holds(samples[index])), None)
        for index in indices
    ]


def test_the_recording_and_its_labels_are_whole() -> None:
    samples = load_samples()
    assert len(samples) == 22_695
    assert samples[0] == Sample("2013-12-02 21:15:00", 73.96732207)
    assert len(load_windows()) == 4


def test_critical_is_raised_in_both_failures_and_nowhere_else(levels: list[tuple[int, int | None]]) -> None:
    assert windows_hit([index for index, severity in levels if severity == Severity.CRITICAL]) == [2, 4]


def test_one_alarm_in_every_labelled_window_and_four_outside(levels: list[tuple[int, int | None]]) -> None:
    cleared = [-1, *(index for index, severity in levels if severity is None)]
    raised = [min(i for i, _ in levels if i > end) for end in cleared if any(i > end for i, _ in levels)]
    # Closer together, two would count as one alarm.
    assert min(after - before for before, after in pairwise(raised)) / SAMPLES_PER_S > DEDUP_WINDOW_S
    hit = windows_hit(raised)
    assert sorted(number for number in hit if number) == [1, 2, 3, 4]
    assert hit.count(None) == 4


def test_the_replay_reaches_a_failure_soon(levels: list[tuple[int, int | None]]) -> None:
    critical = next(
        index for index, severity in levels if index > START_INDEX and severity == Severity.CRITICAL
    )
    cleared = next(index for index, severity in levels if index > critical and severity is None)
    assert (critical - START_INDEX) / SAMPLES_PER_S <= 75
    assert (cleared - START_INDEX) / SAMPLES_PER_S <= 90
    assert windows_hit([START_INDEX]) == [None]


def test_the_replay_starts_over_after_its_end() -> None:
    samples = [Sample(str(number), float(number)) for number in range(5)]
    replay = Replay(samples, start_index=3)
    assert [replay.sample_at(position).value for position in range(7)] == [3, 4, 0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="at least one"):
        Replay([])

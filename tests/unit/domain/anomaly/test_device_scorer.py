"""A device's scored metrics: which values count, what is told, what is kept."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest

from plantwire.domain.anomaly import device_scorer
from plantwire.domain.anomaly.device_scorer import (
    FORGET_AFTER_MS,
    METRICS_MAX,
    DeviceScorer,
    Taken,
    UnknownScorerError,
    ValueFields,
)
from plantwire.domain.anomaly.metric_scorer import MODEL, WARM_UP
from plantwire.domain.anomaly.plan import ScoringPlan
from plantwire.schemas.records import QUALITY_BAD, Metric
from plantwire.schemas.scoring_files import ScoringEntry
from plantwire.simulator.signals import gaussian

START_MS = 1_800_000_000_000
EVERYTHING = ScoringPlan([ScoringEntry("*", "*")]).for_device("press-1")


def scorer_of(*metrics: str) -> DeviceScorer:
    memory_of = ScoringPlan([ScoringEntry("*", metric) for metric in metrics]).for_device("press-1")
    assert memory_of is not None
    return DeviceScorer(memory_of)


def fields(*metrics: Metric) -> list[ValueFields]:
    return [cast(ValueFields, msgspec.to_builtins(metric)) for metric in metrics]


def warm(scorer: DeviceScorer, *names: str, values: int = WARM_UP) -> int:
    """Take values until the next is scored; answers its time."""
    for n in range(values):
        at_ms = START_MS + 1000 * n
        scorer.take(fields(*(Metric(name, gaussian(1, n)) for name in names)), at_ms, at_ms)
    return START_MS + 1000 * values


def test_scores_are_metrics_with_the_times_of_their_values() -> None:
    scorer = scorer_of("t", "own")
    at_ms = warm(scorer, "t", "own")
    frame = fields(Metric("t", 0.1), Metric("own", 0.2, event_time_ms=at_ms - 5), Metric("other", 1.0))
    taken = scorer.take(frame, at_ms, at_ms)
    assert [(m.name, m.event_time_ms) for m in taken.scores] == [
        ("anomaly/level/t", None),
        ("anomaly/movement/t", None),
        ("anomaly/level/own", at_ms - 5),
        ("anomaly/movement/own", at_ms - 5),
        ("anomaly/model", None),
    ]
    assert [m.text for m in taken.scores if m.number is None] == [MODEL]
    assert (taken.learned, taken.late, taken.left_out) == (2, 0, 0)


def test_only_good_numbers_count() -> None:
    scorer = scorer_of("*")
    at_ms = warm(scorer, "t")
    packed = scorer.pack()
    for metric in (
        Metric("t", 99.0, quality=QUALITY_BAD),
        Metric("t", None),
        Metric("t", text="99"),
        Metric("anomaly/level/t", 9.0),
    ):
        assert scorer.take(fields(metric), at_ms, at_ms) == Taken(())
    assert scorer.pack() == packed


def test_a_value_counts_once_and_in_the_order_of_event_time() -> None:
    scorer = scorer_of("*")
    at_ms = warm(scorer, "t")
    packed = scorer.pack()
    for late_ms in (1000, 2000, 59_000, 61_000):
        assert scorer.take(fields(Metric("t", 99.0)), at_ms - late_ms, at_ms).late == 1
    assert scorer.pack() == packed
    assert scorer.take(fields(Metric("t", 0.0)), at_ms, at_ms).learned == 1


@pytest.mark.parametrize(
    "metric",
    [
        Metric("t", 1.1e100),
        Metric("t", -1.1e100),
        Metric("n" * 241, 1.0),
        Metric("t", 1.0, event_time_ms=START_MS + 10**9),
    ],
)
def test_what_cannot_be_scored_is_left_out_and_counted(metric: Metric) -> None:
    scorer = scorer_of("*")
    assert scorer.take(fields(metric), START_MS, START_MS) == Taken((), left_out=1)
    # The longest names that fit are scored, and so are those of the scores.
    at_ms = warm(scorer, "n" * 239)
    names = [m.name for m in scorer.take(fields(Metric("n" * 239, 1.0)), at_ms, at_ms).scores]
    assert max(map(len, names)) <= 256
    assert len(names) == 3


def test_a_clock_that_was_put_back_is_believed_after_a_while() -> None:
    scorer = scorer_of("*")
    now_ms = warm(scorer, "t")
    back_ms = 3_600_000
    taken = [
        scorer.take(fields(Metric("t", 0.0)), now_ms - back_ms + second, now_ms + second)
        for second in range(0, 62_000, 1000)
    ]
    assert [t.late for t in taken[:60]] == [1] * 60
    assert [t.learned for t in taken[60:]] == [1, 1]


def test_a_clock_that_was_put_back_during_a_restart_is_believed_too() -> None:
    scorer = scorer_of("*")
    now_ms = warm(scorer, "t")
    memory_of = EVERYTHING
    assert memory_of is not None
    again = DeviceScorer.unpack(scorer.pack(), memory_of)
    learned = [
        again.take(fields(Metric("t", 0.0)), now_ms - 3_600_000 + second, now_ms + second).learned
        for second in range(0, 62_000, 1000)
    ]
    assert learned == [0] * 60 + [1, 1]


def test_a_restart_changes_nothing() -> None:
    memory_of = EVERYTHING
    assert memory_of is not None
    scorer = scorer_of("*")
    at_ms = warm(scorer, "t", "u")
    again = DeviceScorer.unpack(scorer.pack(), memory_of)
    assert again.seen_ms == at_ms - 1000
    for n in range(50):
        frame = fields(Metric("t", gaussian(2, n) * n), Metric("u", gaussian(3, n)))
        ours = scorer.take(frame, at_ms + 1000 * n, at_ms + 1000 * n)
        assert again.take(frame, at_ms + 1000 * n, at_ms + 1000 * n) == ours
        assert len(ours.scores) == 5
    assert again.pack() == scorer.pack()


def test_what_is_no_longer_scored_is_not_kept() -> None:
    scorer = scorer_of("*")
    warm(scorer, "t", "u")
    only_t = ScoringPlan([ScoringEntry("*", "t")]).for_device("press-1")
    assert only_t is not None
    again = DeviceScorer.unpack(scorer.pack(), only_t)
    only = scorer_of("t")
    warm(only, "t")
    assert again.pack() == only.pack()


@pytest.mark.parametrize("packed", [b"", b"\x01", b"\x02", b"\x02\x94", b"\x02\x93\xa1t\x00\x91\x01"])
def test_state_of_another_layout_is_told(packed: bytes) -> None:
    memory_of = EVERYTHING
    assert memory_of is not None
    with pytest.raises(UnknownScorerError):
        DeviceScorer.unpack(packed, memory_of)


def test_what_another_model_has_learned_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    memory_of = EVERYTHING
    assert memory_of is not None
    scorer = scorer_of("*")
    warm(scorer, "t")
    packed = scorer.pack()
    monkeypatch.setattr(device_scorer, "MODEL", "tails/2")
    with pytest.raises(UnknownScorerError, match=r"of the model tails/1, this is tails/2"):
        DeviceScorer.unpack(packed, memory_of)
    assert DeviceScorer.unpack(scorer.pack(), memory_of).seen_ms == scorer.seen_ms


def test_state_is_bounded() -> None:
    scorer = scorer_of("*")
    names = [f"m{n}" for n in range(METRICS_MAX + 50)]
    taken = scorer.take(fields(*(Metric(name, 1.0) for name in names)), START_MS, START_MS)
    assert (taken.learned, taken.left_out) == (METRICS_MAX, 50)
    for n in range(1, 500):
        at_ms = START_MS + 1000 * n
        scorer.take(fields(*(Metric(name, gaussian(1, n)) for name in names)), at_ms, at_ms)
    assert len(scorer.pack()) < 300 * METRICS_MAX
    # After a week those that were silent make room.
    at_ms += FORGET_AFTER_MS
    scorer.take(fields(Metric("m0", 1.0)), at_ms, at_ms)
    at_ms += 1000
    assert scorer.take(fields(Metric("new", 1.0)), at_ms, at_ms).learned == 1
    assert len(scorer.pack()) < 1000


def test_prefixes_are_those_that_the_plan_leaves_out() -> None:
    names = (device_scorer.LEVEL, device_scorer.MOVEMENT, device_scorer.MODEL_METRIC)
    memory_of = EVERYTHING
    assert memory_of is not None
    assert [memory_of(name + "t") for name in names] == [None] * 3
    assert memory_of("t") == 8_000

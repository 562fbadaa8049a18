"""One metric's scores: what is unusual scores, what is usual does not, and a restart changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantwire.domain.anomaly.metric_scorer import SCORE_MAX, WARM_UP, MetricScorer, Scores
from plantwire.domain.anomaly.norms import CLIP, EXCESS_CLIP, Norm, Tail
from plantwire.simulator.signals import gaussian, wander, wave

MEMORY = 8_000


def healthy(index: int, seed: int = 1) -> float:
    """A temperature that drifts a little, with noise."""
    return 60.0 + 1.5 * wander(seed, float(index), 700.0) + gaussian(seed + 1, index)


def scores_of(values: Iterable[float], memory: int = MEMORY) -> list[Scores | None]:
    scorer = MetricScorer(memory)
    return [scorer.take(value) for value in values]


def told(scores: Iterable[Scores | None]) -> list[Scores]:
    return [score for score in scores if score is not None]


def test_nothing_is_told_while_warming_up() -> None:
    scores = scores_of(healthy(n) for n in range(WARM_UP + 2))
    assert scores[:WARM_UP] == [None] * WARM_UP
    assert None not in scores[WARM_UP:]


def test_a_healthy_metric_keeps_to_the_meaning_of_its_score() -> None:
    scores = told(scores_of(healthy(n) for n in range(10_000)))
    for which in ("level", "movement"):
        found = [getattr(score, which) for score in scores]
        assert 0.002 < sum(score >= 1.0 for score in found) / len(found) < 0.2
        assert 0.0002 < sum(score >= 2.0 for score in found) / len(found) < 0.02


@pytest.mark.parametrize(
    ("fault", "which"),
    [
        (lambda n, value: value + 8.0, "level"),
        (lambda n, value: value - 8.0, "level"),
        (lambda n, value: healthy(2_000), "movement"),
        (lambda n, value: value + 6.0 * gaussian(9, n), "movement"),
    ],
)
def test_a_fault_scores_where_it_shows(fault: object, which: str) -> None:
    before = [healthy(n) for n in range(2_000)]
    faulty = [fault(n, healthy(n)) for n in range(2_000, 2_060)]  # type: ignore[operator]
    scores = scores_of(before + faulty)
    usual = max(getattr(score, which) for score in told(scores[1_000:2_000]))
    unusual = max(getattr(score, which) for score in told(scores[2_000:]))
    assert unusual > 2.2
    assert unusual > 1.3 * usual


def test_what_stays_becomes_normal() -> None:
    values = [healthy(n) + (8.0 if n >= 2_000 else 0.0) for n in range(12_000)]
    levels = [score.level for score in told(scores_of(values, memory=1_000))]
    shifted, settled = levels[1_700:1_760], levels[8_000:]
    assert sum(level > 2.0 for level in shifted) > 0.5 * len(shifted)
    assert sum(level > 2.0 for level in settled) < 0.05 * len(settled)


def test_the_same_distance_surprises_less_in_a_heavy_tail() -> None:
    light, heavy = Tail(MEMORY), Tail(MEMORY)
    for n in range(20_000):
        light.surprise(abs(gaussian(3, n)))
        # Standard deviation 1 as well; the product of two is often small and now and then large.
        heavy.surprise(abs(gaussian(4, n) * gaussian(5, n)))
    assert heavy.surprise(5.0) < 0.7 * light.surprise(5.0)


def test_a_value_beyond_what_was_ever_seen_scores_though_a_z_score_would_not_move() -> None:
    bounded = [60.0 + 5.0 * wave(float(n), 288.0) + 0.1 * gaussian(4, n) for n in range(8_000)]
    *_, score = told(scores_of([*bounded, 70.0]))
    assert (70.0 - 60.0) / (5.0 / math.sqrt(2.0)) < 3.0
    assert score.level > 2.0


@settings(max_examples=20, deadline=None)
@given(exponent=st.integers(-40, 40), offset=st.floats(-1000.0, 1000.0))
def test_unit_and_zero_do_not_matter(exponent: int, offset: float) -> None:
    values = [healthy(n) for n in range(400)]
    scale = 2.0**exponent
    ours = told(scores_of(values))
    theirs = told(scores_of([scale * (value + offset) for value in values]))
    for our, their in zip(ours, theirs, strict=True):
        assert our.level == pytest.approx(their.level, abs=0.01)
        assert our.movement == pytest.approx(their.movement, abs=0.01)


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=60),
    cut=st.integers(0, 420),
    is_warm=st.booleans(),
)
def test_made_again_of_its_state_it_goes_on_the_same(values: list[float], cut: int, is_warm: bool) -> None:
    series = ([healthy(n) for n in range(WARM_UP + 20)] if is_warm else []) + values
    cut = min(cut, len(series))
    whole = scores_of(series)
    first = MetricScorer(MEMORY)
    begun = [first.take(value) for value in series[:cut]]
    again = MetricScorer(MEMORY, first.state)
    assert begun + [again.take(value) for value in series[cut:]] == whole
    for score in told(whole):
        assert all(0.0 <= number <= SCORE_MAX for number in score)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e100, 5e-324])
def test_a_constant_is_normal_and_its_end_is_not(value: float) -> None:
    scores = scores_of([value] * 1_000)
    assert set(told(scores)) == {Scores(0.0, 0.0)}
    later = 1.0 if value == 0.0 else value / 2 if value > 1.0 else value * 2
    ended = told(scores_of([value] * 1_000 + [later] * 5))
    if value != 5e-324:  # where the difference squared is nothing
        assert max(score.level for score in ended) > 2.0


def test_an_outlier_moves_the_norm_by_its_clip_only() -> None:
    norm = Norm(1_000)
    for n in range(2_000):
        norm.take(gaussian(1, n))
    mean, variance, _ = norm.state
    norm.take(1e6)
    moved, widened, _ = norm.state
    assert moved - mean <= 1.01 * CLIP * math.sqrt(variance) / 1_000
    assert widened < 1.02 * variance


def test_an_excess_moves_the_tail_by_its_clip_only() -> None:
    tail = Tail(8_000)
    excess, _ = tail.state
    assert tail.surprise(1e6) > 1e5
    moved, _ = tail.state
    assert moved <= excess + EXCESS_CLIP * excess / 20
    assert tail.surprise(1.0) == 0.0
    assert tail.state == (moved, 21)

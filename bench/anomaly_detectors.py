"""Everything that is held against each other: a series of values → a score for each.

In: values in order, evenly spaced. Out: as many scores; higher is more unusual; 0 while warming up.
Guarantees: online: a score depends on its value and those before it alone.
Not here: what the scores raise (`anomaly_alarms`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import Any, Final

from river import anomaly, preprocessing, time_series
from river.linear_model import LinearRegression

from plantwire.domain.anomaly.metric_scorer import MetricScorer
from plantwire.domain.anomaly.signals import Signals
from plantwire.schemas.scoring_files import DEFAULT_MEMORY

# It has no types of its own.
_MIN_MAX_SCALER: Final[Any] = preprocessing.MinMaxScaler

Detector = Callable[[Sequence[float]], list[float]]

LEVEL: Final = "level"
MOVEMENT: Final = "movement"
Z_SCORE: Final = "z-score"
MEMORIES: Final = (DEFAULT_MEMORY // 2, DEFAULT_MEMORY * 2)
SEEDS: Final = (1, 2, 3, 4)
DAY: Final = 288
"""Values of 5 minutes."""


def level(memory: int) -> Detector:
    """Ours, of the value's level."""
    return _ours(memory, lambda scores: scores[0])


def movement(memory: int) -> Detector:
    """Ours, of how much the values move."""
    return _ours(memory, lambda scores: scores[1])


def _ours(memory: int, which: Callable[[tuple[float, float]], float]) -> Detector:
    def detect(values: Sequence[float]) -> list[float]:
        scorer = MetricScorer(memory)
        found = [scorer.take(value) for value in values]
        return [0.0 if scores is None else which(scores) for scores in found]

    return detect


def z_score(values: Sequence[float]) -> list[float]:
    """Standard deviations from the mean of all values before (Welford's algorithm)."""
    scores: list[float] = []
    mean = squares = 0.0
    for count, value in enumerate(values):
        scores.append(abs(value - mean) / sqrt(squares / count) if squares > 0.0 else 0.0)
        difference = value - mean
        mean += difference / (count + 1)
        squares += difference * (value - mean)
    return scores


def rolling_z_score(window: int) -> Detector:
    """Standard deviations from the mean of the last `window` values."""

    def detect(values: Sequence[float]) -> list[float]:
        scores: list[float] = []
        recent: deque[float] = deque()
        for value in values:
            mean = sum(recent) / max(1, len(recent))
            variance = sum((past - mean) ** 2 for past in recent) / max(1, len(recent))
            scores.append(abs(value - mean) / sqrt(variance) if variance > 1e-9 else 0.0)
            recent.append(value)
            if len(recent) > window:
                recent.popleft()
        return scores

    return detect


def half_space_trees(seed: int) -> Detector:
    """River's, of the value between the least and the greatest so far."""

    def detect(values: Sequence[float]) -> list[float]:
        trees: Any = anomaly.HalfSpaceTrees(seed=seed)
        scaler: Any = _MIN_MAX_SCALER()
        scores: list[float] = []
        for value in values:
            point = {"value": value}
            scaler.learn_one(point)
            point = scaler.transform_one(point)
            scores.append(trees.score_one(point))
            trees.learn_one(point)
        return scores

    return detect


def half_space_trees_of_distances(seed: int) -> Detector:
    """River's, of the distances of level and movement that our scores are made of."""

    def detect(values: Sequence[float]) -> list[float]:
        trees: Any = anomaly.HalfSpaceTrees(seed=seed)
        signals = Signals(DEFAULT_MEMORY)
        scores: list[float] = []
        for value in values:
            distances = signals.take(value)
            point = {"level": _squashed(distances.level), "movement": _squashed(distances.movement)}
            scores.append(trees.score_one(point))
            trees.learn_one(point)
        return scores

    return detect


def forecast(values: Sequence[float]) -> list[float]:
    """River's: how far the value is from an autoregressive forecast, against the errors so far."""
    model = time_series.SNARIMAX(
        p=12, d=0, q=0, regressor=preprocessing.StandardScaler() | LinearRegression()
    )
    # Not so few deviations that all larger errors would score the same.
    detector: Any = anomaly.PredictiveAnomalyDetection(model, horizon=1, n_std=1_000.0, warmup_period=300)
    scores: list[float] = []
    for value in values:
        scores.append(detector.score_one({}, value))
        detector.learn_one({}, value)
    return scores


def _squashed(distance: float) -> float:
    """A distance as a number from 0 to 1."""
    return 0.5 + 0.5 * distance / (3.0 + abs(distance))


DETECTORS: Final[Mapping[str, Detector]] = {
    LEVEL: level(DEFAULT_MEMORY),
    MOVEMENT: movement(DEFAULT_MEMORY),
    Z_SCORE: z_score,
    "rolling z-score, one day": rolling_z_score(DAY),
    "river forecast": forecast,
    **{f"level, memory {memory}": level(memory) for memory in MEMORIES},
    **{f"river half-space trees, seed {seed}": half_space_trees(seed) for seed in SEEDS},
    **{
        f"river half-space trees of distances, seed {seed}": half_space_trees_of_distances(seed)
        for seed in SEEDS
    },
}

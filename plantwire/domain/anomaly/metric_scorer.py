"""How unusual each value of one metric is.

In: the values of a metric in order. Out: two scores per value, once enough is known.
Guarantees: constant memory; made again of its state, it gives the very same scores.
Not here: which values those are (`device_scorer`); what a score raises (alarm rules, as on any metric).

A score is the number of zeros in "one in 100 …": of what this metric has shown so far, about one value in a
hundred is expected to score 2 or more, one in a thousand 3 or more. Neighbouring values are alike: it will
not be each hundredth one, but now and then several together.
"""

from __future__ import annotations

from math import log
from typing import Final, NamedTuple

from plantwire.domain.anomaly.norms import GAUSSIAN_EXCESS, GAUSSIAN_WEIGHT, Tail, TailState
from plantwire.domain.anomaly.signals import NOT_SEEN, Signals, SignalsState

MODEL: Final = "tails/1"
"""Names the mathematics: another one gets another number."""
WARM_UP: Final = 300
"""Values before the first score."""
SCORE_MAX: Final = 10.0

_DECADE: Final = log(10.0)
# A value has as many chances to be far out as there are tails that it may be in.
_FOUR_TAILS: Final = log(4.0)
_TWO_TAILS: Final = log(2.0)
_GAUSSIAN: Final[TailState] = (GAUSSIAN_EXCESS, GAUSSIAN_WEIGHT)


class Scores(NamedTuple):
    """0 for what is nothing special, to `SCORE_MAX`; three decimals."""

    level: float
    """The value, or the mean of the last few, is unusually high or low."""
    movement: float
    """The values change unusually much from one to the next, or unusually little."""


class ScorerState(NamedTuple):
    """What to make a `MetricScorer` of again."""

    signals: SignalsState = NOT_SEEN
    tails: tuple[TailState, TailState, TailState, TailState, TailState, TailState] = (_GAUSSIAN,) * 6


class MetricScorer:
    """One metric; what is normal for it is what it did in about the last `memory` values."""

    __slots__ = ("_signals", "_tails")

    def __init__(self, memory: int, state: ScorerState = ScorerState()) -> None:
        self._signals = Signals(memory, state.signals)
        # The upper and the lower tail of each distance.
        self._tails = tuple(Tail(memory, tail) for tail in state.tails)

    @property
    def state(self) -> ScorerState:
        """What to make it of again."""
        first, second, third, fourth, fifth, sixth = (tail.state for tail in self._tails)
        return ScorerState(self._signals.state, (first, second, third, fourth, fifth, sixth))

    def take(self, value: float) -> Scores | None:
        """Score a value by those before it, then learn from it; None while warming up."""
        surprises = [
            self._tails[2 * place + (distance < 0.0)].surprise(abs(distance))
            for place, distance in enumerate(self._signals.take(value))
        ]
        if self._signals.count <= WARM_UP:
            return None
        return Scores(
            _score(max(surprises[0], surprises[1]) - _FOUR_TAILS), _score(surprises[2] - _TWO_TAILS)
        )


def _score(surprise: float) -> float:
    return round(max(0.0, min(surprise / _DECADE, SCORE_MAX)), 3)

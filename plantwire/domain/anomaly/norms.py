"""What is normal for a number: a slow mean and variance, and how heavy its tails are.

In: numbers in order. Out: how far a number is from normal, in standard deviations or as a surprise.
Guarantees: constant memory; the same numbers in the same order give the same results; a number moves what is
normal by no more than its clip, so that an anomaly does not become the norm at once, and does in the end.
Not here: which numbers of a metric are looked at (`signals`).
"""

from __future__ import annotations

from math import sqrt
from typing import Final

SETTLE_AFTER: Final = 30
"""Numbers after which outliers are clipped; before, nothing is known that they could be outliers of."""
CLIP: Final = 3.0
"""Standard deviations beyond which a number counts as being at this distance."""

TAIL_START: Final = 1.645
"""Standard deviations at which a tail begins: a Gaussian has 5 % on each side beyond it."""
TAIL_START_SURPRISE: Final = 3.0
"""-ln of these 5 %."""
GAUSSIAN_EXCESS: Final = 0.4
"""Mean distance beyond `TAIL_START` of what is beyond it, where the tail is Gaussian (0.42)."""
GAUSSIAN_WEIGHT: Final = 20
"""How many excesses the assumption of a Gaussian tail counts as."""
EXCESS_MIN: Final = 0.3
EXCESS_CLIP: Final = 3.0
"""Mean excesses beyond which an excess counts as being at this distance."""

NormState = tuple[float, float, int]
TailState = tuple[float, int]


class Norm:
    """Exponentially weighted mean and variance with clipped outliers; `memory` is in numbers."""

    __slots__ = ("_count", "_mean", "_share", "_variance")

    def __init__(self, memory: int, state: NormState = (0.0, 0.0, 0)) -> None:
        self._share = 1.0 / memory
        self._mean, self._variance, self._count = state

    @property
    def state(self) -> NormState:
        """What to make it of again."""
        return self._mean, self._variance, self._count

    @property
    def variance(self) -> float:
        """In the square of the numbers' unit; 0 while all were the same."""
        return self._variance

    def distance(self, number: float) -> float:
        """Standard deviations above (or, negative, below) the mean; 0 while no deviation is known."""
        if self._variance <= 0.0:
            return 0.0
        return (number - self._mean) / sqrt(self._variance)

    def take(self, number: float) -> None:
        """Learn from a number. Until `memory` numbers were seen all count the same."""
        self._count += 1
        if self._count > SETTLE_AFTER and self._variance > 0.0:
            reach = CLIP * sqrt(self._variance)
            number = min(max(number, self._mean - reach), self._mean + reach)
        share = max(self._share, 1.0 / self._count)
        difference = number - self._mean
        self._mean += share * difference
        self._variance = (1.0 - share) * (self._variance + share * difference * difference)


class Tail:
    """One side's tail, as an exponential one of the mean excess that was seen.

    Peaks over a threshold (Balkema and de Haan 1974, Pickands 1975) with the shape fixed at 0: the same
    distance is less of a surprise in a heavy tail than in a light one.
    """

    __slots__ = ("_count", "_excess", "_share")

    def __init__(self, memory: int, state: TailState = (GAUSSIAN_EXCESS, GAUSSIAN_WEIGHT)) -> None:
        # Of all numbers one in twenty is in the tail.
        self._share = 1.0 / max(GAUSSIAN_WEIGHT, memory // 20)
        self._excess, self._count = state

    @property
    def state(self) -> TailState:
        """What to make it of again."""
        return self._excess, self._count

    def surprise(self, distance: float) -> float:
        """-ln of the share of numbers that are as far out; 0 within the body. Learns from it."""
        over = distance - TAIL_START
        if over <= 0.0:
            return 0.0
        surprise = TAIL_START_SURPRISE + over / max(self._excess, EXCESS_MIN)
        self._count += 1
        clipped = min(over, EXCESS_CLIP * self._excess)
        self._excess += (clipped - self._excess) * max(self._share, 1.0 / self._count)
        return surprise

"""What is looked at of a metric: its level, and how much it moves.

In: a metric's values in order. Out: each measured against the metric's own past, in standard deviations.
Guarantees: constant memory; independent of the metric's unit and zero.
Not here: how unusual a distance is (`norms.Tail`, `forest`).
"""

from __future__ import annotations

from math import log
from typing import Final, NamedTuple

from plantwire.domain.anomaly.norms import Norm, NormState

RECENT: Final = 12
"""Values that the short mean of the level looks back on."""
MOVEMENT: Final = 24
"""Steps from value to value that movement looks back on."""
_STILL: Final = 1e-6
"""Movement below this share of the level's variance is none."""


class Distances(NamedTuple):
    """Standard deviations from normal, with their sign."""

    level: float
    recent_level: float
    movement: float


class SignalsState(NamedTuple):
    """What to make `Signals` of again."""

    previous: float = 0.0
    recent: float = 0.0
    power: float = 0.0
    seen: int = 0
    level: NormState = (0.0, 0.0, 0)
    movement: NormState = (0.0, 0.0, 0)


NOT_SEEN: Final = SignalsState()


class Signals:
    """One metric; `memory` in values."""

    __slots__ = ("_count", "_level", "_movement", "_power", "_previous", "_recent")

    def __init__(self, memory: int, state: SignalsState = NOT_SEEN) -> None:
        self._previous, self._recent, self._power, self._count = state[:4]
        self._level = Norm(memory, state.level)
        self._movement = Norm(memory, state.movement)

    @property
    def state(self) -> SignalsState:
        """What to make it of again."""
        return SignalsState(
            self._previous,
            self._recent,
            self._power,
            self._count,
            self._level.state,
            self._movement.state,
        )

    @property
    def count(self) -> int:
        """Values taken."""
        return self._count

    def take(self, value: float) -> Distances:
        """Measure a value against those before it, then learn from it."""
        if self._count == 0:
            self._previous = self._recent = value
        step = value - self._previous
        self._previous = value
        self._count += 1
        self._recent += (value - self._recent) * max(1.0 / RECENT, 1.0 / self._count)
        level, recent = self._level.distance(value), self._level.distance(self._recent)
        self._level.take(value)
        if self._count == 1:
            return Distances(level, recent, 0.0)
        self._power += (step * step - self._power) * max(1.0 / MOVEMENT, 1.0 / (self._count - 1))
        power = self._power + _STILL * self._level.variance
        if power <= 0.0:
            return Distances(level, recent, 0.0)
        # Its logarithm: twice as lively and half as lively are equally far from normal.
        liveliness = log(power)
        movement = self._movement.distance(liveliness)
        self._movement.take(liveliness)
        return Distances(level, recent, movement)

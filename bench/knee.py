"""The search for the knee: the highest rate that still holds. Pure.

In: whether each tried rate held. Out: the next rate to try, and at last the knee.
Guarantees: the knee is a rate that was tried and held, and a rate at most `resolution` higher was tried
and did not, or the ceiling was reached.
Not here: trying a rate (`bench.latency_run`).
"""

from __future__ import annotations


class KneeSearch:
    """Upwards in steps until a rate does not hold, then halving between the two."""

    def __init__(self, start: int, step: int, resolution: int, ceiling: int) -> None:
        if not (0 < resolution <= step and 0 < start <= ceiling):
            raise ValueError("a search needs 0 < resolution <= step and 0 < start <= ceiling")
        self._start = start
        self._step = step
        self._resolution = resolution
        self._ceiling = ceiling
        self._highest_held = 0
        self._lowest_failed: int | None = None

    @property
    def knee(self) -> int | None:
        """The highest rate that held so far; None when none did."""
        return self._highest_held or None

    def next_rate(self) -> int | None:
        """What to try next; None when the knee is found."""
        if self._lowest_failed is None:
            if self._highest_held == 0:
                return self._start
            if self._highest_held >= self._ceiling:
                return None
            return min(self._highest_held + self._step, self._ceiling)
        if self._lowest_failed - self._highest_held <= self._resolution:
            return None
        middle = (self._lowest_failed + self._highest_held) // 2
        return max(middle // self._resolution * self._resolution, self._highest_held + self._resolution)

    def note(self, rate: int, held: bool) -> None:
        """The outcome of a try. A rate that failed below one that held counts as the lower bound."""
        if held:
            self._highest_held = max(self._highest_held, rate)
        else:
            self._lowest_failed = rate if self._lowest_failed is None else min(self._lowest_failed, rate)

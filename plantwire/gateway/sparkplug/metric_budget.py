"""How many metrics all edge nodes together may define. Not thread-safe: one event loop's.

In: numbers of metrics of births and deaths. Out: whether there is room.
"""

from __future__ import annotations


class MetricBudget:
    """Shared by all sessions."""

    __slots__ = ("metrics_max", "used")

    def __init__(self, metrics_max: int) -> None:
        self.metrics_max = metrics_max
        self.used = 0

    def take(self, metrics: int) -> bool:
        """Reserve `metrics`; False, with nothing reserved, where there is no room."""
        if self.used + metrics > self.metrics_max:
            return False
        self.used += metrics
        return True

    def give_back(self, metrics: int) -> None:
        """Release what `take` reserved."""
        self.used -= metrics

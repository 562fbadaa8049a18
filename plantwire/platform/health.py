"""Whether a process does its work: what stands in its way, by part.

In: each part's report. Out: a list of reasons, empty when there are none.
Guarantees: a part that has not reported yet is an obstacle. Safe between threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Health:
    """The state of each part that the process stands on."""

    def __init__(self, parts: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._obstacles: dict[str, str | None] = dict.fromkeys(parts, "not reached yet")

    def report(self, part: str, obstacle: str | None) -> bool:
        """Note what stands in a part's way, None for nothing; whether that is news."""
        with self._lock:
            news = (self._obstacles[part] is None) != (obstacle is None)
            self._obstacles[part] = obstacle
        return news

    def obstacles(self) -> list[str]:
        """What stands in the way, in words."""
        with self._lock:
            return [f"{part}: {reason}" for part, reason in self._obstacles.items() if reason is not None]

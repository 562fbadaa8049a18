"""How much one step takes on, where too much of it would never be through. Pure.

In: how long steps took, or that one was given up. Out: the size of the next one.
Guarantees: after a step that was given up the next is smaller, down to 1; it grows again, up to the size that
it began with, only while steps take a small part of the time that they have.
Not here: what a step does (`rollups`, `retention`).
"""

from __future__ import annotations

from typing import Final

SHRINK: Final = 4
SHORT_S: Final = 5.0
"""A step twice as large will be through in time."""


class Pace:
    """The size of one kind of step."""

    def __init__(self, most: int) -> None:
        self.size = most
        self._most = most

    def given_up(self) -> bool:
        """A step of this size took too long; whether a smaller one can be tried."""
        if self.size == 1:
            return False
        self.size = max(1, self.size // SHRINK)
        return True

    def took(self, seconds: float) -> None:
        """A step of this size is through."""
        if seconds < SHORT_S:
            self.size = min(self._most, self.size * 2)

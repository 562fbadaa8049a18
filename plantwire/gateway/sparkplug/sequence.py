"""The order of an edge node's messages: 0 to 255 and around, over the node and all its devices. Pure.

In: sequence numbers in order of arrival. Out: how each stands to those before it.
Guarantees: remembers at most 255 missing numbers; a number that is neither the next nor missing nor ahead
is `BEHIND`; once one cannot come any more, nothing counts as complete until `give_up`.
Not here: the reorder timer and what follows from it (`session`).
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

SEQUENCES: Final = 256
_AHEAD_MAX: Final = 128
"""Half the circle: a number further ahead is taken as one from behind."""


class Order(Enum):
    """How a message stands to those before it."""

    NEXT = auto()
    AHEAD = auto()
    """Messages before it are missing."""
    FILLS = auto()
    """It was missing; others still are."""
    COMPLETES = auto()
    """It was the last that was missing."""
    BEHIND = auto()
    """It was not expected any more: a repetition, or a sender that began anew."""


class SequenceTracker:
    """Begins with a birth's number; `take` the number of each message after it."""

    __slots__ = ("_lost", "_missing", "_next")

    def __init__(self, birth: int) -> None:
        self._next = (birth + 1) % SEQUENCES
        self._missing: set[int] = set()
        self._lost = False

    def take(self, sequence: int) -> Order:
        """Note `sequence`, 0 to 255."""
        if sequence == self._next:
            self._next = (sequence + 1) % SEQUENCES
            if sequence in self._missing:  # the circle came around to it
                self._missing.discard(sequence)
                self._lost = True
            return Order.NEXT
        if sequence in self._missing:
            self._missing.discard(sequence)
            return Order.FILLS if self._missing or self._lost else Order.COMPLETES
        ahead = (sequence - self._next) % SEQUENCES
        if ahead >= _AHEAD_MAX:
            self._lost = True
            return Order.BEHIND
        self._missing.update((self._next + step) % SEQUENCES for step in range(ahead))
        self._missing.discard(sequence)
        self._next = (sequence + 1) % SEQUENCES
        return Order.AHEAD

    def give_up(self) -> None:
        """What is missing is not expected any more."""
        self._missing.clear()
        self._lost = False

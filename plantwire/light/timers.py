"""Timers by device on our clock, as Flink's processing-time timers are.

In: moments. Out: those that have come, in their order. Pure.
Guarantees: the same moment of the same device twice is one timer; memory is that of the timers that are set.
Not here: when it is time to look (the loops), how timers survive: they follow from the states.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

_DROPPED_MAX: Final = 1_000


class Timers:
    """Times are ms since the epoch."""

    def __init__(self) -> None:
        self._set: set[tuple[int, str]] = set()
        # Also has what was dropped since it was last tidied up.
        self._heap: list[tuple[int, str]] = []

    def set(self, device_id: str, at_ms: int) -> None:
        """Wake the device then."""
        timer = at_ms, device_id
        if timer not in self._set:
            self._set.add(timer)
            heapq.heappush(self._heap, timer)

    def drop(self, device_id: str, at_ms: int) -> None:
        """Do not."""
        self._set.discard((at_ms, device_id))
        if len(self._heap) > 2 * len(self._set) + _DROPPED_MAX:
            self._heap = list(self._set)
            heapq.heapify(self._heap)

    def due(self, now_ms: int) -> Iterator[tuple[str, int]]:
        """(device, moment) of those that have come, each once; more may be set meanwhile."""
        while self._heap and self._heap[0][0] <= now_ms:
            timer = heapq.heappop(self._heap)
            if timer in self._set:
                self._set.remove(timer)
                yield timer[1], timer[0]

    def next_ms(self) -> int | None:
        """The next moment at the earliest; None where none is set."""
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._set)

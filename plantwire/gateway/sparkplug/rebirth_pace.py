"""Spreads rebirth requests over time, so that a thousand edge nodes are not asked at once.

In: which edge nodes are to be asked, and the time. Out: which to ask now, and when to look again. Pure.
Guarantees: an edge node waits at most once; first come, first asked; never more than `per_s` in one second
beyond a first `per_s`. At most `waiting_max` wait; further ones are refused (their next message asks again).
Not here: whether one edge node may be asked again already (its session's own rate limit).
"""

from __future__ import annotations

import math

from plantwire.gateway.sparkplug.outcome import EdgeNodeId, RequestRebirth


class RebirthPace:
    """A queue that lets `per_s` requests pass in a second."""

    def __init__(self, per_s: float, waiting_max: int, now_ms: int) -> None:
        self._per_ms = per_s / 1000
        self._burst = max(1.0, per_s)
        self._waiting_max = waiting_max
        self._waiting: dict[EdgeNodeId, RequestRebirth] = {}
        self._tokens = self._burst
        self._filled_ms = now_ms

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, request: RequestRebirth) -> bool:
        """Queue a request, one per edge node; False where the queue is full."""
        if request.edge_node not in self._waiting:
            if len(self._waiting) >= self._waiting_max:
                return False
            self._waiting[request.edge_node] = request
        return True

    def withdraw(self, edge_node: EdgeNodeId) -> None:
        """It need not be asked any more; harmless where it does not wait."""
        self._waiting.pop(edge_node, None)

    def clear(self) -> None:
        """Nobody need be asked any more."""
        self._waiting.clear()

    def take_due(self, now_ms: int) -> list[RequestRebirth]:
        """Those to ask now; they wait no longer. `now_ms` never goes back."""
        self._tokens = min(self._burst, self._tokens + (now_ms - self._filled_ms) * self._per_ms)
        self._filled_ms = now_ms
        due: list[RequestRebirth] = []
        for request in self._waiting.values():
            if self._tokens < 1.0:
                break
            self._tokens -= 1.0
            due.append(request)
        for request in due:
            del self._waiting[request.edge_node]
        return due

    def next_due_ms(self) -> int | None:
        """When `take_due` has somebody next; None while nobody waits."""
        if not self._waiting:
            return None
        return self._filled_ms + max(0, math.ceil((1.0 - self._tokens) / self._per_ms))

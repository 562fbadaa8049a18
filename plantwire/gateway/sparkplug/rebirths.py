"""When one edge node is asked for its births, and why. Pure.

In: wishes, births, the time. Out: effects in a `Turn`, and when to look again.
Guarantees: a wish that comes too soon after a request is kept until its time comes; a birth or death drops
it. While no birth answers, the node's other messages have it asked again whenever it may be.
Not here: how far apart requests are (`rebirth_limit`), what makes a birth necessary (`session`).
"""

from __future__ import annotations

from plantwire.gateway.sparkplug.outcome import EdgeNodeId, Note, RebirthReason, RequestRebirth
from plantwire.gateway.sparkplug.rebirth_limit import RebirthLimit
from plantwire.gateway.sparkplug.turn import Turn


class Rebirths:
    """Of one edge node."""

    __slots__ = ("_awaited", "_deferred", "_edge_node", "_limit", "due_ms")

    def __init__(self, edge_node: EdgeNodeId, limit: RebirthLimit) -> None:
        self._edge_node = edge_node
        self._limit = limit
        self._awaited: RebirthReason | None = None
        self._deferred: RebirthReason | None = None
        self.due_ms: int | None = None
        """When a deferred wish may be granted, monotonic clock."""

    def want(self, turn: Turn, reason: RebirthReason) -> None:
        """The node's births are needed: ask, now or as soon as it may be asked."""
        allowed_ms = self._limit.allowed_at_ms(turn.now_ms)
        if allowed_ms <= turn.now_ms:
            self._ask(turn, reason)
        elif self.due_ms is None:
            self.due_ms, self._deferred = allowed_ms, reason
            turn.notes.append(Note.REBIRTH_DEFERRED)

    def note_heard(self, turn: Turn) -> None:
        """The node sent something that is no birth."""
        if self._awaited is not None and self._limit.allowed_at_ms(turn.now_ms) <= turn.now_ms:
            self._ask(turn, self._awaited)

    def note_settled(self) -> None:
        """The node was born, or died: nothing is wanted of it any more."""
        self._awaited = self._deferred = self.due_ms = None

    def expire(self, turn: Turn) -> None:
        """Grant a deferred wish whose time has come."""
        if self.due_ms is not None and self.due_ms <= turn.now_ms and self._deferred is not None:
            self._ask(turn, self._deferred)

    def _ask(self, turn: Turn, reason: RebirthReason) -> None:
        self._limit.note_asked(turn.now_ms)
        self._awaited = reason
        self._deferred = self.due_ms = None
        turn.effects.append(RequestRebirth(self._edge_node, reason))

"""How often one edge node is asked for its births. Pure.

In: wishes with their time. Out: whether to ask now, or when.
Guarantees: two requests are never closer than `first_ms`; the distance doubles with each up to
`longest_ms`, and starts anew after twice the longest without any.
Not here: the pace over all edge nodes (`rebirth_pace`).
"""

from __future__ import annotations


class RebirthLimit:
    """Of one edge node."""

    __slots__ = ("_asked_ms", "_distance_ms", "_first_ms", "_longest_ms")

    def __init__(self, first_ms: int, longest_ms: int) -> None:
        self._first_ms = first_ms
        self._longest_ms = max(first_ms, longest_ms)
        self._asked_ms: int | None = None
        self._distance_ms = first_ms

    def allowed_at_ms(self, now_ms: int) -> int:
        """When the node may be asked next: `now_ms`, or later."""
        if self._asked_ms is None:
            return now_ms
        return max(now_ms, self._asked_ms + self._distance_ms)

    def note_asked(self, now_ms: int) -> None:
        """The node is asked at `now_ms`."""
        if self._asked_ms is None or now_ms - self._asked_ms >= 2 * self._longest_ms:
            self._distance_ms = self._first_ms
        else:
            self._distance_ms = min(2 * self._distance_ms, self._longest_ms)
        self._asked_ms = now_ms

"""Why parts of one message are refused: each reason once, with the first case and the number of others.

In: reasons and details. Out: `Rejected`, one per reason.
Not here: counting over messages (`host`).
"""

from __future__ import annotations

from plantwire.gateway.rejected import Reason, Rejected


class Refusals:
    """Of one message."""

    __slots__ = ("_counts", "_first")

    def __init__(self) -> None:
        self._first: dict[Reason, str] = {}
        self._counts: dict[Reason, int] = {}

    def add(self, reason: Reason, detail: str) -> None:
        """Note one refusal; `detail` is a sentence."""
        self._first.setdefault(reason, detail)
        self._counts[reason] = self._counts.get(reason, 0) + 1

    def __contains__(self, reason: Reason) -> bool:
        return reason in self._first

    def rejected(self) -> tuple[Rejected, ...]:
        """What was refused, in the order in which each reason first came."""
        return tuple(
            Rejected(
                reason, detail if self._counts[reason] == 1 else f"{detail} So {self._counts[reason]} times."
            )
            for reason, detail in self._first.items()
        )

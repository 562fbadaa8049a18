"""What one call to a session adds up to, while it is being worked out.

In: frames, refusals, notes and effects as they arise. Out: one `Outcome`.
Not here: what they mean (`outcome`), who makes them (`session`).
"""

from __future__ import annotations

from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.sparkplug.outcome import Effect, Note, Outcome
from plantwire.gateway.sparkplug.refusals import Refusals
from plantwire.schemas.records import TelemetryFrame


class Turn:
    """One call: its times, and what came of it so far."""

    __slots__ = ("_rejected", "effects", "frames", "notes", "now_ms", "received_us")

    def __init__(self, received_us: int, now_ms: int) -> None:
        self.received_us = received_us
        """Wall clock."""
        self.now_ms = now_ms
        """Monotonic clock, for timers."""
        self.frames: list[TelemetryFrame] = []
        self.notes: list[Note] = []
        self.effects: list[Effect] = []
        self._rejected: list[Rejected] = []

    @property
    def received_ms(self) -> int:
        """Wall clock."""
        return self.received_us // 1000

    def refuse(self, reason: Reason, detail: str) -> None:
        """Add one refusal."""
        self._rejected.append(Rejected(reason, detail))

    def refuse_as(self, rejected: Rejected) -> None:
        """Add one that is already worded."""
        self._rejected.append(rejected)

    def refuse_all(self, refusals: Refusals) -> None:
        """Add those of the single metrics."""
        self._rejected.extend(refusals.rejected())

    def outcome(self) -> Outcome:
        """All of it."""
        return Outcome(tuple(self.frames), tuple(self._rejected), tuple(self.notes), tuple(self.effects))

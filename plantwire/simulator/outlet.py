"""What sending a frame can come to, and when to try again.

In: the outcome of each attempt. Out: counts by outcome and reason; whether the other side is worth a try.
Guarantees: every frame made is counted once: made = accepted + unchanged + rejected + dropped.
Not here: the transports (`simulator.http_outlet`, `simulator.mqtt_outlet`, `simulator.sparkplug`,
`simulator.lorawan`).
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

import msgspec

from plantwire.platform.backoff import jittered_backoff_s
from plantwire.simulator.frame import Frame

RETRY_FIRST_S: Final = 0.5
RETRY_LONGEST_S: Final = 15.0
# Reasons come from the other side's answers too, so their number is bounded.
_REASONS_MAX: Final = 50
OTHER_REASONS: Final = "other"


class Accepted(msgspec.Struct, frozen=True):
    """The other side has taken the frame over."""


class Unchanged(msgspec.Struct, frozen=True):
    """Nothing in the frame is new, and the protocol sends what is new alone."""


class Rejected(msgspec.Struct, frozen=True):
    """The other side refused this frame; sending it again would not help."""

    reason: str
    detail: str = ""


class Dropped(msgspec.Struct, frozen=True):
    """The frame did not get through, or no answer says that it did; a simulated device keeps nothing."""

    reason: str


Outcome = Accepted | Unchanged | Rejected | Dropped


class Outlet(Protocol):
    """A way to the gateway."""

    name: str

    async def send(self, frame: Frame) -> Outcome:
        """Send one frame; never raises for what the other side or the network does."""
        ...


class Gate:
    """Whether to try: closed for a time after a failure, twice as long after each further one."""

    def __init__(self) -> None:
        self._failures = 0
        self._closed_until_s = 0.0

    def is_open(self, now_s: float) -> bool:
        """Whether an attempt may be made; `now_s` is monotonic."""
        return now_s >= self._closed_until_s

    def succeed(self) -> None:
        """An attempt went through."""
        self._failures = 0

    def fail(self, now_s: float, chance: float, at_least_s: float = 0.0) -> None:
        """An attempt failed; `chance` in [0, 1) spreads the next one. Failures at once count as one."""
        if not self.is_open(now_s):
            return
        self._failures += 1
        wait_s = max(
            jittered_backoff_s(self._failures, RETRY_FIRST_S, RETRY_LONGEST_S, chance),
            min(at_least_s, RETRY_LONGEST_S),
        )
        self._closed_until_s = now_s + wait_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next attempt."""
        return max(0.0, self._closed_until_s - now_s)


class Tally:
    """Counts of one run."""

    def __init__(self) -> None:
        self.made = 0
        self.accepted: Counter[str] = Counter()
        """By outlet."""
        self.rejected: Counter[str] = Counter()
        """By reason."""
        self.dropped: Counter[str] = Counter()
        """By reason."""
        self.unchanged = 0
        """Frames of which nothing had to be sent."""
        self.skipped = 0
        """Frames that were due and never made, because the one before took too long."""

    def count(self, outlet: str, outcome: Outcome) -> bool:
        """Count a frame's outcome; whether its reason is a new one."""
        self.made += 1
        if isinstance(outcome, Accepted):
            self.accepted[outlet] += 1
            return False
        if isinstance(outcome, Unchanged):
            self.unchanged += 1
            return False
        reasons = self.rejected if isinstance(outcome, Rejected) else self.dropped
        reason = f"{outlet}: {outcome.reason}"
        if reason not in reasons and len(reasons) >= _REASONS_MAX:
            reason = OTHER_REASONS
        is_new = reason not in reasons
        reasons[reason] += 1
        return is_new

    def as_dict(self) -> dict[str, object]:
        """The counts, for a log line."""
        return {
            "made": self.made,
            "accepted": dict(self.accepted),
            "unchanged": self.unchanged,
            "rejected": dict(self.rejected),
            "dropped": dict(self.dropped),
            "skipped": self.skipped,
        }

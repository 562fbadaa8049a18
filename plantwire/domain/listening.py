"""Until when it is known that a device sent nothing but what was taken.

In: when its last frame was measured, received by its gateway and read here; how far behind the frames that
are being read now are; the time. Out: a moment on the device's clock.
Guarantees: a backlog that is read, fast or slowly, is not taken for silence, nor is the time in which
nothing was read at all: after a restart, and before the first frame. A device's clock may be off by any
constant time.
Not here: what silence means (`domain.missing`).

Two clocks must agree: the gateways', by which the frames that are being read must have passed the moment, and
ours, by which the device must have been heard so long ago. A device that was not heard since a restart may
have frames among those that are read first, so it is given `SETTLE_MS`.
"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

GRACE_MS: Final = 1_000
"""What is on its way wins over a timer."""
SETTLE_MS: Final = 60_000
IDLE_MS: Final = 30_000
"""Nothing read for so long: there is no backlog."""
LOOK_AGAIN_MS: Final = 1_000
STEP_MIN_MS: Final = 10_000
LONG_AGO_MS: Final = -(2**62)
"""Until when nothing is known."""


class Heard(NamedTuple):
    """A frame of a device, in ms since the epoch."""

    event_ms: int
    received_ms: int
    """By its gateway's clock."""
    read_ms: int
    """By ours."""

    @property
    def clock_ahead_ms(self) -> int:
        """How far the device's clock was ahead of its gateway's, less the time that the frame took."""
        return self.event_ms - self.received_ms


class Ear:
    """What a device's frames say of its clock. `since_ms` is our time from which on it was listened to,
    `clock_ahead_ms` what was known of its clock before.
    """

    __slots__ = ("_is_heard", "clock_ahead_ms", "heard")

    def __init__(self, since_ms: int, clock_ahead_ms: int | None = None) -> None:
        self.heard = Heard(clock_ahead_ms or 0, 0, since_ms)
        """The newest frame; before the first one in its place a moment that says nothing."""
        self.clock_ahead_ms = clock_ahead_ms
        """How far the device's clock is ahead of its gateway's; of frames that were sent together, or took
        long, those count that were on their way for the shortest time. None: unknown.
        """
        self._is_heard = False

    def hear(self, heard: Heard, *, is_put_back: bool = False) -> None:
        """Take note of a frame that is newer than all before it, or the first of a clock put back."""
        self.heard = heard
        self._is_heard = True
        ahead_ms = heard.clock_ahead_ms
        if self.clock_ahead_ms is None or is_put_back or ahead_ms > self.clock_ahead_ms:
            self.clock_ahead_ms = ahead_ms

    def put_forward_ms(self, heard: Heard) -> int:
        """How far the device's clock was put forward before this frame: it is further ahead of its gateway's
        than it ever was. 0 where it is little. A clock that finds its time after a start is no silence.
        """
        if self.clock_ahead_ms is None:
            return 0
        step_ms = heard.clock_ahead_ms - self.clock_ahead_ms
        return step_ms if step_ms >= STEP_MIN_MS else 0

    def silent_until_ms(self, lag_ms: int, now_ms: int) -> int:
        """The moment, on the device's clock, until which it is known what it sent."""
        heard = self.heard
        quiet_ms = now_ms - heard.read_ms
        if not self._is_heard:
            if quiet_ms < SETTLE_MS:
                return LONG_AGO_MS
            return now_ms - lag_ms + heard.event_ms - GRACE_MS
        return min(now_ms - lag_ms + heard.clock_ahead_ms, heard.event_ms + quiet_ms) - GRACE_MS


def lag_ms(newest: Heard | None, now_ms: int) -> int:
    """How far behind the frames are that are being read, `newest` the last of them, of whichever device."""
    if newest is None or now_ms - newest.read_ms >= IDLE_MS:
        return 0
    return max(0, newest.read_ms - newest.received_ms)


def look_in_ms(look_ms: float, silent_until_ms: int) -> float:
    """In how many ms to ask again, where `look_ms` is the moment of the device's that is waited for."""
    return inf if look_ms == inf else max(look_ms - silent_until_ms, LOOK_AGAIN_MS)

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


class Heard(NamedTuple):
    """A frame of a device, in ms since the epoch."""

    event_ms: int
    received_ms: int
    """By its gateway's clock; 0 where there was no frame."""
    read_ms: int
    """By ours."""

    @property
    def clock_ahead_ms(self) -> int:
        """How far the device's clock is ahead of its gateway's."""
        return self.event_ms - self.received_ms


def not_heard(clock_ahead_ms: int, since_ms: int) -> Heard:
    """In place of a frame, for a device that was known before `since_ms`, our time, and not heard after."""
    return Heard(clock_ahead_ms, 0, since_ms)


def lag_ms(newest: Heard | None, now_ms: int) -> int:
    """How far behind the frames are that are being read, `newest` the last of them, of whichever device."""
    if newest is None or now_ms - newest.read_ms >= IDLE_MS:
        return 0
    return max(0, newest.read_ms - newest.received_ms)


def silent_until_ms(heard: Heard, lag_ms: int, now_ms: int) -> int:
    """The moment, on the device's clock, until which it is known what it sent."""
    until_ms = now_ms - lag_ms + heard.clock_ahead_ms
    quiet_ms = now_ms - heard.read_ms
    if heard.received_ms or quiet_ms < SETTLE_MS:
        until_ms = min(until_ms, heard.event_ms + quiet_ms)
    return until_ms - GRACE_MS


def look_in_ms(look_ms: float, silent_until_ms: int) -> float:
    """In how many ms to ask again, where `look_ms` is the moment of the device's that is waited for."""
    return inf if look_ms == inf else max(look_ms - silent_until_ms, LOOK_AGAIN_MS)


def put_forward_ms(before: Heard, after: Heard) -> int:
    """How far a device's clock was put forward between two frames: what passed for it and not for its
    gateway; 0 where it is little. A clock that finds its time after a start is no silence, nor are frames
    that were sent together long after they were measured.
    """
    if not before.received_ms:
        return 0
    step_ms = after.clock_ahead_ms - before.clock_ahead_ms
    return step_ms if step_ms >= STEP_MIN_MS else 0

"""When a device that sends nothing has to be looked at again.

In: its alarm state, how far its clock is ahead of ours, our time, when to ask for missing data again.
Out: the moment, on our clock.
Guarantees: never later than `HOUSEKEEPING_MS` from now while there is anything to remember.
Not here: what happens then (`DeviceDetector.run_timers`), the timer itself (Flink's, or an event loop's).
"""

from __future__ import annotations

from math import inf
from typing import Final

from plantwire.domain.detection import next_due_ms
from plantwire.domain.device_state import DeviceState

HOUSEKEEPING_MS: Final = 60_000
"""How often a device in alarm is looked at when it sends nothing, so that withdrawn rules clear."""


def next_look_ms(
    state: DeviceState, clock_ahead_ms: int, now_ms: int, silence_in_ms: float = inf
) -> int | None:
    """The next moment, ms since the epoch by our clock; None where nothing is remembered. `silence_in_ms` is
    in how many ms silence is to be asked for (`domain.listening`).
    """
    if not state:
        return None
    look_ms = now_ms + HOUSEKEEPING_MS
    due_ms = next_due_ms(state)
    if due_ms is not None:
        look_ms = min(look_ms, max(due_ms - clock_ahead_ms, now_ms))
    if silence_in_ms < HOUSEKEEPING_MS:
        look_ms = min(look_ms, now_ms + int(silence_in_ms))
    return look_ms

"""Where what is remembered of a device is kept, and what wakes it: what the rules ask of an engine.

In: one device's packed state and moments. Out: the same, later, also after a failure.
Guarantees that an engine gives: what was saved comes back with the position in the stream up to which
frames were taken, never with an earlier or a later one; a timer comes at its moment or after it, once.
Not here: engines (`udfs` for Flink, `light` without it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Counters = Callable[[str], Any]
"""Makes a counter, anything with `inc(number=1)`, of a name."""


class DeviceKeeper(Protocol):
    """State and timers of the device at hand, by one name of state. Times are ms since the epoch, on our
    clock.
    """

    def load(self) -> bytes | None:
        """What was saved last."""

    def save(self, packed: bytes) -> None:
        """Keep this."""

    def clear(self) -> None:
        """Keep nothing."""

    def set_timer(self, at_ms: int) -> None:
        """Wake the device then; the same moment twice is one timer."""

    def drop_timer(self, at_ms: int) -> None:
        """Do not."""

"""Flink's keyed state and processing-time timers, as the domain asks for them.

In: a value state and the context of a call. Out: a `domain.keeping.DeviceKeeper` of the key at hand.
"""

from __future__ import annotations

from typing import Any


class FlinkKeeper:
    """For one call: the key is the one that Flink has set for it."""

    __slots__ = ("_ctx", "_state")

    def __init__(self, state: Any, ctx: Any) -> None:
        self._state = state
        self._ctx = ctx

    def load(self) -> bytes | None:
        """See `DeviceKeeper`."""
        packed: bytes | None = self._state.value()
        return packed

    def save(self, packed: bytes) -> None:
        """See `DeviceKeeper`."""
        self._state.update(packed)

    def clear(self) -> None:
        """See `DeviceKeeper`."""
        self._state.clear()

    def set_timer(self, at_ms: int) -> None:
        """See `DeviceKeeper`."""
        self._ctx.timer_service().register_processing_time_timer(at_ms)

    def drop_timer(self, at_ms: int) -> None:
        """See `DeviceKeeper`."""
        self._ctx.timer_service().delete_processing_time_timer(at_ms)

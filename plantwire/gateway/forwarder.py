"""What transports hand their input to, and what they may hear.

In: decoded frames (`put`), refused bytes (`put_dead_letter`). Out: a future each, that resolves once they are
durable.
Guarantees: those of the implementations; a sender acknowledges only what resolved.
Not here: the implementations (`intake`, `buffer.buffered_forwarder`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from plantwire.gateway.rejected import Rejected
from plantwire.schemas.records import TelemetryFrame


class Obstacle(StrEnum):
    """Why nothing can be taken now."""

    IN_FLIGHT_FULL = "in-flight-full"
    NOT_ACKNOWLEDGED = "not-acknowledged"
    CLOSING = "closing"


class UnavailableError(Exception):
    """Not stored for now; the sender tries again. It may have been stored all the same."""

    def __init__(self, obstacle: Obstacle, detail: str) -> None:
        super().__init__(detail)
        self.obstacle = obstacle
        self.detail = detail


class DeadLetter(msgspec.Struct, frozen=True):
    """Refused bytes as they came, and where they came from (such as ``mqtt:devices/press-1/telemetry``)."""

    payload: bytes
    rejected: Rejected
    source: str
    received_time_ms: int
    protocol: str = ""
    """What the ledger counts it under, as a frame's; where empty, `source` up to its colon."""


class Forwarder(Protocol):
    """What a transport hands its input to."""

    def put(self, frames: Sequence[TelemetryFrame]) -> asyncio.Future[None]:
        """Take frames; the future resolves once all are durable, or fails with `UnavailableError`.

        Raises `UnavailableError` at once, with none taken, where there is no room.
        """

    def put_dead_letter(self, letter: DeadLetter) -> asyncio.Future[None]:
        """Take a dead letter; as `put`."""

    async def ready(self) -> str | None:
        """None where frames can be stored now, else what is amiss."""

"""What the edge buffer holds, and what it promises.

In: nothing. Out: `Entry`, `StoredEntry`, and the interface between the buffer and who fills and drains it.
Guarantees: an entry is complete in itself: bytes, topic, key and headers, so that it can be sent after a
restart by a process that never saw its frame.
Not here: SQLite (`edge_buffer`), when to buffer and when to drain (`buffered_forwarder`, `drain`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import Final, Protocol

import msgspec


class EntryKind(IntEnum):
    """What an entry is. Stored data: numbers are never reused."""

    ALARM = 0
    """Sent before everything else, and never evicted."""
    TELEMETRY = 1
    DEAD_LETTER = 2
    """Evicted as telemetry is."""


class DropReason(StrEnum):
    """Why something that was received is not delivered. Every drop is counted under one of these."""

    EVICTED_FULL = "evicted-full"
    """The buffer was at its bound in bytes; the oldest went."""
    EVICTED_AGE = "evicted-age"
    CORRUPT = "corrupt"
    """The buffer's file was damaged: the entry could not be read back, or is gone."""
    UNDELIVERABLE = "undeliverable"
    """Kafka refused the record for good."""
    NO_ROOM = "no-room"
    """Not taken, with nothing to tell the sender so (MQTT QoS 0)."""
    UNCHANGED = "unchanged"
    """Report by exception found nothing new in it."""
    RETURNED = "returned"
    """Not taken, and the sender knows: HTTP 503, or no PUBACK."""


class Entry(msgspec.Struct, frozen=True):
    """One record on its way to Kafka."""

    kind: EntryKind
    source: str
    """The protocol that it came by, such as `http`: what the ledger counts under."""
    device_id: str
    """Kafka key; empty for a dead letter."""
    event_time_ms: int
    body: bytes
    """The Kafka value. Of a frame: encoded as live; marked historical when it is drained."""
    headers: tuple[tuple[str, bytes], ...] = ()
    """Kafka headers: the fingerprint of the schema that `body` was written with (whoever drains it may be a
    newer gateway), or a dead letter's reason, source and time."""


class StoredEntry(msgspec.Struct, frozen=True):
    """An entry with its place in the buffer; `entry_id` grows with every put and is never used twice."""

    entry_id: int
    entry: Entry


class BufferRefusedError(Exception):
    """Not committed: the buffer is full of what may not be evicted, or its disk is full or failing."""


class BufferStats(msgspec.Struct, frozen=True):
    """What the buffer holds now."""

    entries: int
    size_bytes: int
    oldest_put_ms: int | None
    by_source: Mapping[str, int]
    set_aside: tuple[str, ...] = ()
    """Paths of damaged files that were set aside, oldest first."""
    dropped: Mapping[str, Mapping[DropReason, int]] = {}
    """By source, since the buffer was first made: durable with what was dropped."""
    set_aside_deleted: int = 0
    """Damaged files that were deleted since the start, because more were set aside than are kept."""


OnDrop = Callable[[str, DropReason, int], None]
"""(source, reason, how many); called in the event loop's thread."""

UNKNOWN_SOURCE: Final = "unknown"


class EdgeBuffer(Protocol):
    """A durable queue; used from the event loop's thread. Its own thread does the disk work."""

    def put(self, entries: Sequence[Entry]) -> asyncio.Future[list[int]]:
        """Commit entries (group commit); the future has their ids once they are durable, or fails with
        `BufferRefusedError`. Raises `BufferRefusedError` at once where too much waits for the disk.
        """

    async def peek(self, limit: int, below_id: int | None = None) -> list[StoredEntry]:
        """The first entries to send: alarms in order of id, then the rest in order of id; with `below_id`
        only those with a smaller id. What does not pass its checksum is dropped and counted, not answered.
        """

    def acknowledge(self, entry_ids: Sequence[int]) -> asyncio.Future[list[int]]:
        """Delivered: forget them. Resolves once that is durable, with those ids of them that were no longer
        there (evicted meanwhile, and counted as such then). Raises and fails as `put` does.
        """

    def drop(self, entry_ids: Sequence[int], reason: DropReason) -> asyncio.Future[list[int]]:
        """Forget them and count them under `reason`; resolves as `acknowledge`."""

    def stats(self) -> BufferStats:
        """From memory; what is still on its way to the disk is not in it."""

    def save(self, key: str, value: bytes | None) -> asyncio.Future[None]:
        """Keep a small value beside the entries (the ledger's counts, alarm state); None forgets it."""

    def saved(self, prefix: str) -> dict[str, bytes]:
        """Saved values by key, as found when the buffer was opened."""

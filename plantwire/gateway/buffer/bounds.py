"""How large and how old the edge buffer may become, and how its bound is shared out among its files.

In: what an operator sets. Out: `BufferBounds`.
Guarantees: database, write-ahead log and reserve together stay within `size_max_bytes`. While the disk lets
the log be written and not the database, forgetting (which is never refused) may add to the log beyond that.
Not here: what happens at a bound (`store`).
"""

from __future__ import annotations

from typing import Final

import msgspec

PAGE_BYTES: Final = 4096
SIZE_MIN_BYTES: Final = 1024 * 1024
_MIB: Final = 1024 * 1024


class BufferBounds(msgspec.Struct, frozen=True):
    """What the buffer holds at most. Raises `ValueError` for bounds that cannot be kept."""

    size_max_bytes: int = 1024 * _MIB
    """All of its files together; damaged files that were set aside are not in it."""
    age_max_s: float = 7 * 86_400.0
    """By the wall clock, from the put. Alarms do not age."""
    waiting_max_bytes: int = 64 * _MIB
    """Handed over and not yet on the disk."""

    def __post_init__(self) -> None:
        if self.size_max_bytes < SIZE_MIN_BYTES:
            raise ValueError(f"size_max_bytes is {self.size_max_bytes}; at least {SIZE_MIN_BYTES}")
        if self.age_max_s <= 0 or self.waiting_max_bytes <= 0:
            raise ValueError("age_max_s and waiting_max_bytes are above 0")

    @property
    def put_max_bytes(self) -> int:
        """The largest single put."""
        return min(16 * _MIB, self.size_max_bytes // 16)

    @property
    def transaction_max_bytes(self) -> int:
        """Puts are gathered into one transaction up to this size."""
        return min(4 * _MIB, self.put_max_bytes)

    @property
    def checkpoint_bytes(self) -> int:
        """A write-ahead log of this size is copied into the database and begun anew."""
        return min(4 * _MIB, self.size_max_bytes // 32)

    @property
    def wal_max_bytes(self) -> int:
        """The log just before a checkpoint: its threshold and the largest transaction, twice its entries."""
        return self.checkpoint_bytes + 2 * self.put_max_bytes

    @property
    def reserve_bytes(self) -> int:
        """Disk space kept for the day when there is none: a checkpoint must fit into it."""
        return self.checkpoint_bytes + self.put_max_bytes

    @property
    def saved_max_bytes(self) -> int:
        """All small values that are kept beside the entries together."""
        return min(32 * _MIB, self.size_max_bytes // 8)

    @property
    def pages_max(self) -> int:
        """Pages in use in the database file, above which the oldest entries go."""
        left = self.size_max_bytes - self.wal_max_bytes - self.reserve_bytes - 2 * self.put_max_bytes
        return left // PAGE_BYTES

    @property
    def file_pages_max(self) -> int:
        """Pages that the database file has at most: a transaction puts before it evicts."""
        return self.pages_max + 2 * self.put_max_bytes // PAGE_BYTES

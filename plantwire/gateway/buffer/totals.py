"""What came into the buffer and what became of it, by source.

In: changes, one transaction at a time. Out: `Totals`, its bytes, and the drops between two of them.
Guarantees: for each source, put = acknowledged + dropped + held. Pure.
Not here: the gateway's whole ledger (`ledger`); where totals are kept (`store`, `folder`).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final

import msgspec

from plantwire.gateway.buffer.entry import DropReason

_CHECKSUM_BYTES: Final = 4

Drop = tuple[str, DropReason, int]


class Held(msgspec.Struct, frozen=True):
    """Entries of one source that are in the database: how many, and the bytes of their bodies and headers."""

    entries: int
    size_bytes: int


NOTHING: Final = Held(0, 0)


class SourceTotals(msgspec.Struct):
    """Since the buffer was first made."""

    put: int = 0
    acknowledged: int = 0
    dropped: dict[DropReason, int] = {}
    size_bytes: int = 0
    """Of what is held."""

    def entries(self) -> int:
        """How many are held."""
        return self.put - self.acknowledged - sum(self.dropped.values())

    def count_drop(self, reason: DropReason, count: int) -> None:
        """`count` entries that were held are not any more."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count


class Totals(msgspec.Struct):
    """Written with every transaction, so that they and the entries cannot differ."""

    transaction: int = 0
    """Grows with every transaction: of two states of one buffer it tells which is later."""
    next_id: int = 1
    by_source: dict[str, SourceTotals] = {}

    def of(self, source: str) -> SourceTotals:
        """Those of one source; begun where it is new."""
        return self.by_source.setdefault(source, SourceTotals())

    def entries(self) -> int:
        """Entries held."""
        return sum(one.entries() for one in self.by_source.values())

    def size_bytes(self) -> int:
        """Bytes of bodies and headers held."""
        return sum(one.size_bytes for one in self.by_source.values())

    def held(self) -> dict[str, int]:
        """Entries held by source, without those that hold none."""
        return {source: count for source, one in self.by_source.items() if (count := one.entries())}

    def dropped(self) -> dict[str, dict[DropReason, int]]:
        """Drops by source, without sources that had none."""
        return {source: one.dropped for source, one in self.by_source.items() if one.dropped}

    def copy(self) -> Totals:
        """An independent copy."""
        return msgspec.msgpack.decode(msgspec.msgpack.encode(self), type=Totals)

    def encode(self) -> bytes:
        """Bytes with a checksum before them."""
        body = msgspec.msgpack.encode(self)
        return zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") + body

    def add_lost(self, later: Totals, found: Mapping[str, int]) -> None:
        """These are older than `later`, which was seen before: what was put between is gone, and counted so,
        but for what was `found` of it (by source).

        What was acknowledged or evicted between may be back, and is then sent again. What was put and
        acknowledged between cannot be told from what was lost, and counts as lost: rather too much than
        too little.
        """
        for source, seen in later.by_source.items():
            here = self.of(source)
            lost = seen.put - here.put
            if lost > 0:
                here.put = seen.put
                here.count_drop(DropReason.CORRUPT, max(0, lost - found.get(source, 0)))
        self.transaction = max(self.transaction, later.transaction)
        self.next_id = max(self.next_id, later.next_id)

    def reconcile(self, found: Mapping[str, Held], highest_id: int) -> None:
        """Make these agree with what was found in the database.

        Entries that are missing are counted CORRUPT; such as nobody had counted are put now.
        """
        for source in self.by_source.keys() | found.keys():
            one, held = self.of(source), found.get(source, NOTHING)
            missing = one.entries() - held.entries
            if missing > 0:
                one.count_drop(DropReason.CORRUPT, missing)
            elif missing < 0:
                one.put -= missing
            one.size_bytes = held.size_bytes
        self.next_id = max(self.next_id, highest_id + 1)


def decode_totals(value: bytes) -> Totals:
    """The inverse of `Totals.encode`; raises `ValueError` where the bytes are damaged."""
    body = value[_CHECKSUM_BYTES:]
    if zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") != value[:_CHECKSUM_BYTES]:
        raise ValueError("the totals do not pass their checksum")
    return msgspec.msgpack.decode(body, type=Totals)


def drops_between(before: Totals, after: Totals) -> list[Drop]:
    """What `after` counts as dropped and `before` did not."""
    drops: list[Drop] = []
    for source, one in after.by_source.items():
        known = before.by_source[source].dropped if source in before.by_source else {}
        for reason, count in one.dropped.items():
            if count > known.get(reason, 0):
                drops.append((source, reason, count - known.get(reason, 0)))
    return drops

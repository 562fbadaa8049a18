"""What one transaction of the edge buffer does, and what came of it.

In: nothing. Out: `Changes`, `Receipt`, and the refusal `NoRoomError`.
Not here: how it is done (`store`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from plantwire.gateway.buffer.entry import DropReason, Entry
from plantwire.gateway.buffer.totals import Drop


class NoRoomError(Exception):
    """What may not be evicted leaves no room for this."""


class Changes(msgspec.Struct, frozen=True):
    """One transaction."""

    puts: Sequence[Sequence[Entry]] = ()
    forgotten: Sequence[tuple[Sequence[int], DropReason | None]] = ()
    """Ids, and the reason to count them under; None: delivered."""
    saved: dict[str, bytes | None] = {}


class Receipt(msgspec.Struct, frozen=True):
    """What a transaction did."""

    ids: list[list[int]]
    """Of each put."""
    drops: list[Drop]
    gone: list[list[int]] = []
    """Of each of the forgotten: the ids that were no longer there."""

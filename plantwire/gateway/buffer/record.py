"""A record between its arrival and its last place: where its live attempt and its buffer entry stand.

In: what was received, as the buffer would keep it. Out: `Record`, `Alarm`, and the `Put` that settles them
together.
Guarantees: mutable, and changed by `durability` alone.
Not here: what follows from the states (`durability`).
"""

from __future__ import annotations

import asyncio
from enum import Enum

from plantwire.gateway.buffer.entry import DropReason, Entry
from plantwire.gateway.buffer.ledger import Account


class Live(Enum):
    """The live attempt of a record."""

    NONE = 0
    """There is none: no room in flight, or an alarm, which only the buffer takes."""
    TRYING = 1
    DELIVERED = 2
    FAILED = 3


class Row(Enum):
    """The record's place in the buffer."""

    NONE = 0
    COMMITTING = 1
    STORED = 2


class Put:
    """Records that are settled together."""

    __slots__ = ("pending", "promise", "refusal", "settled", "started_ms", "stored")

    def __init__(
        self, promise: asyncio.Future[None], records: int, started_ms: float, refusal: DropReason
    ) -> None:
        self.promise = promise
        self.pending = records
        self.started_ms = started_ms
        self.refusal = refusal
        self.settled = False
        self.stored = False
        """Whether the buffer had a part in it."""


class Record:
    """One frame, dead letter or alarm between its arrival and its last place."""

    __slots__ = (
        "account",
        "alarms",
        "entry",
        "entry_id",
        "live",
        "observed",
        "order",
        "put",
        "row",
        "stateful",
    )

    def __init__(self, entry: Entry, account: Account, put: Put | None, order: int) -> None:
        self.entry = entry
        self.account = account
        self.put = put
        self.order = order
        self.live = Live.NONE
        self.row = Row.NONE
        self.entry_id = 0
        self.alarms: tuple[Alarm, ...] = ()
        self.observed = False
        """A live frame: edge detection wants to know what became of it."""
        self.stateful = False
        """A frame that carries `edge_state`."""

    @property
    def attempt(self) -> Live:
        """What the cloud has heard of it."""
        return self.live


class Alarm(Record):
    """An alarm event on its way to the buffer; with the frame that caused it, if one did."""

    __slots__ = ("frame", "owed", "received")

    def __init__(self, entry: Entry, account: Account, frame: Record | None) -> None:
        super().__init__(entry, account, None, 0)
        self.frame = frame
        self.received = False
        """Whether the ledger has it; it does from the first attempt to store it."""
        self.owed = False

    @property
    def attempt(self) -> Live:
        """That of the frame that caused it."""
        return Live.NONE if self.frame is None else self.frame.live

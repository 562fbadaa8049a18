"""What became of everything that was received: received = delivered + buffered + dropped + in hand.

In: each change of place of a frame or dead letter, from whoever causes it. Out: counts per source; bytes to
save them by.
Guarantees: every change moves a number from one place to another, so the identity holds after each of them,
per source. After a restart the rows of the buffer are the truth, its own totals for what it dropped, and what
a crash took from the other counts (at most what happened since the last save) is missing on both sides alike.
Not here: when to save (`buffered_forwarder`), Prometheus (`buffer_metrics`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from plantwire.gateway.buffer.entry import DropReason

SAVED_KEY: Final = "ledger"
SOURCE_EDGE_ALARMS: Final = "edge-alarms"
"""Alarm events that go through the buffer; those of frames that arrive live are the cloud's to tell."""


BufferDrops = Mapping[str, Mapping[DropReason, int]]
NO_DROPS: Final[BufferDrops] = {}


class SourceCounts(msgspec.Struct, frozen=True):
    """Counts of one source, or of all together."""

    received: int
    delivered_live: int
    delivered_drained: int
    buffered: int
    dropped: dict[str, int]
    in_hand: int

    @property
    def identity_holds(self) -> bool:
        """Whether everything received is somewhere."""
        placed = self.delivered_live + self.delivered_drained + self.buffered + self.in_hand
        return self.received == placed + sum(self.dropped.values())


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    delivered_live: int
    delivered_drained: int
    dropped: dict[str, int]


_REASONS: Final = {reason.value: reason for reason in DropReason}
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(dict[str, _Saved])


class Account:
    """The counts of one source; each method moves between places."""

    __slots__ = ("buffered", "delivered_drained", "delivered_live", "dropped", "in_hand", "received")

    def __init__(self) -> None:
        self.received = self.in_hand = self.buffered = 0
        self.delivered_live = self.delivered_drained = 0
        self.dropped: Counter[DropReason] = Counter()

    def receive(self, count: int = 1) -> None:
        """Arrived, and in hand."""
        self.received += count
        self.in_hand += count

    def refuse(self, reason: DropReason, count: int = 1) -> None:
        """Arrived, and dropped at once."""
        self.received += count
        self.dropped[reason] += count

    def deliver(self) -> None:
        """From hand to Kafka."""
        self.in_hand -= 1
        self.delivered_live += 1

    def store(self) -> None:
        """From hand to the buffer."""
        self.in_hand -= 1
        self.buffered += 1

    def drop(self, reason: DropReason) -> None:
        """From hand to nowhere."""
        self.in_hand -= 1
        self.dropped[reason] += 1

    def deliver_stored(self) -> None:
        """In the buffer, and Kafka acknowledged the live attempt after all."""
        self.buffered -= 1
        self.delivered_live += 1

    def drain(self, count: int = 1) -> None:
        """From the buffer to Kafka."""
        self.buffered -= count
        self.delivered_drained += count

    def lose(self, reason: DropReason, count: int) -> None:
        """From the buffer to nowhere."""
        self.buffered -= count
        self.dropped[reason] += count

    def counts(self) -> SourceCounts:
        """As they are now."""
        return SourceCounts(
            received=self.received,
            delivered_live=self.delivered_live,
            delivered_drained=self.delivered_drained,
            buffered=self.buffered,
            dropped={reason.value: count for reason, count in self.dropped.items() if count},
            in_hand=self.in_hand,
        )


class Ledger:
    """The accounts by source. Sources are protocols: few, and not the senders' to choose."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def account(self, source: str) -> Account:
        """The account of a source, opened where there is none."""
        account = self._accounts.get(source)
        if account is None:
            account = self._accounts[source] = Account()
        return account

    def handle_drop(self, source: str, reason: DropReason, count: int) -> None:
        """The buffer dropped entries (`entry.OnDrop`)."""
        self.account(source).lose(reason, count)

    def counts(self) -> dict[str, SourceCounts]:
        """Per source, in order of name."""
        return {source: self._accounts[source].counts() for source in sorted(self._accounts)}

    def save(self) -> bytes:
        """What `restore` needs after a restart: the rest follows from the buffer's rows."""
        return _encoder.encode(
            {
                source: _Saved(counts.delivered_live, counts.delivered_drained, counts.dropped)
                for source, counts in self.counts().items()
            }
        )

    def restore(self, saved: bytes | None, rows: Mapping[str, int], dropped: BufferDrops = NO_DROPS) -> None:
        """Go on from what was saved, from what the buffer holds (`rows`, by source) and from what it
        `dropped` since it was made; what it dropped while it was opened is counted already. Raises
        `msgspec.MsgspecError` where `saved` is no saved ledger, with the rest taken over all the same.
        """
        try:
            for source, counts in _decode(saved).items():
                account = self.account(source)
                account.delivered_live += counts.delivered_live
                account.delivered_drained += counts.delivered_drained
                for reason, count in counts.dropped.items():
                    if reason in _REASONS:  # a newer gateway may know more
                        account.dropped[_REASONS[reason]] += count
        finally:
            for source, drops in dropped.items():
                for reason, count in drops.items():
                    # The buffer's total is later than the save, unless a damaged file took it.
                    before = self.account(source).dropped
                    before[reason] = max(before[reason], count)
            for source in {*rows, *self._accounts}:
                account = self.account(source)
                account.buffered = rows.get(source, 0)
                account.received = (
                    account.delivered_live
                    + account.delivered_drained
                    + account.buffered
                    + account.dropped.total()
                    + account.in_hand
                )


def total(counts: Mapping[str, SourceCounts]) -> SourceCounts:
    """The sum over all sources."""
    dropped: Counter[str] = Counter()
    for each in counts.values():
        dropped.update(each.dropped)
    return SourceCounts(
        received=sum(each.received for each in counts.values()),
        delivered_live=sum(each.delivered_live for each in counts.values()),
        delivered_drained=sum(each.delivered_drained for each in counts.values()),
        buffered=sum(each.buffered for each in counts.values()),
        dropped=dict(dropped),
        in_hand=sum(each.in_hand for each in counts.values()),
    )


def counts_without_gateway(
    saved: bytes | None, rows: Mapping[str, int], dropped: BufferDrops = NO_DROPS
) -> dict[str, SourceCounts]:
    """The counts as a gateway that is down left them; raises `msgspec.MsgspecError`."""
    ledger = Ledger()
    ledger.restore(saved, rows, dropped)
    return ledger.counts()


def _decode(saved: bytes | None) -> dict[str, _Saved]:
    return {} if saved is None else _decoder.decode(saved)

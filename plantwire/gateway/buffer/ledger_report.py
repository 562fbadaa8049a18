"""The ledger as GET /ledger and `plantwire ledger` show it.

In: counts by source, what the buffer holds, the mode. Out: one record that is JSON as it stands.
Guarantees: `identity_holds` is computed from the numbers shown, not assumed.
Not here: counting (`ledger`), printing (`stack.ledger_view`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from plantwire.gateway.buffer.entry import BufferStats
from plantwire.gateway.buffer.ledger import SourceCounts, total


class BufferReport(msgspec.Struct, frozen=True):
    """What the edge buffer holds."""

    entries: int
    bytes: int
    oldest_age_s: float | None
    set_aside: tuple[str, ...]
    """Damaged files that were set aside."""


class LedgerReport(msgspec.Struct, frozen=True):
    """Everything, at one moment."""

    identity_holds: bool
    """received = delivered + buffered + dropped + in hand, for each source."""
    mode: str
    """`direct`, `buffering`, or `down` where no gateway runs."""
    mode_since: str | None
    buffer: BufferReport
    total: SourceCounts
    sources: dict[str, SourceCounts]


def ledger_report(
    counts: Mapping[str, SourceCounts], stats: BufferStats, mode: str, mode_since: str | None, now_ms: int
) -> LedgerReport:
    """The report at `now_ms`, since the epoch."""
    oldest_ms = stats.oldest_put_ms
    return LedgerReport(
        identity_holds=all(each.identity_holds for each in counts.values()),
        mode=mode,
        mode_since=mode_since,
        buffer=BufferReport(
            entries=stats.entries,
            bytes=stats.size_bytes,
            oldest_age_s=None if oldest_ms is None else max(0, now_ms - oldest_ms) / 1000,
            set_aside=stats.set_aside,
        ),
        total=total(counts),
        sources=dict(counts),
    )

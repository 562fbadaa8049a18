"""Samples on their way to one or more transactions. Pure.

In: rows with the minute that they belong to. Out: islands: rows whose minutes lie close together.
Guarantees: rows of one island keep the order in which they were added; rows with the same key are in the same
island. Bounded by who fills it (`ingest`).
Not here: reading frames (`reading`), writing (`tables`).

An island becomes one transaction. TimescaleDB remembers per transaction only the earliest and the latest
time that it changed, and computes the tiers of all between anew: one backlog from last week among live
samples would cost a week. A transaction costs a commit, so a batch has a few islands at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import nlargest
from itertools import pairwise
from typing import Any, Final, NamedTuple

MINUTE_MS: Final = 60_000
GAP_MINUTES: Final = 5
"""Rows closer than this stay together."""
ISLANDS_MAX: Final = 8


class Record(NamedTuple):
    """A Kafka record as the storage needs it."""

    partition: int
    offset: int
    key: bytes | None
    body: bytes
    headers: Any = None


class Piece(NamedTuple):
    """The rows of one record that belong to one minute."""

    record: Record
    rows: bytes
    samples: int


class Island(NamedTuple):
    """Pieces of the minutes from first to last, counted from the epoch."""

    first_minute: int
    last_minute: int
    pieces: tuple[Piece, ...]

    @property
    def samples(self) -> int:
        """Rows in it."""
        return sum(piece.samples for piece in self.pieces)

    def halves(self) -> tuple[Island, Island]:
        """Two islands, to find the record that the database refuses; there are two pieces or more."""
        middle = len(self.pieces) // 2
        return self._replace(pieces=self.pieces[:middle]), self._replace(pieces=self.pieces[middle:])


class Refusal(NamedTuple):
    """A record that is not stored, and why."""

    record: Record
    reason: str


class Batch:
    """What was read and is not written yet."""

    def __init__(self) -> None:
        self.frames = 0
        self.samples = 0
        self.size_bytes = 0
        """Of the rows; what else is kept of a record is no larger."""
        self.late_samples = 0
        self.oldest_received_ms: int | None = None
        """When the gateway received the first live frame in it."""
        self.partitions: set[int] = set()
        self.refused: list[Refusal] = []
        self.refused_samples: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self._minutes: dict[int, list[Piece]] = {}
        self._expired: list[Piece] = []

    def add(self, minute: int, piece: Piece) -> None:
        """Rows of one minute for the tiers."""
        self._note(piece)
        pieces = self._minutes.get(minute)
        if pieces is None:
            self._minutes[minute] = [piece]
        else:
            pieces.append(piece)

    def add_expired(self, piece: Piece) -> None:
        """Rows too old for the tiers."""
        self._note(piece)
        self._expired.append(piece)

    def _note(self, piece: Piece) -> None:
        self.samples += piece.samples
        self.size_bytes += len(piece.rows)
        self.partitions.add(piece.record.partition)

    def expired(self) -> Island | None:
        """The rows too old for the tiers, if there are any."""
        return Island(0, 0, tuple(self._expired)) if self._expired else None

    def islands(self) -> list[Island]:
        """The others, oldest island first."""
        return [
            Island(close[0], close[-1], tuple(piece for minute in close for piece in self._minutes[minute]))
            for close in _apart(sorted(self._minutes))
        ]


def _apart(minutes: Sequence[int]) -> list[Sequence[int]]:
    """Ascending minutes, divided at their widest gaps."""
    gaps = ((later - earlier, place) for place, (earlier, later) in enumerate(pairwise(minutes), 1))
    widest = nlargest(ISLANDS_MAX - 1, (gap for gap in gaps if gap[0] > GAP_MINUTES))
    places = [0, *sorted(place for _, place in widest), len(minutes)]
    return [minutes[begin:end] for begin, end in pairwise(places) if begin < end]

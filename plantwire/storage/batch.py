"""Samples on their way to one or more transactions. Pure.

In: rows with the hour that they belong to. Out: islands: rows whose hours are adjacent.
Guarantees: rows of one island keep the order in which they were added; rows with the same key are in the same
island. Bounded by who fills it (`ingest`).
Not here: reading frames (`reading`), writing (`tables`).

An island becomes one transaction. TimescaleDB remembers per transaction only the earliest and the latest
time that it changed, and computes the tiers of all between anew: one backlog from last week among live
samples would cost a week.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

HOUR_MS: Final = 3_600_000


class Record(NamedTuple):
    """A Kafka record as the storage needs it."""

    partition: int
    offset: int
    key: bytes | None
    body: bytes
    headers: Any = None


class Piece(NamedTuple):
    """The rows of one record that belong to one hour."""

    record: Record
    rows: bytes
    samples: int


class Island(NamedTuple):
    """Pieces of adjacent hours: [first_hour, last_hour], counted from the epoch."""

    first_hour: int
    last_hour: int
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
        self.late_samples = 0
        self.oldest_received_ms: int | None = None
        """When the gateway received the first live frame in it."""
        self.partitions: set[int] = set()
        self.refused: list[Refusal] = []
        self.refused_samples: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self._hours: dict[int, list[Piece]] = {}
        self._expired: list[Piece] = []

    def add(self, hour: int, piece: Piece) -> None:
        """Rows of one hour for the tiers."""
        self.samples += piece.samples
        self.partitions.add(piece.record.partition)
        pieces = self._hours.get(hour)
        if pieces is None:
            self._hours[hour] = [piece]
        else:
            pieces.append(piece)

    def add_expired(self, piece: Piece) -> None:
        """Rows too old for the tiers."""
        self.samples += piece.samples
        self.partitions.add(piece.record.partition)
        self._expired.append(piece)

    def expired(self) -> Island | None:
        """The rows too old for the tiers, if there are any."""
        return Island(0, 0, tuple(self._expired)) if self._expired else None

    def islands(self) -> list[Island]:
        """The others, oldest island first."""
        return [
            Island(hours[0], hours[-1], tuple(piece for hour in hours for piece in self._hours[hour]))
            for hours in _runs(sorted(self._hours))
        ]


def _runs(hours: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for hour in hours:
        if runs and hour == runs[-1][-1] + 1:
            runs[-1].append(hour)
        else:
            runs.append([hour])
    return runs

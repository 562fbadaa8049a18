"""Entries to put, a clock to turn, and a guarded store with what was dropped, for the tests of the buffer."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.changes import Changes
from plantwire.gateway.buffer.entry import BufferRefusedError, DropReason, Entry, EntryKind, StoredEntry
from plantwire.gateway.buffer.guarded_store import GuardedStore

SMALL = BufferBounds(size_max_bytes=2 * 1024 * 1024, waiting_max_bytes=1024 * 1024)
EVERYTHING = 1_000_000


class Clock:
    """Wall time that stands until it is turned."""

    def __init__(self) -> None:
        self.ms = 1_790_000_000_000

    def __call__(self) -> int:
        return self.ms


def entry(
    number: int, *, kind: EntryKind = EntryKind.TELEMETRY, source: str = "http", size_bytes: int = 200
) -> Entry:
    """One whose body tells its number, and that no two share."""
    body = random.Random(number).randbytes(size_bytes)
    headers = (("reason", b"not-json"), ("source", b"mqtt:x")) if kind is EntryKind.DEAD_LETTER else ()
    device_id = "" if kind is EntryKind.DEAD_LETTER else f"press-{number % 7}"
    return Entry(kind, source, device_id, 1_790_000_000_000 + number, body, headers)


class Rig:
    """A guarded store on a folder, opened; and every drop that it told, by source and reason."""

    def __init__(
        self,
        folder: Path,
        bounds: BufferBounds = SMALL,
        clock: Clock | None = None,
        vfs: str | None = None,
    ) -> None:
        self.folder = folder
        self.drops: Counter[tuple[str, DropReason]] = Counter()
        self.store = GuardedStore(folder, bounds, clock or Clock(), vfs)
        self.store.open()
        self.note_drops()

    def note_drops(self) -> None:
        for source, reason, count in self.store.take_drops():
            self.drops[source, reason] += count

    def commit(self, changes: Changes) -> list[list[int] | BufferRefusedError]:
        outcome = self.store.commit(changes)
        self.note_drops()
        return outcome.puts

    def put(self, *entries: Entry) -> list[int]:
        """Their ids; raises where they were refused."""
        (ids,) = self.commit(Changes([entries]))
        if isinstance(ids, BufferRefusedError):
            raise ids
        return ids

    def forget(self, ids: list[int], reason: DropReason | None = None) -> None:
        outcome = self.store.commit(Changes(forgotten=[(ids, reason)]))
        self.note_drops()
        if outcome.rest is not None:
            raise outcome.rest

    def peek(self, limit: int = EVERYTHING, below_id: int | None = None) -> list[StoredEntry]:
        found = self.store.peek(limit, below_id)
        self.note_drops()
        return found

    def tidy(self) -> None:
        self.store.tidy()
        self.note_drops()

    def drain(self) -> dict[int, Entry]:
        """Everything, taken out."""
        everything: dict[int, Entry] = {}
        while found := self.peek(500):
            everything |= {stored.entry_id: stored.entry for stored in found}
            self.forget([stored.entry_id for stored in found])
        return everything

    def dropped(self, reason: DropReason) -> int:
        return sum(count for (_, why), count in self.drops.items() if why is reason)

    def close(self) -> None:
        self.store.close()
        self.note_drops()

    def abandon(self) -> None:
        """As if the process had been killed: nothing is written any more."""
        store = self.store._store
        assert store is not None
        store.abandon()
        self.store._folder.release()


def database(folder: Path) -> Path:
    """The one that counts now."""
    (found,) = folder.glob("buffer-*.db")
    return found

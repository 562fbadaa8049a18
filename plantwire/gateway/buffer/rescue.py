"""Makes a sound database out of a damaged one.

In: the damaged one, what was known of it. Out: the next generation with every row that can still be read.
Guarantees: the damaged files are kept under another name, as they were; what is known to have been there and
cannot be read is counted CORRUPT; interrupted at any point, the next start does it again from the beginning.
Not here: noticing the damage (`guarded_store`).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any, Final

import apsw
import structlog

from plantwire.gateway.buffer import rows, small_values
from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.changes import Changes
from plantwire.gateway.buffer.database import create_database
from plantwire.gateway.buffer.folder import BufferFolder
from plantwire.gateway.buffer.store import Store
from plantwire.gateway.buffer.totals import Drop, Totals, decode_totals, drops_between
from plantwire.gateway.buffer.untouched import opened_untouched, readable_rows

log = structlog.get_logger(__name__)

_BATCH_ROWS: Final = 200
_INT64_MAX: Final = 2**63 - 1


def create_store(
    folder: BufferFolder, generation: int, bounds: BufferBounds, now_ms: Callable[[], int], vfs: str | None
) -> Store:
    """Make an empty database and open it."""
    create_database(folder.unfinished(generation), vfs)
    return Store.open(folder.finish(generation), bounds, now_ms, vfs)


def settled(recorded: Totals | None, beside: Totals | None, store: Store) -> Totals:
    """What was there, by the totals in the database and by those beside it, which may be later or earlier.

    `store`: with what is there.
    """
    if recorded is None:
        return beside.copy() if beside is not None else Totals()
    totals = recorded.copy()
    if beside is not None and beside.transaction > recorded.transaction:
        totals.add_lost(beside, store.held_from(recorded.next_id))
    return totals


class Rescue:
    """One rescue. `run` it."""

    def __init__(
        self, folder: BufferFolder, bounds: BufferBounds, now_ms: Callable[[], int], vfs: str | None
    ) -> None:
        self._folder = folder
        self._bounds = bounds
        self._now_ms = now_ms
        self._vfs = vfs

    def run(self, known: Totals | None, saved: dict[str, bytes] | None) -> tuple[Store, list[Drop]]:
        """Replace the latest generation. `known` and `saved`: from memory; None at a start.

        Raises SQLite's or the system's error where a new database cannot be made; all is then as before.
        """
        generation = self._folder.generations()[-1]
        damaged, unfinished = self._folder.database(generation), self._folder.unfinished(generation + 1)
        self._folder.clear_unfinished()
        # Room to finish, should the disk not hold two copies.
        self._folder.hold_reserve(self._bounds.reserve_bytes)
        create_database(unfinished, self._vfs)
        store = Store.open(unfinished, self._bounds, self._now_ms, self._vfs)
        try:
            # A log that is cut off shows an earlier state, in which entries that were forgotten are back.
            beside = known or self._folder.read_counts()
            recorded = self._recorded(generation)
            told = recorded or beside or Totals()
            self._copy(generation, store, max(told.next_id, beside.next_id if beside else 1))
            totals = settled(recorded, beside, store)
            if saved is None:
                saved = self._saved(generation)
            store.apply(Changes(saved=dict(saved)))
            store.replace_totals(totals)
            store.reconcile()
            drops = drops_between(told, store.totals)
            store.checkpoint(free=True)
            store.close()
        except BaseException:
            store.abandon()
            raise
        complete = self._folder.finish(generation + 1)
        kept = self._folder.set_aside(damaged)
        log.error(
            "edge-buffer-damaged", kept=[str(one) for one in kept], lost=sum(count for *_, count in drops)
        )
        return Store.open(complete, self._bounds, self._now_ms, self._vfs), drops

    def _recorded(self, generation: int) -> Totals | None:
        try:
            with opened_untouched(self._folder.database(generation)) as connection:
                (written,) = connection.execute("SELECT CAST(value AS BLOB) FROM totals")
                return decode_totals(*written)
        except (apsw.Error, ValueError, TypeError, UnicodeDecodeError):
            return None

    def _saved(self, generation: int) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with (
            contextlib.suppress(apsw.Error, UnicodeDecodeError),
            opened_untouched(self._folder.database(generation)) as connection,
        ):
            for key, value in small_values.read_all(connection):
                found[key] = value
        return found

    def _copy(self, generation: int, store: Store, next_id: int) -> None:
        highest_id = next_id - 1 if next_id > 1 else _INT64_MAX
        try:
            with opened_untouched(self._folder.database(generation)) as connection:
                for table in rows.TABLES:
                    readable = readable_rows(connection, table, highest_id)
                    while batch := list(itertools.islice(readable, _BATCH_ROWS)):
                        self._take_over(store, table, batch)
        except apsw.FullError:
            # With two copies the disk is full: what is in the new one is worth more than none at all.
            log.error("edge-buffer-rescue-incomplete", reason="the disk is full")
            self._folder.give_reserve()
            store.checkpoint(free=True)
        except apsw.Error as error:
            log.error("edge-buffer-unreadable", reason=str(error))

    def _take_over(self, store: Store, table: str, batch: list[tuple[Any, ...]]) -> None:
        store.take_over(table, batch)
        if store.uncopied_bytes() >= self._bounds.checkpoint_bytes:
            store.checkpoint()

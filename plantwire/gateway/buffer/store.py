"""The edge buffer's database, one transaction at a time.

In: what to put, forget and keep. Out: ids, the totals, the first entries to send.
Guarantees: `apply` happens as a whole or not at all, and is durable when it returns; totals and entries
change together; the file's bound holds after every transaction; alarms are never evicted.
Not here: threads and promises (`edge_buffer`), full disks and damage (`guarded_store`). Errors are SQLite's.
"""

from __future__ import annotations

import array
import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from plantwire.gateway.buffer import census, folder, rows, small_values
from plantwire.gateway.buffer.bounds import PAGE_BYTES, BufferBounds
from plantwire.gateway.buffer.changes import Changes, NoRoomError, Receipt
from plantwire.gateway.buffer.database import DamagedError, close_as_it_is, open_database
from plantwire.gateway.buffer.entry import DropReason, Entry, StoredEntry
from plantwire.gateway.buffer.totals import Drop, Totals, decode_totals, drops_between

PEEK_MAX_BYTES: Final = 16 * 1024 * 1024
"""A peek answers with less than it was asked for rather than with more than this (but at least one)."""
_EVICTION_MAX: Final = 512
_INT64_MAX: Final = 2**63 - 1
_FRAME_BYTES: Final = PAGE_BYTES + 24


class Store:
    """An open database. `open` it; everything in the one thread that opened it."""

    def __init__(
        self, connection: apsw.Connection, path: Path, bounds: BufferBounds, now_ms: Callable[[], int]
    ):
        self.path = path
        self.totals = Totals()
        self.saved: dict[str, bytes] = {}
        self.oldest_put_ms: int | None = None
        self._oldest_record_ms: int | None = None
        self._saved_bytes = 0
        self._log = path.with_name(path.name + "-wal")
        self._connection = connection
        self._bounds = bounds
        self._now_ms = now_ms
        self._log_pages = self.log_bytes() // _FRAME_BYTES  # at most; a checkpoint or commit tells
        self._in_doubt = False
        self._may_grow = True
        connection.set_wal_hook(self._note_log)

    @classmethod
    def open(cls, path: Path, bounds: BufferBounds, now_ms: Callable[[], int], vfs: str | None) -> Store:
        """Open and check; as `open_database`, and `DamagedError` where the totals cannot be read.

        The totals are as written with the last transaction: `reconcile` them.
        """
        connection = open_database(path, vfs, bounds.file_pages_max)
        store = cls(connection, path, bounds, now_ms)
        try:
            # Beyond this length the log's space is given back when it is begun anew.
            store._rows(f"PRAGMA journal_size_limit = {bounds.checkpoint_bytes}")
            store._load()
        except BaseException:
            store.abandon()
            raise
        return store

    def apply(self, changes: Changes, *, grow: bool = True) -> Receipt:
        """Commit; raises `NoRoomError`, or SQLite's error, with nothing done. The file may `grow`, or not."""
        if grow != self._may_grow:
            self._may_grow = grow
            pages_max = self._bounds.file_pages_max if grow else self._pages("page_count")
            self._rows(f"PRAGMA max_page_count = {pages_max}")
        draft = self.totals.copy()
        saved_bytes = self._saved_bytes + small_values.size_change_bytes(self.saved, changes.saved)
        if saved_bytes > max(self._saved_bytes, self._bounds.saved_max_bytes):
            raise NoRoomError("the values kept beside the entries are above their bound")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            gone = self._forget(draft, changes.forgotten)
            small_values.write_changes(self._connection, changes.saved)
            first_new_id = draft.next_id
            ids = self._put(draft, changes.puts)
            self._evict_aged(draft)
            if changes.puts or changes.saved:
                self._evict_beyond_bound(draft, first_new_id)
            self._commit(draft)
        except BaseException:
            self._roll_back()
            raise
        # From here on it is durable: nothing may fail any more.
        before, self.totals = self.totals, draft
        self._note_saved(changes.saved)
        self._saved_bytes = saved_bytes
        drops = drops_between(before, draft)
        with contextlib.suppress(apsw.Error, DamagedError):
            self._find_oldest()
            if self._in_doubt:
                drops += self.reconcile()
        return Receipt(ids, drops, gone)

    def peek(self, limit: int, below_id: int | None) -> tuple[list[StoredEntry], list[Drop]]:
        """The first entries to send; and what was dropped because it could not be read back."""
        found: list[StoredEntry] = []
        damaged: list[tuple[str, int]] = []
        left_bytes = PEEK_MAX_BYTES
        cut_short = False
        for table in rows.TABLES:
            query = f"SELECT {rows.COLUMNS} FROM {table} WHERE id < ? ORDER BY id LIMIT ?"  # noqa: S608
            with contextlib.closing(
                self._connection.execute(query, (below_id or _INT64_MAX, limit - len(found)))
            ) as cursor:
                for row in cursor:
                    stored = rows.from_row(table, row)
                    if stored is None:
                        damaged.append((table, row[0]))
                        continue
                    left_bytes -= rows.size_bytes(stored.entry)
                    if left_bytes < 0 and found:
                        cut_short = True
                        break
                    found.append(stored)
            if cut_short or len(found) >= limit:
                break
        drops: list[Drop] = []
        if damaged:
            try:
                drops = self.reconcile(damaged)
            except (apsw.FullError, apsw.IOError):
                # They stay, and meet the next peek.
                if not found:
                    raise
            else:
                if not found:
                    found, more = self.peek(limit, below_id)
                    drops += more
        elif not cut_short and below_id is None and len(found) < min(limit, self.totals.entries()):
            raise DamagedError(f"{self.totals.entries()} entries were counted, {len(found)} are found")
        return found, drops

    def reconcile(self, damaged: Sequence[tuple[str, int]] = ()) -> list[Drop]:
        """Count what is there, make the totals agree with it, and answer what that dropped.

        `damaged`: rows (table, id) to delete before. Whose they were is what the count says, not they.
        """
        draft = self.totals.copy()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            strangers = census.damaged_strangers(self._connection, self.totals.by_source.keys())
            for table, entry_id in (*damaged, *strangers):
                self._connection.execute(f"DELETE FROM {table} WHERE id = ?", (entry_id,))  # noqa: S608
                if self._connection.changes() != 1:
                    raise DamagedError(f"a row of {table} is seen and not found")
            draft.reconcile(*census.count_held(self._connection))
            if draft == self.totals:
                self._roll_back()
            else:
                self._commit(draft)
        except BaseException:
            self._roll_back()
            raise
        self._in_doubt = False
        return self._took(draft)

    def replace_totals(self, totals: Totals) -> None:
        """Commit other totals, unless they are the same."""
        if totals == self.totals:
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._commit(totals)
        except BaseException:
            self._roll_back()
            raise
        self._took(totals)

    def held_from(self, first_id: int) -> dict[str, int]:
        """See `census.count_from`."""
        return census.count_from(self._connection, first_id)

    def evict_aged(self) -> list[Drop]:
        """A transaction for those above the age alone; as many as there are."""
        drops: list[Drop] = []
        while self.oldest_aged():
            more = self.apply(Changes()).drops
            if not more:
                break
            drops += more
        return drops

    def oldest_aged(self) -> bool:
        """Whether the oldest that may be evicted is above the age."""
        return self._oldest_record_ms is not None and self._oldest_record_ms < self._age_limit_ms()

    def take_over(self, table: str, entries: Sequence[tuple[Any, ...]]) -> None:
        """Commit rows of `COLUMNS` as they are, unless their id is here; the totals are for `reconcile`."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            insert = rows.INSERT.format(table=table).replace("INSERT", "INSERT OR IGNORE")
            self._connection.executemany(insert, entries)
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def uncopied_bytes(self) -> int:
        """Of the write-ahead log: what no checkpoint has copied into the database."""
        return self._log_pages * _FRAME_BYTES

    def checkpoint(self, *, free: bool = False) -> None:
        """Copy the log into the database, so that the next commit begins it anew; `free` its space now."""
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if free else apsw.SQLITE_CHECKPOINT_PASSIVE
        pages, copied = self._connection.wal_checkpoint(mode=mode)
        if copied >= pages:
            self._log_pages = 0

    def lengthen_log(self) -> None:
        """Write the log's file to its full length, once: a commit then overwrites, and its sync need not wait
        for the file system's journal to note a new length (0.2 ms against 4 ms on ext4). Raises `OSError`.
        """
        if self.log_bytes() < self._bounds.checkpoint_bytes:
            # Behind the last frame; zeros are no frame, so a recovery stops there.
            folder.write_zeros(self._log, self._bounds.checkpoint_bytes)

    def shrink(self) -> None:
        """Give back the file's space while it holds no entries."""
        if self.totals.entries() == 0 and self._pages("page_count") * PAGE_BYTES > self._bounds.wal_max_bytes:
            self._connection.execute("VACUUM")
            self.checkpoint(free=True)

    def log_bytes(self) -> int:
        """The write-ahead log on the disk."""
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        """Close with a checkpoint; the log goes with it where the disk lets it."""
        self._connection.close()

    def abandon(self) -> None:
        """Close and leave the files as they are."""
        close_as_it_is(self._connection)

    def _load(self) -> None:
        written = self._rows("SELECT CAST(value AS BLOB) FROM totals")
        try:
            self.totals = decode_totals(written[0][0]) if written else Totals()
        except (ValueError, TypeError) as error:
            raise DamagedError(str(error)) from error
        self.saved = dict(small_values.read_all(self._connection))
        self._saved_bytes = sum(len(key) + len(value) for key, value in self.saved.items())
        self._find_oldest()

    def _forget(
        self, draft: Totals, forgotten: Iterable[tuple[Sequence[int], DropReason | None]]
    ) -> list[list[int]]:
        """Of each, the ids that were no longer there."""
        gone: list[list[int]] = []
        for ids, reason in forgotten:
            there: set[int] = set()
            gone.append([])
            if not ids:
                continue
            chosen = (apsw.carray(array.array("q", ids)),)
            for table in rows.TABLES:
                by_source = self._rows(
                    f"SELECT {rows.SOURCE}, count(*), sum({rows.SIZE})"  # noqa: S608
                    f" FROM {table} WHERE id IN carray(?) GROUP BY 1",
                    chosen,
                )
                if not by_source:
                    continue
                there.update(
                    entry_id
                    for (entry_id,) in self._rows(
                        f"DELETE FROM {table} WHERE id IN carray(?) RETURNING id",  # noqa: S608
                        chosen,
                    )
                )
                for source, count, size_bytes in by_source:
                    self._count_out(draft, source, count, size_bytes, reason)
            gone[-1] += (entry_id for entry_id in ids if entry_id not in there)
        return gone

    def _count_out(
        self, draft: Totals, source: bytes, count: int, size_bytes: int, reason: DropReason | None
    ) -> None:
        one = draft.by_source.get(source.decode("ascii", "replace"))
        if one is None or one.entries() < count:
            # A damaged row. Whose it was shows when all are counted.
            self._in_doubt = True
            return
        if reason is None:
            one.acknowledged += count
        else:
            one.count_drop(reason, count)
        one.size_bytes = max(0, one.size_bytes - size_bytes)

    def _note_saved(self, changed: Mapping[str, bytes | None]) -> None:
        for key, value in changed.items():
            if value is None:
                self.saved.pop(key, None)
            else:
                self.saved[key] = value

    def _put(self, draft: Totals, puts: Sequence[Sequence[Entry]]) -> list[list[int]]:
        put_ms = self._now_ms()
        ids: list[list[int]] = []
        by_table: dict[str, list[rows.Bindings]] = {table: [] for table in rows.TABLES}
        for entries in puts:
            first_id = draft.next_id
            for entry in entries:
                row = rows.to_row(draft.next_id, entry, put_ms)
                by_table[rows.table_of(entry.kind)].append(row)
                one = draft.of(entry.source)
                one.put += 1
                one.size_bytes += len(row[7]) + len(row[8])
                draft.next_id += 1
            ids.append(list(range(first_id, draft.next_id)))
        for table, bindings in by_table.items():
            if bindings:
                self._connection.executemany(rows.INSERT.format(table=table), bindings)
        return ids

    def _evict_aged(self, draft: Totals) -> None:
        if self.oldest_aged():
            self._evict(draft, DropReason.EVICTED_AGE, _INT64_MAX, self._age_limit_ms(), _EVICTION_MAX)

    def _evict_beyond_bound(self, draft: Totals, below_id: int) -> None:
        while (over := self._pages_used() - self._bounds.pages_max) > 0:
            per_page = draft.entries() / max(1, self._pages_used())
            count = min(_EVICTION_MAX, 1 + int(over * per_page))
            if not self._evict(draft, DropReason.EVICTED_FULL, below_id, _INT64_MAX, count):
                raise NoRoomError("the edge buffer is full of what may not be evicted")

    def _evict(self, draft: Totals, reason: DropReason, below_id: int, before_ms: int, count: int) -> int:
        first = self._rows(
            f"SELECT id, {rows.SOURCE}, {rows.SIZE}, {rows.PUT_MS}"  # noqa: S608
            " FROM records WHERE id < ? ORDER BY id LIMIT ?",
            (below_id, count),
        )
        gone = list(itertools.takewhile(lambda row: row[3] < before_ms, first))
        if gone:
            self._connection.execute("DELETE FROM records WHERE id <= ?", (gone[-1][0],))
            for _, source, size_bytes, _ in gone:
                self._count_out(draft, source, 1, size_bytes, reason)
        return len(gone)

    def _took(self, totals: Totals) -> list[Drop]:
        before, self.totals = self.totals, totals
        self._find_oldest()
        return drops_between(before, totals)

    def _commit(self, draft: Totals) -> None:
        draft.transaction = max(draft.transaction, self.totals.transaction) + 1
        self._connection.execute("INSERT OR REPLACE INTO totals VALUES (1, ?)", (draft.encode(),))
        try:
            self._connection.execute("COMMIT")
        except apsw.Error:
            if self._connection.in_transaction or not self._is_committed(draft):
                raise

    def _is_committed(self, draft: Totals) -> bool:
        # An error that came when all was done, such as from shortening the log.
        written = self._rows("SELECT CAST(value AS BLOB) FROM totals")
        return bool(written) and written[0][0] == draft.encode()

    def _roll_back(self) -> None:
        # SQLite may have done so by itself.
        if self._connection.in_transaction:
            with contextlib.suppress(apsw.Error):
                self._connection.execute("ROLLBACK")

    def _find_oldest(self) -> None:
        heads = census.oldest_put_ms(self._connection)
        self._oldest_record_ms = heads[1]
        self.oldest_put_ms = min((head for head in heads if head is not None), default=None)

    def _age_limit_ms(self) -> int:
        return self._now_ms() - int(self._bounds.age_max_s * 1000)

    def _pages(self, pragma: str) -> int:
        return int(self._rows(f"PRAGMA {pragma}")[0][0])

    def _pages_used(self) -> int:
        return self._pages("page_count") - self._pages("freelist_count")

    def _rows(self, query: str, bindings: tuple[apsw.SQLiteValue, ...] = ()) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(query, bindings))

    def _note_log(self, _connection: apsw.Connection, _schema: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

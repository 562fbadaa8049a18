"""Reads a buffer's database without writing a byte to it or beside it.

In: the path of a database that no process has open. Out: a connection, and every row that can still be read.
Guarantees: neither the database nor its log is changed, created or deleted; no lock is taken.
Not here: what is done with the rows (`rescue`, `read_only`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw

from plantwire.gateway.buffer import rows
from plantwire.gateway.buffer.database import DamagedError, close_as_it_is

PROBES_MAX: Final = 50_000
"""Attempts to get past damage in one table; then what was not found counts as lost."""


@contextlib.contextmanager
def opened_untouched(path: Path) -> Iterator[apsw.Connection]:
    """Open for reading. SQLite's errors come from the first statement."""
    log = path.with_name(path.name + "-wal")
    # With a log, it is read too: unix-none locks nothing, so that the exclusive mode, which keeps the log's
    # index in memory, works with a file that is opened for reading only. Without, nothing may create one.
    how = "?vfs=unix-none" if log.is_file() else "?immutable=1"
    connection = apsw.Connection(
        path.absolute().as_uri() + how, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    )
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        yield connection
    finally:
        close_as_it_is(connection)


def readable_rows(connection: apsw.Connection, table: str, highest_id: int) -> Iterator[tuple[Any, ...]]:
    """Rows whose checksum holds, as `rows.from_row` takes them, around the damage; one may come twice.

    Reads upwards until it fails, downwards until it fails, and halves what is left between.
    """
    ranges = [(0, highest_id)]
    probes = 0
    while ranges and probes < PROBES_MAX:
        low, high = ranges.pop()
        for descending in (False, True):
            if low > high:
                break
            probes += 1
            try:
                for row in _in_order(connection, table, low, high, descending):
                    if descending:
                        high = row[0] - 1
                    else:
                        low = row[0] + 1
                    if len(row) == len(rows.COLUMN_NAMES) and rows.from_row(table, row) is not None:
                        yield row
            except (apsw.Error, DamagedError, UnicodeDecodeError):
                continue
            low = high + 1  # read to its end: there is no more
        if low < high:
            middle = (low + high) // 2
            ranges += [(middle + 1, high), (low, middle)]


def _in_order(
    connection: apsw.Connection, table: str, low: int, high: int, descending: bool
) -> Iterator[tuple[Any, ...]]:
    direction = "DESC" if descending else "ASC"
    # By position: the names are in the file too, and may be damaged.
    query = f"SELECT rowid, * FROM {table} WHERE rowid BETWEEN ? AND ? ORDER BY rowid {direction}"  # noqa: S608
    before: int | None = None
    with contextlib.closing(connection.execute(query, (low, high))) as cursor:
        for row in cursor:
            if not low <= row[0] <= high or (before is not None and (row[0] < before) != descending):
                raise DamagedError(f"ids out of order in {table}")
            before = row[0]
            yield (row[0], *row[2:])

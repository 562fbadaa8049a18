"""Opens the edge buffer's SQLite database so that a commit survives a loss of power.

In: a path. Out: a connection with its PRAGMAs set and read back, or the error that says what is wrong.
Guarantees: nothing is written to a file that is damaged or of a later format.
Not here: rows (`rows`), transactions (`store`), what to do with a damaged file (`rescue`).
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

import apsw

from plantwire.gateway.buffer.bounds import PAGE_BYTES

APPLICATION_ID: Final = 0x506C5742
"""In the file's header: an edge buffer of Plantwire."""
FORMAT: Final = 1
"""`user_version` of the files that this code writes."""

SQLITE_MIN: Final = (3, 51, 3)
"""Before it two connections could corrupt a WAL database when one reset the log under the other's checkpoint
(3.7.0 to 3.51.2); the WAL defects before 3.35 are further below. One connection alone, as here, does not meet
the race, but nothing is gained by trusting that nobody opens the file with a shell."""

PRAGMAS: dict[str, tuple[str, object]] = {
    # The order matters: exclusive before the first access keeps the log's index in memory, with no -shm file.
    "locking_mode": ("EXCLUSIVE", "exclusive"),
    "page_size": (str(PAGE_BYTES), PAGE_BYTES),
    "journal_mode": ("WAL", "wal"),
    # FULL syncs the log at every commit. NORMAL syncs it at checkpoints only: after a loss of power the
    # database is sound, and the last commits, though acknowledged, are missing.
    "synchronous": ("FULL", 2),
    # Checkpoints are the store's own act, after the commit has been acknowledged.
    "wal_autocheckpoint": ("0", 0),
    "temp_store": ("MEMORY", 2),
    "trusted_schema": ("OFF", 0),
    "cell_size_check": ("ON", 1),
    "mmap_size": ("0", 0),
    "auto_vacuum": ("NONE", 0),
    "secure_delete": ("OFF", 0),
    "cache_size": ("-8192", -8192),
}

_ENTRIES: Final = """CREATE TABLE {name} (
    id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    source BLOB NOT NULL,
    device_id BLOB NOT NULL,
    event_time_ms INTEGER NOT NULL,
    put_ms INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    headers BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT"""
_SCHEMA: Final = (
    # The same in every format, so that a later one is told from a damaged header.
    "CREATE TABLE format (version INTEGER NOT NULL) STRICT",
    "CREATE TABLE totals (only_row INTEGER PRIMARY KEY, value BLOB NOT NULL) STRICT",
    "CREATE TABLE saved (key BLOB PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL)"
    " STRICT, WITHOUT ROWID",
    # Apart, so that neither the first to send nor the first to evict is looked for among the others. Texts
    # are blobs: damaged ones must come back as they are, to fail their checksum.
    _ENTRIES.format(name="alarms"),
    _ENTRIES.format(name="records"),
)
MIGRATIONS: dict[int, tuple[str, ...]] = {}
"""By the format that they start from: the statements that lead to the next."""

DAMAGE = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.FormatError,
    apsw.SchemaChangeError,
    apsw.ConstraintError,
    apsw.MismatchError,
    UnicodeDecodeError,
)
_DAMAGE_IN_IO: Final = frozenset(
    {apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_DATA, apsw.SQLITE_IOERR_CORRUPTFS}
)

_FAILING: Final = (apsw.FullError, apsw.IOError, apsw.ReadOnlyError, apsw.CantOpenError)
_FAILING_SYSTEM: Final = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class DamagedError(Exception):
    """The file is not, or no longer, a sound database of ours."""


class LaterFormatError(Exception):
    """The file was written by later code; it is left as it is."""


class UnsafeSqliteError(Exception):
    """This SQLite has known defects in its write-ahead log."""


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file is damaged, and not that the disk is full or failing."""
    if isinstance(error, apsw.IOError):
        return getattr(error, "extendedresult", 0) in _DAMAGE_IN_IO
    return isinstance(error, (*DAMAGE, DamagedError))


def is_disk_failing(error: Exception) -> bool:
    """Whether an error is the disk's (full, failing, read-only), and not that of a wrong path or right."""
    if isinstance(error, OSError):
        return error.errno in _FAILING_SYSTEM
    return isinstance(error, _FAILING)


def refuse_unsafe_sqlite(version: str) -> None:
    """Raise `UnsafeSqliteError` for a version such as `3.51.2`."""
    if tuple(int(part) for part in version.split(".")) < SQLITE_MIN:
        wanted = ".".join(map(str, SQLITE_MIN))
        raise UnsafeSqliteError(
            f"SQLite {version} can corrupt a database in WAL mode; the edge buffer needs {wanted} or later"
        )


def create_database(path: Path, vfs: str | None) -> None:
    """Make an empty one under a name that has no meaning yet: complete, synced and closed."""
    # Not by SQLite, which would leave its mode to the umask. The log takes over the mode.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    connection = connect(path, vfs)
    try:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO format VALUES (?)", (FORMAT,))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
        # Into the file itself, and the log away: a rename carries the file alone.
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        connection.close()


def open_database(path: Path, vfs: str | None, file_pages_max: int) -> apsw.Connection:
    """Open and check one that exists.

    Raises `DamagedError`, `LaterFormatError`, and SQLite's own errors where the disk is at fault.
    """
    log = path.with_name(path.name + "-wal")
    if not path.is_file() or (log.exists() and not log.is_file()):
        raise DamagedError(f"{path.name} or its log is not a file")
    if path.stat().st_size < PAGE_BYTES:
        raise DamagedError(f"{path.name} has {path.stat().st_size} bytes")
    try:
        connection = connect(path, vfs)
    except apsw.SQLError as error:
        raise DamagedError(f"{path.name}: {error}") from error
    try:
        _check(connection, path)
        _migrate(connection)
        if _columns(connection) != _columns_wanted():
            raise DamagedError(f"{path.name} has other tables or columns")
        connection.execute(f"PRAGMA max_page_count = {file_pages_max}")
    except apsw.SQLError as error:
        # "no such table": the statements are ours, so it is the file.
        close_as_it_is(connection)
        raise DamagedError(str(error)) from error
    except BaseException:
        close_as_it_is(connection)
        raise
    return connection


def connect(path: Path, vfs: str | None) -> apsw.Connection:
    """A connection with every PRAGMA set and read back."""
    # psow=0: a sector that is being written may be lost whole when power fails; SQLite then never writes
    # again into the sector that holds the end of an acknowledged commit. It costs one more page per commit.
    connection = apsw.Connection(
        path.absolute().as_uri() + "?psow=0",
        flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI,
        vfs=vfs,
    )
    try:
        for name, (value, expected) in PRAGMAS.items():
            connection.execute(f"PRAGMA {name} = {value}").fetchall()
            found = connection.pragma(name)
            if found != expected:
                raise DamagedError(f"{path.name}: {name} is {found!r} where {expected!r} was set")
    except BaseException:
        close_as_it_is(connection)
        raise
    return connection


def close_as_it_is(connection: apsw.Connection) -> None:
    """Close without a checkpoint: the files stay as they are, for whoever looks into the damage."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close(True)


def _check(connection: apsw.Connection, path: Path) -> None:
    version = connection.pragma("user_version")
    if connection.pragma("application_id") != APPLICATION_ID:
        raise DamagedError(f"{path.name} has another application_id")
    noted = connection.execute("SELECT version FROM format").fetchall()
    if noted != [(version,)]:
        raise DamagedError(f"{path.name} has version {version} in its header and {noted} in its table")
    if version > FORMAT:
        raise LaterFormatError(
            f"{path} has format {version}, this code knows {FORMAT}: it was written by a later Plantwire"
        )
    if connection.readonly("main") and os.access(path, os.W_OK):
        raise DamagedError(f"{path.name} says of itself that it is read-only")
    # Structure only, no content: the rows have checksums of their own. Reads the whole file.
    complaints = connection.execute("PRAGMA quick_check(5)").fetchall()
    if complaints != [("ok",)]:
        raise DamagedError(f"{path.name}: {complaints[0][0]}")


def _columns(connection: apsw.Connection) -> list[tuple[object, ...]]:
    # A damaged letter in the schema is no fault in the file's structure.
    return list(
        connection.execute(
            "SELECT table_list.name, columns.name, columns.type, columns.pk"
            " FROM pragma_table_list AS table_list, pragma_table_info(table_list.name) AS columns"
            " WHERE table_list.schema = 'main' AND table_list.name NOT LIKE 'sqlite_%'"
            " ORDER BY 1, columns.cid"
        )
    )


def _columns_wanted() -> list[tuple[object, ...]]:
    with contextlib.closing(apsw.Connection(":memory:")) as connection:
        for statement in _SCHEMA:
            connection.execute(statement)
        return _columns(connection)


def _migrate(connection: apsw.Connection) -> None:
    version = connection.pragma("user_version")
    if version == FORMAT:
        return
    connection.execute("BEGIN IMMEDIATE")
    for start in range(version, FORMAT):
        for statement in MIGRATIONS[start]:
            connection.execute(statement)
    connection.execute("UPDATE format SET version = ?", (FORMAT,))
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")

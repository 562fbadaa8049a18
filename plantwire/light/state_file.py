"""What the engine remembers, in one SQLite file: states of devices, open windows, and positions in Kafka.

In: a `Progress`, all that changed since the last one. Out: the same after a restart.
Guarantees: a save is one transaction, on disk when it returns, so states and positions belong together
whenever the process or the machine stops. One process has the file at a time. A file of another Kafka cluster
is begun anew: its positions mean nothing.
Not here: when it is saved (`saving`), what a state is (`domain`).

The file is made for one machine: who wants the state to survive the machine's disk runs Flink.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import apsw
import structlog

_FORMAT: Final = 1
_SCHEMA: Final = (
    "CREATE TABLE cluster (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), id TEXT NOT NULL) STRICT",
    "CREATE TABLE positions (topic TEXT, partition INTEGER, next_offset INTEGER NOT NULL,"
    " PRIMARY KEY (topic, partition)) STRICT, WITHOUT ROWID",
    "CREATE TABLE devices (device_id TEXT PRIMARY KEY, state BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE windows (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), open BLOB NOT NULL) STRICT",
)
_PRAGMAS: Final = (
    # Exclusive before the first access: one process, and the log's index in memory.
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA trusted_schema = OFF",
)

_log = structlog.get_logger(__name__)

Positions = dict[tuple[str, int], int]
"""(topic, partition) → the offset to read next."""


class StateFileError(Exception):
    """The file cannot be used; the text says what to do."""


class Progress(NamedTuple):
    """What changed since the last save."""

    positions: Positions
    devices: Mapping[str, bytes | None]
    """None: nothing is remembered any more."""
    windows: bytes | None = None
    """None: as before."""


class StateFile:
    """`open` it, `close` it. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: apsw.Connection | None = None

    def open(self, cluster_id: str) -> None:
        """Take hold of the file, and make it where there is none; raises StateFileError."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._connection = connection = apsw.Connection(str(self._path))
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            with connection:
                self._prepare(connection, cluster_id)
        except apsw.BusyError:
            self.close()
            raise StateFileError(f"{self._path} is in use: another engine runs in this home") from None
        except apsw.Error as error:
            self.close()
            raise StateFileError(
                f"{self._path} cannot be used: {error}. Moved away, the engine begins without it: alarms "
                "that it held are cleared and raised anew."
            ) from error

    def positions(self) -> Positions:
        """Where to go on in each partition that was read."""
        rows = self._open.execute("SELECT topic, partition, next_offset FROM positions")
        return {(topic, partition): offset for topic, partition, offset in rows}

    def devices(self) -> dict[str, bytes]:
        """The state of every device that has one."""
        return dict(iter(self._open.execute("SELECT device_id, state FROM devices")))

    def windows(self) -> bytes | None:
        """The windows that were open."""
        row = self._open.execute("SELECT open FROM windows").fetchone()
        return None if row is None else row[0]

    def save(self, progress: Progress) -> None:
        """All of it, or, where it raises apsw.Error, nothing."""
        connection = self._open
        with connection:
            connection.executemany(
                "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)",
                [(*place, offset) for place, offset in progress.positions.items()],
            )
            connection.executemany(
                "DELETE FROM devices WHERE device_id = ?",
                [(device_id,) for device_id, state in progress.devices.items() if state is None],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO devices VALUES (?, ?)",
                [(device_id, state) for device_id, state in progress.devices.items() if state is not None],
            )
            if progress.windows is not None:
                connection.execute("INSERT OR REPLACE INTO windows VALUES (1, ?)", (progress.windows,))

    def close(self) -> None:
        """Let the file go."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(apsw.Error):
                connection.close()

    @property
    def _open(self) -> apsw.Connection:
        if self._connection is None:
            raise StateFileError(f"{self._path} is not open")
        return self._connection

    def _prepare(self, connection: apsw.Connection, cluster_id: str) -> None:
        version = connection.pragma("user_version")
        if version == 0:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
        elif version != _FORMAT:
            raise StateFileError(f"{self._path} was written by a later version")
        row = connection.execute("SELECT id FROM cluster").fetchone()
        if row is not None and row[0] != cluster_id:
            _log.warning("state-of-another-kafka-forgotten", file=str(self._path))
            for table in ("positions", "devices", "windows", "cluster"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
        connection.execute("INSERT OR REPLACE INTO cluster VALUES (1, ?)", (cluster_id,))

"""Batches → the database: raw samples and the 1 s tier, in one transaction per island.

In: islands of rows. Out: rows in `device_telemetry` and `telemetry_1s`, or in `telemetry_expired`.
Guarantees: after `write` returns, the rows are durable; it may be repeated after any failure, also one that
leaves open whether the transaction was committed. Of two samples with the same key the one written first
stays.

Nearly always every sample is new. So an island is first copied straight into the table, which takes a third
of the time that asking for each row takes. Where the table has one of its samples already, it refuses: the
island is written again row by row, and so are the next ones, until one has nothing old in it.
Not here: when to try again (`ingest`), the tiers above (`rollups`, TimescaleDB).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from plantwire.storage import statements
from plantwire.storage.batch import Island, Piece
from plantwire.storage.migration import Connection, SchemaError, Variant, migrate, require_current
from plantwire.storage.policies import apply_policies
from plantwire.storage.reach import Bounds, read_bounds
from plantwire.storage.rows import HEADER, TRAILER
from plantwire.storage.settings import StorageSettings

CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_S: Final = 60
BOUNDS_EVERY_S: Final = 60.0
"""How often the database is asked for what it knows of retention; `reach.MARGIN_MS` is far longer."""
COPY_CHUNK_BYTES: Final = 1024 * 1024
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# About the rows themselves; every other error may be gone next time.
REFUSED_FOR_GOOD: Final = (psycopg.DataError, psycopg.errors.ProgramLimitExceeded)


class DatabaseAwayError(Exception):
    """It cannot be written now; the text says why, without secrets."""


class TooSlowError(DatabaseAwayError):
    """It gave a transaction up for its length; a smaller one may be through in time."""


class RefusedError(Exception):
    """The database will never take these rows."""


class Stored(NamedTuple):
    """What became of an island: samples stored, seconds made, seconds computed anew."""

    samples: int
    seconds_new: int
    seconds_reopened: int


class TelemetryTables:
    """One connection, made when it is needed. `close` it. One thread."""

    def __init__(
        self,
        settings: StorageSettings,
        connect: Callable[[StorageSettings, str], Connection] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._bounds: Bounds = {}
        self._bounds_due_s = 0.0
        self._connect = connect or open_connection
        self._connection: Connection | None = None
        self._store = self._store_checked = ""
        self._direct = True

    def ready(self) -> None:
        """Connect where there is no connection, and ask for an answer; raises DatabaseAwayError."""
        try:
            self._connected().execute("SELECT 1")
        except (psycopg.Error, SchemaError) as error:
            self.close()
            raise DatabaseAwayError(describe(error)) from error

    def bounds(self) -> Bounds:
        """What the database knows of retention, at most a minute old; raises DatabaseAwayError."""
        try:
            connection = self._connected()
            if self._clock() >= self._bounds_due_s:
                self._bounds = read_bounds(connection)
                self._bounds_due_s = self._clock() + BOUNDS_EVERY_S
        except (psycopg.Error, SchemaError) as error:
            self.close()
            raise DatabaseAwayError(describe(error)) from error
        return self._bounds

    def write(self, island: Island, partitions: Sequence[int]) -> Stored:
        """One transaction with its raw samples and seconds; raises DatabaseAwayError, RefusedError."""
        in_order = sorted(partitions)
        if self._direct:
            try:
                return self._in_transaction(
                    lambda connection: self._write_direct(connection, island, in_order)
                )
            except psycopg.errors.UniqueViolation:
                pass  # the transaction is undone
        stored = self._in_transaction(lambda connection: self._write_checked(connection, island, in_order))
        self._direct = stored.samples == island.samples
        return stored

    def write_expired(self, island: Island) -> int:
        """Rows too old for the tiers; how many were new. Raises DatabaseAwayError, RefusedError."""
        return self._in_transaction(lambda connection: _write_expired(connection, island)).samples

    def close(self) -> None:
        """Give the connection up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            connection = self._connect(self._settings, "plantwire-storage")
            try:
                variant = prepare_database(connection, self._settings)
                if variant is Variant.TIMESCALEDB:
                    # A late sample may unpack as many rows of the columnstore as its segment has.
                    connection.execute("SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0")
                for statement in statements.STAGING.split(";"):
                    connection.execute(statement.encode())
            except BaseException:
                connection.close()
                raise
            self._store = statements.store(variant, checked=False)
            self._store_checked = statements.store(variant, checked=True)
            self._bounds_due_s = self._clock()
            self._connection = connection
        return self._connection

    def _in_transaction(self, work: Callable[[Connection], Stored]) -> Stored:
        try:
            connection = self._connected()
            with connection.transaction():
                return work(connection)
        except psycopg.errors.UniqueViolation:
            raise
        except REFUSED_FOR_GOOD as error:
            raise RefusedError(describe(error)) from error
        except psycopg.errors.QueryCanceled as error:
            self.close()
            raise TooSlowError(describe(error)) from error
        except (psycopg.Error, SchemaError) as error:
            self.close()
            raise DatabaseAwayError(describe(error)) from error

    def _write_direct(self, connection: Connection, island: Island, partitions: list[int]) -> Stored:
        connection.execute(statements.LOCK_PARTITIONS, (partitions,))
        # Rows of one device, one after the other, find their place in the index in the cache. Their order is
        # free: had two the same key, the table would not take them.
        pieces = sorted(island.pieces, key=_device)
        _copy(connection, statements.COPY_DIRECT, pieces)
        _copy(connection, statements.COPY, pieces)
        return _sum_up(connection, self._store, island)

    def _write_checked(self, connection: Connection, island: Island, partitions: list[int]) -> Stored:
        connection.execute(statements.LOCK_PARTITIONS, (partitions,))
        _copy(connection, statements.COPY, island.pieces)
        return _sum_up(connection, self._store_checked, island)


def open_connection(settings: StorageSettings, name: str) -> Connection:
    """A connection in autocommit mode that gives a dead server up; raises psycopg.Error."""
    connection = psycopg.connect(
        settings.database,
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT_S,
        application_name=name,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
    )
    # Compiling such short statements costs more than it saves.
    connection.execute("SET jit = off")
    connection.execute("SET TIME ZONE 'UTC'")
    connection.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
    return connection


def prepare_database(connection: Connection, settings: StorageSettings) -> Variant:
    """Bring schema and policies up to date, or only check them, as the settings say. Raises SchemaError."""
    if settings.storage_migrate:
        migrate(connection)
    variant = require_current(connection)
    if settings.storage_migrate and variant is Variant.TIMESCALEDB:
        apply_policies(connection, settings)
    return variant


def describe(error: Exception) -> str:
    """The first line of an error; libpq's messages name hosts and users, and never a password."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _sum_up(connection: Connection, store: str, island: Island) -> Stored:
    answer = connection.execute(store.encode()).fetchone()
    stored = Stored(*answer) if answer is not None else Stored(0, 0, 0)
    if stored.seconds_reopened:
        earliest = _EPOCH + timedelta(minutes=island.first_minute)
        latest = _EPOCH + timedelta(minutes=island.last_minute + 1)
        reopen = sql.SQL(statements.REOPEN).format(earliest=sql.Literal(earliest), latest=sql.Literal(latest))
        connection.execute(reopen, prepare=False)
    return stored


def _write_expired(connection: Connection, island: Island) -> Stored:
    _copy(connection, statements.COPY, island.pieces)
    earliest, latest = connection.execute(statements.EXPIRED_BETWEEN).fetchone() or (None, None)
    store = sql.SQL(statements.STORE_EXPIRED).format(
        earliest=sql.Literal(earliest), latest=sql.Literal(latest)
    )
    return Stored(connection.execute(store, prepare=False).rowcount, 0, 0)


def _copy(connection: Connection, statement: str, pieces: Sequence[Piece]) -> None:
    with connection.cursor().copy(statement) as copy:
        chunk = [HEADER]
        size = len(HEADER)
        for piece in pieces:
            chunk.append(piece.rows)
            size += len(piece.rows)
            if size >= COPY_CHUNK_BYTES:
                copy.write(b"".join(chunk))
                chunk, size = [], 0
        copy.write(b"".join([*chunk, TRAILER]))


def _device(piece: Piece) -> bytes:
    return piece.record.key or b""

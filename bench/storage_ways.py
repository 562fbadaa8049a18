"""Ways to bring samples into a table of raw samples, each as one function: what `bench.storage` compares.

In: a connection, the samples of one batch in memory. Out: rows, committed.
Guarantees: all ways write the same rows into the same table with the same key, and commit once per batch. A
row that is there already stays, but for `COPY straight in`, which it ends. The last one also writes the 1 s
tier, as the storage does.
Not here: which batches there are, and the clock (`bench.storage`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from plantwire.storage.batch import MINUTE_MS, Batch, Piece, Record
from plantwire.storage.migration import Connection
from plantwire.storage.rows import COLUMNS, HEADER, TRAILER, number_row, series_prefix, time_us
from plantwire.storage.settings import StorageSettings
from plantwire.storage.statements import COPY, COPY_DIRECT
from plantwire.storage.tables import TelemetryTables, open_connection

SERIES_TABLE: Final = """
CREATE TABLE bench_numbered (
    series integer NOT NULL, time timestamptz NOT NULL, number double precision, text text,
    quality integer NOT NULL, PRIMARY KEY (series, time)
)"""
SERIES_HYPERTABLE: Final = (
    "SELECT create_hypertable('bench_numbered', by_range('time', INTERVAL '2 hours'), "
    "create_default_indexes => false)"
)
# Five fields with their lengths: series, time, number, no text, quality.
_NUMBERED_ROW: Final = struct.Struct(">hiiiqidiii")
_COPY_NUMBERED: Final = "COPY bench_numbered FROM STDIN (FORMAT binary)"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INSERT: Final = f"INSERT INTO device_telemetry ({', '.join(COLUMNS)}) "
_ONE: Final = f"{_INSERT}VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
_UPSERT: Final = f"{_INSERT}SELECT * FROM incoming ON CONFLICT DO NOTHING"  # noqa: S608 - constants
_UNNEST: Final = ", ".join(
    f"%s::{kind}[]" for kind in ("text", "text", "timestamptz", "float8", "text", "int")
)
_ARRAYS: Final = f"{_INSERT}SELECT * FROM unnest({_UNNEST}) ON CONFLICT DO NOTHING"  # noqa: S608 - constants


class Sample(NamedTuple):
    """One number, in the order of the columns."""

    device_id: str
    metric: str
    at_ms: int
    number: float

    def row(self) -> tuple[str, str, datetime, float, None, int]:
        """As psycopg takes it."""
        return self.device_id, self.metric, _time(self.at_ms), self.number, None, 192


Way = Callable[[Sequence[Sample]], None]


def copy_straight(connection: Connection) -> Way:
    """COPY into the table itself: the floor, since a row that is there already ends it."""

    def write(samples: Sequence[Sample]) -> None:
        with connection.transaction(), connection.cursor().copy(COPY_DIRECT) as copy:
            copy.write(HEADER + _rows(samples) + TRAILER)

    return write


def row_by_row(connection: Connection) -> Way:
    """One INSERT a row."""

    def write(samples: Sequence[Sample]) -> None:
        with connection.transaction(), connection.cursor() as cursor:
            for sample in samples:
                cursor.execute(_ONE, sample.row())

    return write


def executemany(connection: Connection) -> Way:
    """The same in psycopg's pipeline: no round trip a row."""

    def write(samples: Sequence[Sample]) -> None:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(_ONE, [sample.row() for sample in samples])

    return write


def arrays(connection: Connection) -> Way:
    """One INSERT from arrays, a column each."""

    def write(samples: Sequence[Sample]) -> None:
        columns = list(zip(*(sample.row() for sample in samples), strict=True))
        with connection.transaction():
            connection.execute(_ARRAYS, [list(column) for column in columns])

    return write


def copy_and_upsert(connection: Connection) -> Way:
    """COPY into a temporary table, then one INSERT from it."""
    connection.execute("CREATE TEMPORARY TABLE incoming (LIKE device_telemetry) ON COMMIT DELETE ROWS")

    def write(samples: Sequence[Sample]) -> None:
        with connection.transaction(), connection.cursor() as cursor:
            with cursor.copy(COPY) as copy:
                copy.write(HEADER + _rows(samples) + TRAILER)
            cursor.execute(_UPSERT)

    return write


def numbered_straight(connection: Connection) -> Way:
    """COPY into a table with a number for each device and metric, known to the writer beforehand."""
    numbers: dict[tuple[str, str], int] = {}

    def write(samples: Sequence[Sample]) -> None:
        with connection.transaction(), connection.cursor().copy(_COPY_NUMBERED) as copy:
            copy.write(HEADER + _numbered_rows(samples, numbers) + TRAILER)

    return write


def numbered_and_upsert(connection: Connection) -> Way:
    """COPY into a temporary table, then one INSERT from it, with such numbers."""
    connection.execute("CREATE TEMPORARY TABLE numbered_incoming (LIKE bench_numbered) ON COMMIT DELETE ROWS")
    numbers: dict[tuple[str, str], int] = {}

    def write(samples: Sequence[Sample]) -> None:
        with connection.transaction(), connection.cursor() as cursor:
            with cursor.copy("COPY numbered_incoming FROM STDIN (FORMAT binary)") as copy:
                copy.write(HEADER + _numbered_rows(samples, numbers) + TRAILER)
            cursor.execute(
                "INSERT INTO bench_numbered SELECT * FROM numbered_incoming ON CONFLICT DO NOTHING"
            )

    return write


def storage(tables: TelemetryTables) -> Way:
    """What the storage does, with its 1 s tier; without decoding frames."""
    tables.ready()

    def write(samples: Sequence[Sample]) -> None:
        batch = Batch()
        for s in samples:
            key = s.device_id.encode()
            batch.add(s.at_ms // MINUTE_MS, Piece(Record(0, 0, key, b""), _rows([s]), 1))
        for island in batch.islands():
            tables.write(island, [0])

    return write


COPY_STRAIGHT: Final = "COPY straight in"
COPY_AND_UPSERT: Final = "COPY and upsert"
NUMBERED_STRAIGHT: Final = "COPY straight in, numbered series"
NUMBERED: Final = "COPY and upsert, numbered series"
STORAGE: Final = "storage, with the 1 s tier"
_PLAIN_WAYS: Final[dict[str, Callable[[Connection], Way]]] = {
    COPY_STRAIGHT: copy_straight,
    "INSERT a row": row_by_row,
    "executemany": executemany,
    "INSERT from arrays": arrays,
    COPY_AND_UPSERT: copy_and_upsert,
    NUMBERED_STRAIGHT: numbered_straight,
    NUMBERED: numbered_and_upsert,
}
WAYS: Final = (*_PLAIN_WAYS, STORAGE)
REPEATABLE: Final = ("INSERT a row", "executemany", "INSERT from arrays", COPY_AND_UPSERT)
"""What may be done again and leaves a row that is there as it is, as the storage does."""


@contextmanager
def opened(name: str, settings: StorageSettings) -> Iterator[Way]:
    """The way of that name into a database that is migrated and has its tables."""
    if name == STORAGE:
        tables = TelemetryTables(settings)
        try:
            yield storage(tables)
        finally:
            tables.close()
        return
    with open_connection(settings, "bench") as connection:
        yield _PLAIN_WAYS[name](connection)


def _rows(samples: Sequence[Sample]) -> bytes:
    return b"".join(
        number_row(series_prefix(s.device_id, s.metric), time_us(s.at_ms), s.number, 192) for s in samples
    )


def _numbered_rows(samples: Sequence[Sample], numbers: dict[tuple[str, str], int]) -> bytes:
    row = _NUMBERED_ROW.pack
    known = numbers.setdefault
    return b"".join(
        row(5, 4, known((s.device_id, s.metric), len(numbers)), 8, time_us(s.at_ms), 8, s.number, -1, 4, 192)
        for s in samples
    )


def _time(at_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=at_ms)

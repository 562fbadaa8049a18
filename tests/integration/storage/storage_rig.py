"""Writing to and reading from the telemetry's tables, for the integration tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from plantwire.storage.batch import Batch, Record
from plantwire.storage.migration import Connection, require_current
from plantwire.storage.reading import RecordReader
from plantwire.storage.refresh import refresh_tiers
from plantwire.storage.settings import StorageSettings
from plantwire.storage.tables import TelemetryTables, open_connection
from tests.telemetry_truth import TIERS, Aggregate, Series

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOR_EVER: dict[str, Any] = dict.fromkeys(
    ("storage_keep_raw_days", "storage_keep_1s_days", "storage_keep_1m_days", "storage_keep_1h_days"), 0
)


def keeping_for_ever(url: str) -> StorageSettings:
    """Settings under which no sample is too old."""
    return StorageSettings(database=url, **FOR_EVER)


def write_all(tables: TelemetryTables, records: Iterable[Record], size: int, horizon_ms: int = 0) -> None:
    """Write records in batches of `size`."""
    reader, waiting = RecordReader(), list(records)
    for start in range(0, len(waiting), size):
        batch = Batch()
        reader.read(waiting[start : start + size], horizon_ms, batch)
        assert batch.refused == []
        for island in batch.islands():
            tables.write(island, sorted(batch.partitions))
        if (expired := batch.expired()) is not None:
            tables.write_expired(expired)


def settle_tiers(connection: Connection, settings: StorageSettings) -> None:
    """Bring all tiers up to date."""
    refresh_tiers(connection, require_current(connection), settings, timeout_s=30)


def connect(settings: StorageSettings) -> Connection:
    """A connection as the storage has it."""
    return open_connection(settings, "plantwire-test")


def read_tiers(connection: Connection) -> dict[str, Series]:
    """Every row of every tier."""
    return {name: read_tier(connection, name) for name in TIERS}


def read_tier(connection: Connection, name: str) -> Series:
    """The rows of one tier; each bucket may be there once only."""
    query = sql.SQL("SELECT device_id, metric, bucket, avg, min, max, sum, count FROM {}")
    rows = connection.execute(query.format(sql.Identifier(name)))
    found = [((d, m, milliseconds(b)), Aggregate(*values)) for d, m, b, *values in rows]
    assert len(found) == len(dict(found)), f"a bucket is twice in {name}"
    return dict(found)


def read_raw(connection: Connection) -> list[tuple[Any, ...]]:
    """Every raw sample, by key."""
    return connection.execute(
        "SELECT device_id, metric, time, number, text, quality FROM device_telemetry "
        "ORDER BY device_id, metric, time"
    ).fetchall()


def milliseconds(moment: datetime) -> int:
    """Milliseconds since the epoch."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Return when `condition` holds; AssertionError after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.1)  # paces the question


def count_rows(url: str, tables: Sequence[str] = ("device_telemetry",)) -> int:
    """Rows in the tables; 0 while they, or the server, are not there."""
    count = sql.SQL("SELECT count(*) FROM {}")
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            return sum(
                int((connection.execute(count.format(sql.Identifier(table))).fetchone() or (0,))[0])
                for table in tables
            )
    except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
        return 0

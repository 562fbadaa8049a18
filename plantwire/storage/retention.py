"""What is old goes: a scheduled delete, where TimescaleDB does not drop chunks itself.

In: settings, the database's variant. Out: fewer rows.
Guarantees: a step deletes a bounded number of rows, so no transaction is long; a tier loses rows only after
the tiers above it were computed from them (the caller rolls up first).
Not here: TimescaleDB's retention policies (`policies`), when (`upkeep`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from plantwire.storage.migration import Connection, Variant
from plantwire.storage.settings import StorageSettings

ROWS_PER_STEP: Final = 20_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
MARGIN_MS: Final = HOUR_MS
"""How long before its tier goes a sample is too late for it, so that the tiers above are computed in time."""


class Keep(NamedTuple):
    """How long a table's rows are kept, by which column."""

    table: str
    column: str
    days: int


def kept(settings: StorageSettings, variant: Variant) -> list[Keep]:
    """The tables that need a delete; those that are kept for ever are left out."""
    tables = [Keep("telemetry_expired", "stored_at", settings.storage_keep_expired_days)]
    if variant is Variant.POSTGRESQL:
        tables += [
            Keep("device_telemetry", "time", settings.storage_keep_raw_days),
            Keep("telemetry_1s", "bucket", settings.storage_keep_1s_days),
            Keep("telemetry_1m", "bucket", settings.storage_keep_1m_days),
            Keep("telemetry_1h", "bucket", settings.storage_keep_1h_days),
            Keep("telemetry_1d", "bucket", settings.storage_keep_1d_days),
        ]
    return [keep for keep in tables if keep.days]


def horizon_ms(settings: StorageSettings, now_ms: int) -> int:
    """Samples before this are too late for the tiers: the rows of their time may be gone already."""
    days = settings.storage_keep_1s_days
    return now_ms - days * DAY_MS + MARGIN_MS if days else 0


def delete_old(connection: Connection, keep: Keep, rows: int = ROWS_PER_STEP) -> int:
    """Delete at most `rows`; fewer means that none are left. Raises psycopg.Error."""
    statement = (
        f"DELETE FROM {keep.table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {keep.table} "  # noqa: S608
        f"WHERE {keep.column} < now() - INTERVAL '{int(keep.days)} days' LIMIT {int(rows)}))"
    )
    return connection.execute(statement.encode()).rowcount

"""What is old goes: a scheduled delete, where TimescaleDB does not drop chunks itself.

In: settings, the database's variant. Out: fewer rows; in `storage_retention`, up to where they may be gone.
Guarantees: it is noted before anything is deleted, and the note never goes back, so that nobody computes a
tier from what is left. A step deletes a bounded number of rows, the oldest first, so no transaction is long
and none looks at rows that stay.
Not here: TimescaleDB's retention policies (`policies`), when (`upkeep`), what the notes lead to (`reach`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

from plantwire.storage.migration import Connection, Variant
from plantwire.storage.settings import StorageSettings

ROWS_PER_STEP: Final = 20_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Nothing stored is older."""

_NOTE: Final = """
INSERT INTO storage_retention (relation, gone_before) VALUES (%s, now() - make_interval(days => %s))
ON CONFLICT (relation) DO UPDATE
SET gone_before = greatest(storage_retention.gone_before, excluded.gone_before)
RETURNING now() - make_interval(days => %s)
"""


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


def note_gone(connection: Connection, relation: str, days: int) -> datetime:
    """Note that rows older than `days` may be gone from now on; answers what time that is."""
    noted = connection.execute(_NOTE, (relation, days, days)).fetchone()
    if noted is None:
        raise AssertionError("an upsert without a condition answers a row")
    before: datetime = noted[0]
    return before


class Deleted(NamedTuple):
    """One step: how many rows went, whether others are left, and where to go on."""

    rows: int
    more: bool
    since: datetime


def delete_old(
    connection: Connection, keep: Keep, since: datetime, before: datetime, rows: int = ROWS_PER_STEP
) -> Deleted:
    """Delete the oldest rows of [since, before), at most `rows`. Raises psycopg.Error.

    The next step goes on where this one ended: the places of deleted rows stay in the index for a while, and
    each step would pass those of all the steps before it.
    """
    answer = connection.execute(statement(keep, rows).encode(), (since, before)).fetchone()
    deleted, seen, latest = answer if answer is not None else (0, 0, None)
    more = seen == rows
    return Deleted(deleted, more, latest if more else before)


def statement(keep: Keep, rows: int) -> str:
    """The SQL of one step, for the times from and to."""
    return (
        f"WITH old AS MATERIALIZED (SELECT ctid, {keep.column} AS at FROM {keep.table} "  # noqa: S608
        f"WHERE {keep.column} >= %s AND {keep.column} < %s ORDER BY {keep.column} LIMIT {int(rows)}), "
        f"gone AS (DELETE FROM {keep.table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING 1) "
        "SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM old), (SELECT max(at) FROM old)"
    )

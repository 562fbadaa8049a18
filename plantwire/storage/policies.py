"""What follows from the settings in a database with TimescaleDB: refresh, columnstore and retention.

In: a migrated database, settings. Out: TimescaleDB's own policies, which its background workers run.
Guarantees: they are made when the settings that they follow from change, and otherwise left alone, so what an
operator sets by hand stays. A refresh never reaches where the tier below may be gone already: it would take
the rows of that time away.
Not here: databases without TimescaleDB (`rollups`, `retention`).
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from psycopg import sql

from plantwire.storage.migration import LOCK, Connection
from plantwire.storage.settings import StorageSettings

SETTING: Final = "policies"
_VERSION: Final = 1
"""Raise it when other policies follow from the same settings."""


class Refresh(NamedTuple):
    """How a tier follows the one below it. Buckets in progress are computed when they are asked for."""

    tier: str
    reach_days: int
    """How long the tier below is kept, and so how far back changes are looked for; 0 is without end."""
    leave_out: str
    every: str


class Lifetime(NamedTuple):
    """When rows of a relation move to the columnstore, and when they go; 0 is never."""

    relation: str
    compress_after_hours: int
    keep_days: int


def refreshes(settings: StorageSettings) -> list[Refresh]:
    """The refresh policies."""
    return [
        Refresh("telemetry_1m", settings.storage_keep_1s_days, "1 minute", "20 seconds"),
        Refresh("telemetry_1h", settings.storage_keep_1m_days, "1 hour", "2 minutes"),
        Refresh("telemetry_1d", settings.storage_keep_1h_days, "1 day", "10 minutes"),
    ]


def lifetimes(settings: StorageSettings) -> list[Lifetime]:
    """The columnstore and retention policies. An aggregate is compressed once no refresh reaches it."""
    hours = settings.storage_compress_after_hours

    def after_refresh(reach_days: int) -> int:
        return 24 * (reach_days + 1) if hours and reach_days else 0

    return [
        Lifetime("device_telemetry", hours, settings.storage_keep_raw_days),
        Lifetime("telemetry_1s", hours, settings.storage_keep_1s_days),
        Lifetime("telemetry_1m", after_refresh(settings.storage_keep_1s_days), settings.storage_keep_1m_days),
        Lifetime("telemetry_1h", after_refresh(settings.storage_keep_1m_days), settings.storage_keep_1h_days),
        Lifetime("telemetry_1d", after_refresh(settings.storage_keep_1h_days), settings.storage_keep_1d_days),
    ]


def apply_policies(connection: Connection, settings: StorageSettings) -> bool:
    """Make the policies where the settings have changed; whether they had. Raises psycopg.Error."""
    wanted = json.dumps([_VERSION, refreshes(settings), lifetimes(settings)])
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        known = connection.execute(
            "SELECT value FROM storage_settings WHERE name = %s", (SETTING,)
        ).fetchone()
        if known is not None and known[0] == wanted:
            return False
        for refresh in refreshes(settings):
            _set_refresh(connection, refresh)
        for lifetime in lifetimes(settings):
            _set_lifetime(connection, lifetime)
        connection.execute(
            "INSERT INTO storage_settings (name, value) VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (SETTING, wanted),
        )
    return True


def _set_refresh(connection: Connection, refresh: Refresh) -> None:
    connection.execute(
        "SELECT remove_continuous_aggregate_policy(%s::regclass, if_exists => true)", (refresh.tier,)
    )
    reach = f"{refresh.reach_days} days" if refresh.reach_days else None
    connection.execute(
        "SELECT add_continuous_aggregate_policy(%s::regclass, start_offset => %s::interval, "
        "end_offset => %s::interval, schedule_interval => %s::interval)",
        (refresh.tier, reach, refresh.leave_out, refresh.every),
    )


def _set_lifetime(connection: Connection, lifetime: Lifetime) -> None:
    relation = sql.Literal(lifetime.relation)
    connection.execute(
        sql.SQL("CALL remove_columnstore_policy({}::regclass, if_exists => true)").format(relation)
    )
    if lifetime.compress_after_hours:
        after = sql.Literal(f"{lifetime.compress_after_hours} hours")
        connection.execute(
            sql.SQL("CALL add_columnstore_policy({}::regclass, after => {}::interval)").format(
                relation, after
            )
        )
    connection.execute(
        sql.SQL("SELECT remove_retention_policy({}::regclass, if_exists => true)").format(relation)
    )
    if lifetime.keep_days:
        kept = sql.Literal(f"{lifetime.keep_days} days")
        connection.execute(
            sql.SQL("SELECT add_retention_policy({}::regclass, drop_after => {}::interval)").format(
                relation, kept
            )
        )

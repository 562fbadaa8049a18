"""What follows from the settings in a database with TimescaleDB: refresh, columnstore and retention.

In: a migrated database, settings. Out: TimescaleDB's own policies, which its background workers run.
Guarantees: each is made when what it follows from changes, and otherwise left alone, so what an operator sets
by hand stays. A refresh never reaches where the tier below may be gone already: it would take the rows of
that time away. Where a tier is to be kept longer than it was, the refresh from it reaches further day by day,
as the longer time fills.
Not here: databases without TimescaleDB (`rollups`, `retention`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from psycopg import sql

from plantwire.storage.migration import LOCK, Connection
from plantwire.storage.retention import note_gone
from plantwire.storage.settings import StorageSettings

SETTING: Final = "policies"
_VERSION: Final = 1
"""Raise it when other policies follow from the same settings."""


class Refresh(NamedTuple):
    """How a tier follows the one below it. Buckets in progress are computed when they are asked for."""

    tier: str
    reach_days: int
    """How long the tier below has been kept, and so how far back changes are looked for; 0 is without end."""
    leave_out: str
    every: str
    below: str


class Lifetime(NamedTuple):
    """When rows of a relation move to the columnstore, and when they go; 0 is never."""

    relation: str
    compress_after_hours: int
    keep_days: int


def refreshes(settings: StorageSettings, whole_days: Mapping[str, int] | None = None) -> list[Refresh]:
    """The refresh policies; `whole_days` tells of a relation since when nothing was deleted from it."""
    whole = whole_days or {}

    def reach(keep_days: int, below: str) -> int:
        return min((days for days in (keep_days, whole.get(below, 0)) if days), default=0)

    seconds = reach(settings.storage_keep_1s_days, "telemetry_1s")
    minutes = reach(settings.storage_keep_1m_days, "telemetry_1m")
    hours = reach(settings.storage_keep_1h_days, "telemetry_1h")
    return [
        Refresh("telemetry_1m", seconds, "1 minute", "20 seconds", "telemetry_1s"),
        Refresh("telemetry_1h", minutes, "1 hour", "2 minutes", "telemetry_1m"),
        Refresh("telemetry_1d", hours, "1 day", "10 minutes", "telemetry_1h"),
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
    """Make the policies that are to change; whether there were any. Raises psycopg.Error."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        known, former_refreshes, former_lifetimes = _in_force(connection)
        keeps = lifetimes(settings)
        for former, lifetime in zip(former_lifetimes, keeps, strict=False):
            if former.keep_days and former.keep_days != lifetime.keep_days:
                note_gone(connection, former.relation, former.keep_days)
        reaches = refreshes(settings, whole_days(connection))
        wanted = json.dumps([_VERSION, reaches, keeps])
        if known == wanted:
            return False
        for refresh in reaches:
            if refresh not in former_refreshes:
                _set_refresh(connection, refresh)
        for lifetime in keeps:
            if lifetime not in former_lifetimes:
                _set_lifetime(connection, lifetime)
        connection.execute(
            "INSERT INTO storage_settings (name, value) VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (SETTING, wanted),
        )
    return True


def whole_days(connection: Connection) -> dict[str, int]:
    """Of each relation that has lost rows: the whole days that nothing is gone from. Raises psycopg.Error."""
    rows = connection.execute(
        "SELECT relation, greatest(1, floor(extract(epoch FROM now() - gone_before) / 86400))::int "
        "FROM storage_retention"
    )
    return dict(rows.fetchall())


def computable_days(connection: Connection) -> dict[str, int]:
    """Of each relation, how far back it may be computed from now, where that ends. Raises psycopg.Error."""
    found = days_in_force(connection)
    for relation, days in whole_days(connection).items():
        found[relation] = min(days, found.get(relation, days))
    return found


def days_in_force(connection: Connection) -> dict[str, int]:
    """Of each relation, how far back the policies made last keep it and compute from it, where that ends."""
    _, made_refreshes, made_lifetimes = _in_force(connection)
    ends = [(lifetime.relation, lifetime.keep_days) for lifetime in made_lifetimes]
    ends += [(refresh.below, refresh.reach_days) for refresh in made_refreshes]
    found: dict[str, int] = {}
    for relation, days in ends:
        if days:
            found[relation] = min(days, found.get(relation, days))
    return found


def _in_force(connection: Connection) -> tuple[str | None, list[Refresh], list[Lifetime]]:
    """What the policies were made from last, and they."""
    row = connection.execute("SELECT value FROM storage_settings WHERE name = %s", (SETTING,)).fetchone()
    if row is None:
        return None, [], []
    made: list[Any] = json.loads(row[0])
    # The first form did not name what a tier is computed from.
    below = ("telemetry_1s", "telemetry_1m", "telemetry_1h")
    made_refreshes = [
        Refresh(tier, reach_days, leave_out, every, name)
        for (tier, reach_days, leave_out, every, *_), name in zip(made[1], below, strict=True)
    ]
    made_lifetimes = [Lifetime(*words) for words in made[2]]
    return str(row[0]), made_refreshes, made_lifetimes


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

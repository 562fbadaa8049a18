"""The schema: once, wholly, by one at a time, and never over a later one."""

from __future__ import annotations

import threading

import psycopg
import pytest
from psycopg import sql

from plantwire.storage.migration import (
    Migration,
    SchemaError,
    Variant,
    load_migrations,
    migrate,
    require_current,
    schema_state,
)
from plantwire.storage.settings import StorageSettings
from tests.integration.storage.storage_rig import connect


def test_a_second_migration_changes_nothing(telemetry_database: str) -> None:
    with connect(StorageSettings(database=telemetry_database)) as connection:
        before = schema_state(connection)
        assert (before.version, before.current) == (0, False)
        with pytest.raises(SchemaError, match="plantwire database migrate"):
            require_current(connection)
        assert [m.version for m in migrate(connection)] == list(range(1, before.latest + 1))
        assert migrate(connection) == []
        after = schema_state(connection)
        assert after.current
        assert after.variant is (Variant.POSTGRESQL if after.extension is None else Variant.TIMESCALEDB)


def test_readers_find_the_same_columns_everywhere(telemetry_database: str) -> None:
    with connect(StorageSettings(database=telemetry_database)) as connection:
        migrate(connection)
        query = sql.SQL("SELECT * FROM {}")
        for tier in ("telemetry_1s", "telemetry_1m", "telemetry_1h", "telemetry_1d"):
            described = connection.execute(query.format(sql.Identifier(tier))).description or []
            assert [(c.name, c.type_display) for c in described] == [
                ("device_id", "text"),
                ("metric", "text"),
                ("bucket", "timestamptz"),
                ("avg", "float8"),
                ("min", "float8"),
                ("max", "float8"),
                ("sum", "float8"),
                ("count", "int8"),
            ]


def test_many_at_once_migrate_once(plain_database: str) -> None:
    ran: list[int] = []

    def run() -> None:
        with connect(StorageSettings(database=plain_database)) as connection:
            ran.append(len(migrate(connection)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ran) == [0, 0, 0, len(load_migrations(Variant.POSTGRESQL))]


def test_a_migration_that_fails_leaves_nothing_behind(plain_database: str) -> None:
    ours = load_migrations(Variant.POSTGRESQL)
    broken = Migration(len(ours) + 1, "broken", "CREATE TABLE half (a int); SELECT 1 / 0")
    with connect(StorageSettings(database=plain_database)) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            migrate(connection, [*ours, broken])
        assert schema_state(connection).current
        assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)
        mended = broken._replace(sql="CREATE TABLE half (a int)")
        assert migrate(connection, [*ours, mended]) == [mended]


def test_a_database_of_a_later_program_is_refused(plain_database: str) -> None:
    with connect(StorageSettings(database=plain_database)) as connection:
        ours = load_migrations(Variant.POSTGRESQL)
        migrate(connection, [*ours, Migration(len(ours) + 1, "later", "CREATE TABLE later (a int)")])
        for refused in (migrate, schema_state, require_current):
            with pytest.raises(SchemaError, match="a later Plantwire"):
                refused(connection)


def test_a_database_that_another_program_made_is_refused(plain_database: str) -> None:
    with connect(StorageSettings(database=plain_database)) as connection:
        migrate(connection)
        connection.execute("UPDATE schema_version SET digest = 'other' WHERE version = 2")
        with pytest.raises(SchemaError, match="migration 2 is not ours"):
            migrate(connection)

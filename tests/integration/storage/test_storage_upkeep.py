"""Without TimescaleDB: tiers are computed and old rows deleted by the storage itself."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest
from psycopg import sql

from plantwire.platform.health import Health
from plantwire.schemas.records import Metric
from plantwire.storage.metrics import StorageMetrics
from plantwire.storage.migration import Connection, Variant, migrate, require_current
from plantwire.storage.retention import EPOCH, delete_old, kept, note_gone, statement
from plantwire.storage.rollups import ROLLUPS, roll_up
from plantwire.storage.settings import StorageSettings
from plantwire.storage.tables import TelemetryTables
from plantwire.storage.upkeep import Upkeep
from tests.integration.storage.storage_rig import (
    connect,
    count_rows,
    keeping_for_ever,
    read_raw,
    read_tiers,
    wait_for,
    write_all,
)
from tests.telemetry_truth import DAY_MS, frame, record, samples_of, tiers


def test_old_rows_go_after_the_tiers_above_were_computed_from_them(plain_database: str) -> None:
    settings = StorageSettings(database=plain_database)
    now_ms = time.time_ns() // 1_000_000
    ages_days = (400, 40, 20, 7.5, 1)
    frames = [
        frame("press-1", now_ms - int(age * DAY_MS) + n * 1000, Metric("a", float(n)))
        for age in ages_days
        for n in range(20)
    ]
    whole = tiers(samples_of(frames))
    tables = TelemetryTables(keeping_for_ever(plain_database))
    write_all(tables, [record(one) for one in frames], 30)
    tables.close()
    metrics = StorageMetrics()
    with connect(settings) as connection:
        connection.execute(
            "INSERT INTO telemetry_expired (device_id, metric, time, quality, stored_at) VALUES "
            "('a', 'b', now(), 192, now() - INTERVAL '31 days'), ('a', 'c', now(), 192, now())"
        )
        Upkeep(settings, metrics, Health(("upkeep",)), threading.Event()).step(connection, Variant.POSTGRESQL)
        left = read_tiers(connection)
        assert len(read_raw(connection)) == 40  # 7.5 days and 1 day
        for tier, days in (("telemetry_1s", 7), ("telemetry_1m", 30), ("telemetry_1h", 365)):
            oldest_ms = now_ms - days * DAY_MS
            expected = {key: row for key, row in whole[tier].items() if key[2] >= oldest_ms}
            assert left[tier] == expected, tier
        assert left["telemetry_1d"] == whole["telemetry_1d"]
        assert connection.execute("SELECT metric FROM telemetry_expired").fetchall() == [("c",)]
    value = metrics.registry.get_sample_value
    assert value("plantwire_storage_rows_deleted_total", {"table": "device_telemetry"}) == 60


def test_a_change_that_commits_during_a_rollup_is_not_forgotten(plain_database: str) -> None:
    settings = keeping_for_ever(plain_database)
    at_ms = 1_790_000_000_000
    frames = [frame("press-1", at_ms + n * 10, Metric("a", float(n))) for n in range(400)]
    tables = TelemetryTables(settings)
    tables.ready()
    writer = threading.Thread(target=write_all, args=(tables, [record(one) for one in frames], 4))
    writer.start()
    with connect(settings) as connection:
        while writer.is_alive():
            for rollup in ROLLUPS:
                roll_up(connection, rollup, marks=3)
        for rollup in ROLLUPS:
            while roll_up(connection, rollup)[0]:
                pass
        assert read_tiers(connection) == tiers(samples_of(frames))
        assert connection.execute("SELECT count(*) FROM telemetry_stale").fetchone() == (0,)
    writer.join()
    tables.close()


def test_a_step_that_the_database_gives_up_is_divided_until_it_is_through(plain_database: str) -> None:
    settings = keeping_for_ever(plain_database)
    at_ms = 1_790_000_000_000
    frames = [frame("press-1", at_ms + n * 60_000, Metric("a", float(n))) for n in range(20)]
    tables = TelemetryTables(settings)
    write_all(tables, [record(one) for one in frames], 1)
    tables.close()
    metrics, health = StorageMetrics(), Health(("upkeep",))
    with connect(settings) as connection:
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END'"
        )
        connection.execute(
            "CREATE TRIGGER slow BEFORE INSERT ON telemetry_1m FOR EACH ROW EXECUTE FUNCTION slow()"
        )
        connection.execute("SET statement_timeout = '500ms'")
        Upkeep(settings, metrics, health, threading.Event()).step(connection, Variant.POSTGRESQL)
        assert read_tiers(connection) == tiers(samples_of(frames))
    assert health.obstacles() == []
    given_up = metrics.registry.get_sample_value("plantwire_storage_failures_total", {"what": "upkeep"})
    assert given_up is not None
    assert given_up >= 3


@pytest.mark.parametrize("table", ["device_telemetry", "telemetry_1s"])
def test_a_delete_reads_no_rows_that_stay_also_where_they_lie_in_the_room_of_deleted_ones(
    plain_database: str, table: str
) -> None:
    settings = StorageSettings(database=plain_database)
    keep = next(keep for keep in kept(settings, Variant.POSTGRESQL) if keep.table == table)
    values = "g, NULL, 192" if table == "device_telemetry" else "g, g, g, g, 1"
    fill = sql.SQL(
        "INSERT INTO {} SELECT 'press-' || g %% 50, 'a', now() - %s * INTERVAL '1 day' "
        "+ g * INTERVAL '1 s', {} FROM generate_series(1, %s) AS g"
    ).format(sql.Identifier(table), sql.SQL(values))
    with connect(settings) as connection:
        migrate(connection)
        connection.execute(fill, (keep.days + 2, 20_000))
        connection.execute(f"VACUUM ANALYZE {table}".encode())
        before = note_gone(connection, table, keep.days)
        first = delete_old(connection, keep, EPOCH, before, 12_000)
        assert (first.rows, first.more) == (12_000, True)
        assert delete_old(connection, keep, first.since, before, 12_000) == (8_000, False, before)
        connection.execute(f"VACUUM ANALYZE {table}".encode())
        connection.execute(fill, (2, 20_000))
        connection.execute(fill, (keep.days + 1, 20))
        connection.execute(f"VACUUM ANALYZE {table}".encode())
        (pages,) = connection.execute("SELECT pg_relation_size(%s) / 8192", (table,)).fetchone() or (0,)
        explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement(keep, 20_000)
        (plan,) = connection.execute(explain.encode(), (EPOCH, before)).fetchone() or ([],)
        (old,) = (one for one in plan[0]["Plan"]["Plans"] if one.get("Subplan Name") == "CTE old")
        assert old["Actual Rows"] == 20
        assert pages > 150
        assert old["Shared Hit Blocks"] + old["Shared Read Blocks"] < pages / 4
        assert count_rows(plain_database, [table]) == 20_000


def test_a_database_that_is_away_is_tried_again(plain_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plantwire.storage.upkeep.RETRY_S", 0.05)
    monkeypatch.setattr("plantwire.storage.upkeep.TICK_S", 0.05)
    settings = keeping_for_ever(plain_database)
    tables = TelemetryTables(settings)
    write_all(tables, [record(frame("press-1", 1_790_000_000_000, Metric("a", 1.0)))], 1)
    tables.close()
    refusals = 3

    def flaky(given: StorageSettings, name: str) -> Connection:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise psycopg.OperationalError("the server is starting up")
        assert name == "plantwire-storage-upkeep"
        return connect(given)

    metrics, stopping = StorageMetrics(), threading.Event()
    thread = threading.Thread(target=Upkeep(settings, metrics, Health(("upkeep",)), stopping, flaky).run)
    thread.start()
    with connect(settings) as connection:
        assert require_current(connection) is Variant.POSTGRESQL
        wait_for(lambda: len(read_tiers(connection)["telemetry_1d"]) == 1, 20, "the tiers are computed")
    stopping.set()
    thread.join(10)
    assert not thread.is_alive()
    assert metrics.registry.get_sample_value("plantwire_storage_failures_total", {"what": "upkeep"}) == 3

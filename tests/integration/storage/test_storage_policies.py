"""With TimescaleDB: its policies are there, run, and do what the settings say."""

from __future__ import annotations

import json
import time

import pytest

from plantwire.schemas.records import Metric
from plantwire.storage.migration import Connection, Variant
from plantwire.storage.policies import apply_policies, days_in_force
from plantwire.storage.settings import StorageSettings
from plantwire.storage.tables import TelemetryTables, prepare_database
from tests.integration.storage.storage_rig import (
    connect,
    keeping_for_ever,
    read_raw,
    read_tiers,
    settle_tiers,
    write_all,
)
from tests.integration.storage.timescale_jobs import KINDS, policies, run_job
from tests.telemetry_truth import DAY_MS, HOUR_MS, frame, record, samples_of, tiers

pytestmark = pytest.mark.timescaledb


def chunks(connection: Connection, relation: str) -> list[bool]:
    """Of each chunk, whether it is in the columnstore."""
    rows = connection.execute(
        "SELECT is_compressed FROM timescaledb_information.chunks WHERE hypertable_name = %s", (relation,)
    )
    return [bool(row[0]) for row in rows]


def test_policies_follow_from_settings_and_are_left_alone_otherwise(timescale_database: str) -> None:
    settings = StorageSettings(database=timescale_database)
    with connect(settings) as connection:
        assert prepare_database(connection, settings) is Variant.TIMESCALEDB
        made = policies(connection)
        aggregates = {"telemetry_1m", "telemetry_1h", "telemetry_1d"}
        assert made["policy_refresh_continuous_aggregate"].keys() == aggregates
        assert made["policy_compression"].keys() == aggregates | {"device_telemetry", "telemetry_1s"}
        assert made["policy_retention"].keys() == {
            "device_telemetry",
            "telemetry_1s",
            "telemetry_1m",
            "telemetry_1h",
        }
        assert not apply_policies(connection, settings)
        assert policies(connection) == made
        longer = settings.model_copy(update={"storage_keep_raw_days": 0, "storage_compress_after_hours": 0})
        assert apply_policies(connection, longer)
        changed = policies(connection)
        assert "device_telemetry" not in changed["policy_retention"]
        assert changed["policy_compression"] == {}


def test_only_policies_that_are_to_change_are_made_anew(timescale_database: str) -> None:
    settings = StorageSettings(database=timescale_database)
    with connect(settings) as connection:
        prepare_database(connection, settings)
        made = policies(connection)
        # As the first version noted them: without what a tier is computed from.
        (noted,) = connection.execute("SELECT value FROM storage_settings").fetchone() or ("",)
        version, refreshes, lifetimes = json.loads(noted)
        former = json.dumps([version, [refresh[:4] for refresh in refreshes], lifetimes])
        connection.execute("UPDATE storage_settings SET value = %s", (former,))
        assert apply_policies(connection, settings)
        assert policies(connection) == made
        assert days_in_force(connection) == {
            "device_telemetry": 8,
            "telemetry_1s": 7,
            "telemetry_1m": 30,
            "telemetry_1h": 365,
        }
        # A longer time that comes with this version reaches no further than what the former one kept.
        connection.execute("UPDATE storage_settings SET value = %s", (former,))
        longer = settings.model_copy(update={"storage_keep_1m_days": 60})
        assert apply_policies(connection, longer)
        assert days_in_force(connection)["telemetry_1m"] == 30
        changed = policies(connection)
        anew = {
            (kind, relation)
            for kind in KINDS
            for relation, job in made[kind].items()
            if changed[kind][relation] != job
        }
        # An aggregate moves to the columnstore once no refresh reaches it.
        assert {relation for _, relation in anew} == {"telemetry_1m", "telemetry_1h"}
        assert {kind for kind, _ in anew} == {"policy_compression", "policy_retention"}


def test_refresh_policies_give_what_the_raw_samples_say(timescale_database: str) -> None:
    settings = StorageSettings(database=timescale_database)
    now_ms = time.time_ns() // 1_000_000
    frames = [
        frame("press-1", now_ms - days * DAY_MS - n * 7_000, Metric("a", float(n)))
        for days in (0, 1, 3, 5)
        for n in range(300)
    ]
    tables = TelemetryTables(settings)
    with connect(settings) as connection:
        write_all(tables, [record(one) for one in frames], 50)
        refresh = policies(connection)["policy_refresh_continuous_aggregate"]
        for tier in ("telemetry_1m", "telemetry_1h", "telemetry_1d"):
            run_job(connection, refresh[tier])
        assert read_tiers(connection) == tiers(samples_of(frames))
        late = [frame("press-1", now_ms - 4 * DAY_MS, Metric("a", 9.0))]
        write_all(tables, [record(one) for one in late], 50)
        for tier in ("telemetry_1m", "telemetry_1h", "telemetry_1d"):
            run_job(connection, refresh[tier])
        assert read_tiers(connection) == tiers(samples_of(frames + late))
    tables.close()


def test_late_samples_reach_the_columnstore(timescale_database: str) -> None:
    settings = StorageSettings(database=timescale_database)
    base_ms = (time.time_ns() // 1_000_000 - 2 * DAY_MS) // HOUR_MS * HOUR_MS
    frames = [frame(f"press-{n % 3}", base_ms + n * 250, Metric("a", n / 3)) for n in range(600)]
    late = [frame(f"press-{n % 3}", base_ms + n * 250 + 1, Metric("a", -1.0)) for n in range(0, 600, 50)]
    tables = TelemetryTables(settings)
    with connect(settings) as connection:
        write_all(tables, [record(one) for one in frames], 100)
        settle_tiers(connection, settings)
        compress = policies(connection)["policy_compression"]
        for relation in ("device_telemetry", "telemetry_1s"):
            run_job(connection, compress[relation])
            assert chunks(connection, relation) == [True]
        raw = read_raw(connection)
        # A replay, then what is new: both into chunks of the columnstore.
        write_all(tables, [record(one) for one in frames], 100)
        assert read_raw(connection) == raw
        write_all(tables, [record(one) for one in late], 100)
        settle_tiers(connection, settings)
        assert read_tiers(connection) == tiers(samples_of(frames + late))
    tables.close()


def test_retention_drops_chunks_and_the_tiers_above_keep_what_they_were_computed_from(
    timescale_database: str,
) -> None:
    settings = StorageSettings(database=timescale_database)
    now_ms = time.time_ns() // 1_000_000
    old = [frame("press-1", now_ms - 20 * DAY_MS + n * 1000, Metric("a", float(n))) for n in range(90)]
    new = [frame("press-1", now_ms - HOUR_MS + n * 1000, Metric("a", float(n))) for n in range(90)]
    tables = TelemetryTables(keeping_for_ever(timescale_database))
    with connect(settings) as connection:
        write_all(tables, [record(one) for one in old + new], 50)
        settle_tiers(connection, keeping_for_ever(timescale_database))
        whole = read_tiers(connection)
        assert apply_policies(connection, settings)
        retention = policies(connection)["policy_retention"]
        for relation in ("device_telemetry", "telemetry_1s", "telemetry_1m", "telemetry_1h"):
            run_job(connection, retention[relation])
        left = read_tiers(connection)
        assert len(read_raw(connection)) == len(new)
        assert left["telemetry_1s"] == tiers(samples_of(new))["telemetry_1s"]
        for tier in ("telemetry_1m", "telemetry_1h", "telemetry_1d"):
            assert left[tier] == whole[tier]
        # What comes for that time now would be all that its tiers are computed from: it lies apart.
        refresh = policies(connection)["policy_refresh_continuous_aggregate"]
        write_all(tables, [record(one) for one in old[:5]], 50, horizon_ms=now_ms - 7 * DAY_MS)
        for tier in ("telemetry_1m", "telemetry_1h", "telemetry_1d"):
            run_job(connection, refresh[tier])
        assert read_tiers(connection) == left
    tables.close()

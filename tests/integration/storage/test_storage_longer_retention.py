"""A tier that is to be kept longer than it was: what went before is computed from by nobody."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from plantwire.platform.health import Health
from plantwire.schemas.records import Metric, TelemetryFrame
from plantwire.schemas.tiers import DAY_MS, HOUR_MS
from plantwire.storage.metrics import StorageMetrics
from plantwire.storage.migration import Connection, Variant, require_current
from plantwire.storage.policies import apply_policies, days_in_force
from plantwire.storage.reach import horizon_ms
from plantwire.storage.settings import StorageSettings
from plantwire.storage.tables import TelemetryTables
from plantwire.storage.upkeep import UPKEEP, Upkeep
from tests.integration.storage.storage_rig import (
    connect,
    keeping_for_ever,
    read_tiers,
    settle_tiers,
    write_all,
)
from tests.integration.storage.timescale_jobs import policies, run_job
from tests.telemetry_truth import frame, record, samples_of, tiers

UPPER = ("telemetry_1m", "telemetry_1h", "telemetry_1d")
LONGER: dict[str, dict[str, Any]] = {
    "the seconds": {"storage_keep_1s_days": 30, "storage_keep_raw_days": 30},
    "the minutes": {"storage_keep_1m_days": 60},
    "the hours": {"storage_keep_1h_days": 800},
    "everything, for ever": {f"storage_keep_{tier}_days": 0 for tier in ("raw", "1s", "1m", "1h")},
}


@pytest.fixture
def now_ms() -> int:
    return time.time_ns() // 1_000_000


def a_minute(now_ms: int, age_days: int) -> list[TelemetryFrame]:
    return [frame("press-1", now_ms - age_days * DAY_MS + n * 1000, Metric("a", float(n))) for n in range(60)]


def lose_what_is_old(connection: Connection, settings: StorageSettings) -> None:
    """Retention as `settings` say."""
    if require_current(connection) is Variant.POSTGRESQL:
        step_upkeep(connection, settings)
        return
    apply_policies(connection, settings)
    for job in policies(connection)["policy_retention"].values():
        run_job(connection, job)


def bring_up_to_date(connection: Connection, settings: StorageSettings) -> None:
    """By policies, and as when somebody asks for it."""
    if require_current(connection) is Variant.TIMESCALEDB:
        refresh = policies(connection)["policy_refresh_continuous_aggregate"]
        for tier in UPPER:
            run_job(connection, refresh[tier])
    settle_tiers(connection, settings)


def step_upkeep(connection: Connection, settings: StorageSettings) -> None:
    health = Health((UPKEEP,))
    Upkeep(settings, StorageMetrics(), health, threading.Event()).step(
        connection, require_current(connection)
    )
    assert health.obstacles() == []


@pytest.mark.parametrize("changes", LONGER.values(), ids=LONGER.keys())
def test_the_tiers_above_what_is_kept_longer_stay_as_they_are(
    telemetry_database: str, now_ms: int, changes: dict[str, Any]
) -> None:
    for_ever, before = keeping_for_ever(telemetry_database), StorageSettings(database=telemetry_database)
    longer = before.model_copy(update=changes)
    frames = [one for age in (700, 100, 45, 10, 2) for one in a_minute(now_ms, age)]
    tables = TelemetryTables(for_ever)
    write_all(tables, [record(one) for one in frames], 100)
    tables.close()
    with connect(before) as connection:
        settle_tiers(connection, for_ever)
        whole = tiers(samples_of(frames))
        assert read_tiers(connection) == whole
        lose_what_is_old(connection, before)
        left = read_tiers(connection)
        assert left["telemetry_1s"] == tiers(samples_of(a_minute(now_ms, 2)))["telemetry_1s"]

        tables = TelemetryTables(longer)
        horizon = horizon_ms(longer, tables.bounds(), now_ms)
        late = [frame("press-1", now_ms - age * DAY_MS + 500, Metric("a", 9.0)) for age in (45, 10, 2)]
        write_all(tables, [record(one) for one in late], 10, horizon)
        tables.close()
        bring_up_to_date(connection, longer)
        found = read_tiers(connection)
        expected = tiers(samples_of([*frames, late[-1]]))
        for tier in ("telemetry_1s", *UPPER):
            assert found[tier] == {key: expected[tier][key] for key in left[tier]}, tier
        assert found["telemetry_1d"] == expected["telemetry_1d"]
        assert connection.execute("SELECT count(*) FROM telemetry_expired").fetchone() == (2,)


def test_as_the_longer_time_fills_late_samples_reach_further_back(
    telemetry_database: str, now_ms: int
) -> None:
    before = StorageSettings(database=telemetry_database)
    longer = before.model_copy(update=LONGER["the seconds"])
    tables = TelemetryTables(before)
    tables.ready()
    tables.close()
    with connect(longer) as connection:
        lose_what_is_old(connection, before)
        step_upkeep(connection, longer)
        # Four days and a bit later.
        connection.execute("UPDATE storage_retention SET gone_before = gone_before - INTERVAL '100 hours'")
        step_upkeep(connection, longer)
        timescale = require_current(connection) is Variant.TIMESCALEDB
        if timescale:
            assert days_in_force(connection)["telemetry_1s"] == 11
        late = [frame("press-1", now_ms - age * DAY_MS, Metric("a", 9.0)) for age in (12, 10)]
        tables = TelemetryTables(longer)
        horizon = horizon_ms(longer, tables.bounds(), now_ms)
        reach_ms = 11 * DAY_MS if timescale else 7 * DAY_MS + 100 * HOUR_MS
        assert 0 < horizon - (now_ms - reach_ms + HOUR_MS) < 120_000
        write_all(tables, [record(one) for one in late], 10, horizon)
        tables.close()
        bring_up_to_date(connection, longer)
        assert read_tiers(connection) == tiers(samples_of(late[1:]))


def test_a_process_with_other_settings_is_heeded(plain_database: str, now_ms: int) -> None:
    """As while processes are started anew one after the other."""
    settings = keeping_for_ever(plain_database)
    clock = [0.0]
    tables = TelemetryTables(settings, clock=lambda: clock[0])
    assert horizon_ms(settings, tables.bounds(), now_ms) == 0
    with connect(settings) as connection:
        step_upkeep(connection, StorageSettings(database=plain_database))
    clock[0] += 61
    assert horizon_ms(settings, tables.bounds(), now_ms) > now_ms - 7 * DAY_MS
    tables.close()

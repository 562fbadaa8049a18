"""How long tiers are kept has to make sense together."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from plantwire.storage.migration import Variant, load_migrations
from plantwire.storage.policies import lifetimes, refreshes
from plantwire.storage.retention import DAY_MS, HOUR_MS, horizon_ms, kept
from plantwire.storage.settings import StorageSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"storage_keep_raw_days": 6},
        {"storage_keep_1m_days": 6},
        {"storage_keep_1h_days": 29},
        {"storage_keep_1d_days": 364},
        {"storage_keep_1s_days": 0},
    ],
)
def test_a_tier_outlives_the_one_below(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="must not be shorter"):
        StorageSettings(**wrong)


@pytest.mark.parametrize(
    "right",
    [
        {},
        {"storage_keep_raw_days": 0},
        {"storage_keep_1h_days": 0},
        {"storage_keep_1m_days": 0, "storage_keep_1h_days": 0},
        {"storage_keep_1d_days": 365},
    ],
)
def test_for_ever_is_longer_than_any_time(right: dict[str, int]) -> None:
    assert StorageSettings(**right) is not None


@pytest.mark.parametrize("address", ["postgresql:/me:hidden@host/plant", "host=x password='hidden"])
def test_an_address_that_cannot_be_read_is_refused_without_being_shown(address: str) -> None:
    with pytest.raises(ValidationError, match="no address of a PostgreSQL database") as refused:
        StorageSettings(database=address)
    assert "hidden" not in str(refused.value)


def test_samples_are_too_late_an_hour_before_their_seconds_go() -> None:
    now_ms = 1_790_000_000_000
    assert horizon_ms(StorageSettings(), now_ms) == now_ms - 7 * DAY_MS + HOUR_MS
    for_ever: dict[str, Any] = dict.fromkeys(("storage_keep_raw_days", "storage_keep_1s_days"), 0)
    for_ever |= dict.fromkeys(("storage_keep_1m_days", "storage_keep_1h_days"), 0)
    assert horizon_ms(StorageSettings(**for_ever), now_ms) == 0


def test_no_refresh_reaches_what_the_tier_below_has_lost() -> None:
    reach = {refresh.tier: refresh.reach_days for refresh in refreshes(StorageSettings())}
    assert reach == {"telemetry_1m": 7, "telemetry_1h": 30, "telemetry_1d": 365}
    for lifetime in lifetimes(StorageSettings()):
        if lifetime.relation in reach:
            assert lifetime.compress_after_hours > 24 * reach[lifetime.relation]
            assert lifetime.keep_days == 0 or lifetime.compress_after_hours < 24 * lifetime.keep_days


def test_timescaledb_drops_chunks_itself_and_the_day_tier_is_kept_for_ever() -> None:
    assert [keep.table for keep in kept(StorageSettings(), Variant.TIMESCALEDB)] == ["telemetry_expired"]
    assert {keep.table: keep.days for keep in kept(StorageSettings(), Variant.POSTGRESQL)} == {
        "telemetry_expired": 30,
        "device_telemetry": 8,
        "telemetry_1s": 7,
        "telemetry_1m": 30,
        "telemetry_1h": 365,
    }


def test_both_kinds_of_server_have_the_same_versions() -> None:
    versions = [[(m.version, m.name) for m in load_migrations(variant)] for variant in Variant]
    assert versions[0] == versions[1]
    assert [version for version, _ in versions[0]] == list(range(1, len(versions[0]) + 1))

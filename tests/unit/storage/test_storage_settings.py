"""How long tiers are kept has to make sense together."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from plantwire.storage.migration import Variant, load_migrations
from plantwire.storage.policies import lifetimes, refreshes
from plantwire.storage.retention import kept
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


def test_no_refresh_reaches_what_the_tier_below_has_lost() -> None:
    reach = {refresh.tier: refresh.reach_days for refresh in refreshes(StorageSettings())}
    assert reach == {"telemetry_1m": 7, "telemetry_1h": 30, "telemetry_1d": 365}
    for lifetime in lifetimes(StorageSettings()):
        if lifetime.relation in reach:
            assert lifetime.compress_after_hours > 24 * reach[lifetime.relation]
            assert lifetime.keep_days == 0 or lifetime.compress_after_hours < 24 * lifetime.keep_days


def test_a_refresh_reaches_no_further_than_nothing_was_deleted_yet() -> None:
    whole_days = {"telemetry_1s": 9, "telemetry_1m": 30, "telemetry_1h": 400}
    longer = StorageSettings(storage_keep_1s_days=30, storage_keep_raw_days=30, storage_keep_1m_days=60)
    reach = {refresh.tier: refresh.reach_days for refresh in refreshes(longer, whole_days)}
    assert reach == {"telemetry_1m": 9, "telemetry_1h": 30, "telemetry_1d": 365}
    for_ever = longer.model_copy(update={"storage_keep_1s_days": 0})
    assert refreshes(for_ever, whole_days)[0].reach_days == 9


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

"""Since when samples can still be taken into the tiers."""

from __future__ import annotations

from typing import Any

import pytest

from plantwire.schemas.tiers import DAY_MS, HOUR_MS, MINUTE_MS
from plantwire.storage.reach import MARGIN_MS, Bound, Bounds, horizon_ms
from plantwire.storage.settings import StorageSettings

NOW_MS = 1_790_000_000_000 // DAY_MS * DAY_MS + 13 * HOUR_MS + 20 * MINUTE_MS
FOR_EVER: dict[str, Any] = dict.fromkeys(
    (f"storage_keep_{tier}_days" for tier in ("raw", "1s", "1m", "1h")), 0
)


def test_samples_are_too_late_an_hour_before_their_seconds_go() -> None:
    assert horizon_ms(StorageSettings(), {}, NOW_MS) == NOW_MS - 7 * DAY_MS + MARGIN_MS
    assert horizon_ms(StorageSettings(), {}, NOW_MS + 1) == NOW_MS - 7 * DAY_MS + MARGIN_MS + MINUTE_MS
    assert horizon_ms(StorageSettings(**FOR_EVER), {}, NOW_MS) == 0


@pytest.mark.parametrize("settings", [FOR_EVER, FOR_EVER | {"storage_keep_1s_days": 30}])
@pytest.mark.parametrize(
    "bound", [Bound(gone_before_ms=NOW_MS - 7 * DAY_MS), Bound(days=7), Bound(NOW_MS - 20 * DAY_MS, 7)]
)
def test_a_longer_time_does_not_bring_back_what_is_gone(settings: dict[str, Any], bound: Bound) -> None:
    horizon = horizon_ms(StorageSettings(**settings), {"telemetry_1s": bound}, NOW_MS)
    assert horizon == NOW_MS - 7 * DAY_MS + MARGIN_MS


@pytest.mark.parametrize(
    ("relation", "begins_ms"),
    [
        ("device_telemetry", NOW_MS + MARGIN_MS),
        ("telemetry_1s", NOW_MS + MARGIN_MS),
        ("telemetry_1m", NOW_MS + MARGIN_MS + 40 * MINUTE_MS),
        ("telemetry_1h", NOW_MS // DAY_MS * DAY_MS + DAY_MS),
        ("telemetry_1d", 0),
    ],
)
def test_a_bucket_is_computed_only_where_all_its_rows_are_there(relation: str, begins_ms: int) -> None:
    bounds: Bounds = {relation: Bound(gone_before_ms=NOW_MS)}
    assert horizon_ms(StorageSettings(**FOR_EVER), bounds, NOW_MS) == begins_ms

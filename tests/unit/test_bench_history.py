"""The ranges that the bench asks for are answered by the tiers that it says."""

from __future__ import annotations

import pytest

from bench.history import RANGES, Range
from bench.history_rows import series_name
from plantwire.distribution.history_plan import plan_range
from plantwire.distribution.settings import KeptSettings
from plantwire.schemas.tiers import MINUTE_MS

UNTIL_MS = 1_790_000_000_000 // MINUTE_MS * MINUTE_MS


@pytest.mark.parametrize("asked", RANGES, ids=lambda asked: asked.name)
@pytest.mark.parametrize("later_min", [0, 30])
def test_a_range_has_its_tier_and_points_also_some_time_after_the_rows_were_made(
    asked: Range, later_min: int
) -> None:
    now_ms = UNTIL_MS + later_min * MINUTE_MS
    start, end = str(UNTIL_MS - asked.span_ms), str(UNTIL_MS)
    plan = plan_range(start, end, "auto", 1000, now_ms, KeptSettings().by_tier())
    assert plan.tier.name == asked.tier
    assert asked.points_min <= (plan.end_ms - plan.start_ms) / plan.step_ms <= 1000


def test_series_are_told_apart() -> None:
    assert len({series_name(number) for number in range(1000)}) == 1000

"""Which tier answers, in which steps."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.distribution.history_plan import (
    RANGE_MAX_MS,
    RESOLUTIONS,
    ROWS_PER_POINT_MAX,
    STEPS_MS,
    TIME_MAX_MS,
    PlanError,
    parse_time,
    plan_from_cursor,
    plan_range,
)
from plantwire.distribution.settings import KeptSettings
from plantwire.schemas.tiers import DAY_MS, HOUR_MS, MINUTE_MS, RAW, SECOND_MS

KEPT = KeptSettings().by_tier()
NOW_MS = int(datetime(2026, 11, 24, 10, 0, 0, 123000, tzinfo=UTC).timestamp() * 1000)


def auto(span_ms: int, until_ms: int = NOW_MS, points: int = 1000) -> tuple[str, int]:
    plan = plan_range(str(until_ms - span_ms), str(until_ms), "auto", points, NOW_MS, KEPT)
    return plan.tier.name, plan.step_ms


@pytest.mark.parametrize(
    ("span_ms", "tier", "step_ms"),
    [
        (100 * SECOND_MS, "raw", 0),
        (15 * MINUTE_MS, "1s", SECOND_MS),
        (HOUR_MS, "1s", 5 * SECOND_MS),
        (8 * HOUR_MS, "1s", 30 * SECOND_MS),
        (DAY_MS, "1m", 2 * MINUTE_MS),
        (7 * DAY_MS, "1m", 15 * MINUTE_MS),
        (29 * DAY_MS, "1h", HOUR_MS),
        (364 * DAY_MS, "1h", 12 * HOUR_MS),
        (365 * DAY_MS - HOUR_MS, "1d", DAY_MS),
        (366 * DAY_MS, "1d", DAY_MS),
        (10_000 * DAY_MS, "1d", DAY_MS),
    ],
)
def test_the_range_chooses_the_tier(span_ms: int, tier: str, step_ms: int) -> None:
    assert auto(span_ms) == (tier, step_ms)


def test_what_a_tier_no_longer_keeps_comes_from_the_next() -> None:
    assert auto(15 * MINUTE_MS, NOW_MS - 6 * DAY_MS) == ("1s", SECOND_MS)
    assert auto(15 * MINUTE_MS, NOW_MS - 7 * DAY_MS) == ("1m", MINUTE_MS)
    assert auto(15 * MINUTE_MS, NOW_MS - 30 * DAY_MS) == ("1h", HOUR_MS)
    assert auto(15 * MINUTE_MS, NOW_MS - 365 * DAY_MS) == ("1d", DAY_MS)
    assert auto(10 * SECOND_MS, NOW_MS - 8 * DAY_MS) == ("1m", MINUTE_MS)


@pytest.mark.parametrize(
    ("kept_days", "span_ms", "step_ms", "tier", "next_tier"),
    [
        (365, 364 * DAY_MS, 12 * HOUR_MS, "1h", "1d"),
        (30, 7 * DAY_MS, 15 * MINUTE_MS, "1m", "1h"),
        (7, 2 * HOUR_MS, 10 * SECOND_MS, "1s", "1m"),
        (7, 15 * MINUTE_MS, SECOND_MS, "1s", "1m"),
    ],
)
def test_a_tier_answers_where_it_still_keeps_the_whole_first_step(
    kept_days: int, span_ms: int, step_ms: int, tier: str, next_tier: str
) -> None:
    kept_from_ms = NOW_MS - kept_days * DAY_MS
    whole_ms = kept_from_ms - kept_from_ms % step_ms + step_ms
    assert auto(span_ms, whole_ms + span_ms) == (tier, step_ms)
    # A moment earlier the first point begins a step before, where the tier's rows are gone.
    assert kept_from_ms <= whole_ms - 1
    assert auto(span_ms, whole_ms - 1 + span_ms)[0] == next_tier


def test_how_long_a_tier_is_kept_is_what_storage_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTWIRE_STORAGE_KEEP_1S_DAYS", "0")
    monkeypatch.setenv("PLANTWIRE_STORAGE_KEEP_RAW_DAYS", "9")
    kept = KeptSettings().by_tier()
    assert kept == {
        "raw": 9 * DAY_MS,
        "1s": None,
        "1m": 30 * DAY_MS,
        "1h": 365 * DAY_MS,
        "1d": None,
    }
    last_days = [str(NOW_MS - 2 * DAY_MS), str(NOW_MS - 2 * DAY_MS + 15 * MINUTE_MS)]
    for gone_before_ms, name in ((NOW_MS - 3 * DAY_MS, "1s"), (NOW_MS - DAY_MS, "1m")):
        plan = plan_range(*last_days, "auto", 1000, NOW_MS, kept, {"1s": gone_before_ms})
        assert plan.tier.name == name
    long_ago = [str(NOW_MS - 900 * DAY_MS), str(NOW_MS - 900 * DAY_MS + 15 * MINUTE_MS)]
    assert plan_range(*long_ago, "auto", 1000, NOW_MS, kept).tier.name == "1s"


def test_a_named_resolution_is_taken_with_its_own_step_from_the_bucket_that_the_range_begins_in() -> None:
    plan = plan_range("3599999", "7200001", "1h", 1, NOW_MS, KEPT)
    assert (plan.tier.name, plan.step_ms, plan.start_ms, plan.end_ms) == ("1h", HOUR_MS, 0, 7_200_001)
    assert not plan.is_merged
    raw = plan_range("3599999", "7200001", "raw", 1, NOW_MS, KEPT)
    assert (raw.tier, raw.step_ms, raw.start_ms) == (RAW, 0, 3_599_999)


def test_the_hour_until_now_is_meant_where_no_time_is_given() -> None:
    plan = plan_range(None, None, "raw", 1000, NOW_MS, KEPT)
    assert (plan.start_ms, plan.end_ms) == (NOW_MS - HOUR_MS, NOW_MS)
    assert plan_range(None, "1000", "raw", 1000, NOW_MS, KEPT).start_ms == 0


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("0", 0),
        ("1764000000123", 1_764_000_000_123),
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01T02:00:01.5+02:00", 1500),
        ("2200-01-01T00:00Z", TIME_MAX_MS),
    ],
)
def test_times_are_numbers_or_iso_8601(text: str, time_ms: int) -> None:
    assert parse_time(text, "from") == time_ms


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "neither"),
        ("yesterday", "neither"),
        ("-5", "neither"),
        ("١٢٣", "neither"),
        ("9" * 40, "neither"),
        ("1970-01-01T02:00:01 02:00", "neither"),
        ("2026-11-24T10:00:00", "offset"),
        ("2026-11-24", "offset"),
        ("1969-12-31T23:59:59Z", "between"),
        ("9999-12-31T23:59:59Z", "between"),
        ("0001-01-01T00:00:00+14:00", "between"),
        ("99999999999999", "between"),
    ],
)
def test_other_times_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(PlanError, match=f"from .*{reason}"):
        parse_time(text, "from")


@pytest.mark.parametrize(
    ("start", "end", "resolution", "reason"),
    [
        ("5", "5", "auto", "before"),
        ("6", "5", "raw", "before"),
        ("0", "5", "2m", "none of auto, raw, 1s"),
        ("0", str(32 * DAY_MS), "1s", "31 days"),
        ("0", str(32 * DAY_MS), "raw", "31 days"),
    ],
)
def test_ranges_without_an_answer_are_refused(start: str, end: str, resolution: str, reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        plan_range(start, end, resolution, 1000, NOW_MS, KEPT)


times = st.integers(0, TIME_MAX_MS - 1)


@given(times, times, st.integers(1, 10_000), times)
def test_an_automatic_choice_keeps_its_bounds(start_ms: int, end_ms: int, points: int, now_ms: int) -> None:
    if start_ms >= end_ms:
        start_ms, end_ms = end_ms, start_ms + 1
    plan = plan_range(str(start_ms), str(end_ms), "auto", points, now_ms, KEPT)
    assert plan.start_ms <= start_ms < plan.end_ms
    assert plan.end_ms == end_ms
    if plan.tier is RAW:
        assert plan.step_ms == 0
        return
    assert plan.start_ms > start_ms - plan.step_ms
    assert plan.start_ms % plan.step_ms == 0
    assert plan.step_ms in STEPS_MS
    assert plan.step_ms // plan.tier.step_ms <= ROWS_PER_POINT_MAX
    assert end_ms - start_ms <= RANGE_MAX_MS[plan.tier.name]
    if plan.step_ms < DAY_MS:
        assert -(-(plan.end_ms - plan.start_ms) // plan.step_ms) <= points
    kept_ms = KEPT[plan.tier.name]
    assert kept_ms is None or plan.start_ms >= now_ms - kept_ms


@given(times, times, st.sampled_from(RESOLUTIONS), st.integers(1, 10_000), times)
def test_a_cursor_gives_the_rest_of_its_plan(
    start_ms: int, end_ms: int, resolution: str, points: int, now_ms: int
) -> None:
    try:
        plan = plan_range(str(start_ms), str(end_ms), resolution, points, now_ms, KEPT)
    except PlanError:
        return
    assert plan_from_cursor(plan.cursor(plan.start_ms)) == plan
    next_ms = plan.start_ms + max(1, plan.step_ms)
    if next_ms < plan.end_ms:
        rest = plan_from_cursor(plan.cursor(next_ms))
        assert (rest.tier, rest.step_ms, rest.start_ms, rest.end_ms) == (
            plan.tier,
            plan.step_ms,
            next_ms,
            plan.end_ms,
        )


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "1m",
        "1m.60000.0",
        "1m.60000.0.60000.1",
        "2m.60000.0.60000",
        "1m.-60000.0.60000",
        "1m.6e4.0.60000",
        "1m.0.0.60000",
        "1m.61000.0.60000",
        "1m.86400000.0.86400000",
        "1s.60000.0.60000",
        "raw.1000.0.60000",
        "1m.60000.60000.60000",
        "1m.60000.30000.60000",
        f"1s.1000.0.{40 * DAY_MS}",
        "1d.86400000.0.99999999999999",
        "1m.60000.0." + "9" * 50,
        "1m.60000.٠.60000",
    ],
)
def test_a_cursor_of_another_origin_is_refused(cursor: str) -> None:
    with pytest.raises(PlanError, match="cursor"):
        plan_from_cursor(cursor)


odd_times = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"[0-9]{1,5}-[0-9]{2}-[0-9]{2}([T ][0-9:.,]{0,20})?(Z|[+-][0-9:]{0,9})?", fullmatch=True),
)


@given(odd_times)
def test_any_text_is_a_time_in_range_or_refused(text: str) -> None:
    try:
        time_ms = parse_time(text, "from")
    except PlanError:
        return
    assert 0 <= time_ms <= TIME_MAX_MS


@given(st.one_of(st.text(max_size=60), st.from_regex(r"(raw|1[smhd])(\.[0-9]{1,16}){3}", fullmatch=True)))
def test_any_text_is_a_cursor_within_bounds_or_refused(text: str) -> None:
    try:
        plan = plan_from_cursor(text)
    except PlanError:
        return
    assert 0 <= plan.start_ms < plan.end_ms <= TIME_MAX_MS
    assert plan.end_ms - plan.start_ms <= RANGE_MAX_MS[plan.tier.name]
    assert plan.cursor(plan.start_ms) == ".".join(str(int(w)) if w.isdigit() else w for w in text.split("."))

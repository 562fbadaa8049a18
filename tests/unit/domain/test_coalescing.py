"""Live values: the newest wins, nothing is lost, one message per interval."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from plantwire.domain import coalescing
from plantwire.domain.coalescing import NOTHING, due_ms, merge, shown
from plantwire.schemas.records import QUALITY_BAD, QUALITY_GOOD, QUALITY_STALE


def metrics(at_ms: int | None = None, quality: int = QUALITY_GOOD, **values: float | str | None) -> Any:
    return [
        {
            "name": name,
            "number": value if isinstance(value, float) else None,
            "text": value if isinstance(value, str) else None,
            "quality": quality,
            "event_time_ms": at_ms,
        }
        for name, value in values.items()
    ]


def test_the_first_frame_after_silence_is_due_at_once() -> None:
    pending, late = merge(NOTHING, metrics(a=1.0), 5)
    assert late == 0
    assert due_ms(pending, 1000) == 1000 + NOTHING.shown_ms


def test_values_merge_and_the_newest_wins() -> None:
    pending, _ = merge(NOTHING, metrics(a=1.0, b="on"), 5)
    pending, late = merge(pending, metrics(a=2.0), 7)
    assert late == 0
    pending, late = merge(pending, metrics(a=3.0, c=4.0), 6)
    assert late == 1
    assert pending.values == {"a": 2.0, "b": "on", "c": 4.0}
    assert pending.timestamp_ms == 7


def test_what_was_shown_is_not_held_back_any_more() -> None:
    pending, _ = merge(NOTHING, metrics(a=1.0), 5)
    pending = shown(pending, 100)
    assert due_ms(pending, 1000) is None
    pending, late = merge(pending, metrics(a=0.0), 4)
    assert (late, pending.values) == (1, {})
    pending, _ = merge(pending, metrics(a=2.0), 6)
    assert due_ms(pending, 1000) == 1100


def test_what_is_not_good_is_told_until_it_is_good_again() -> None:
    pending, _ = merge(NOTHING, metrics(quality=QUALITY_STALE, a=1.0), 5)
    assert (pending.values, pending.qualities) == ({"a": 1.0}, {"a": QUALITY_STALE})
    pending, _ = merge(pending, metrics(a=2.0), 6)
    assert (pending.values, pending.qualities) == ({"a": 2.0}, {})


def test_a_metric_without_a_value_is_known_to_be_unknown() -> None:
    pending, _ = merge(NOTHING, metrics(a=1.0, b=2.0), 5)
    pending, _ = merge(pending, metrics(a=None), 6)
    assert (pending.values, pending.qualities) == ({"b": 2.0}, {"a": QUALITY_BAD})
    alone, _ = merge(NOTHING, metrics(quality=QUALITY_STALE, a=None), 5)
    assert (alone.values, alone.qualities) == ({}, {"a": QUALITY_STALE})
    assert due_ms(alone, 1000) is not None
    assert shown(alone, 6).qualities == {}


def test_history_shows_only_what_is_newer_than_the_last_live_value() -> None:
    pending, _ = merge(NOTHING, metrics(a=1.0), 5)
    pending = shown(pending, 100)
    for at_ms in (4, 5):
        after, left_out = merge(pending, metrics(a=2.0, never_live=3.0), at_ms, historical=True)
        assert (after, left_out) == (pending, 0)
    after, _ = merge(pending, metrics(quality=QUALITY_STALE, a=2.0, never_live=3.0), 6, historical=True)
    assert (after.values, after.qualities) == ({"a": 2.0}, {"a": QUALITY_STALE})


def test_a_device_that_makes_up_names_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(coalescing, "METRICS_PER_DEVICE_MAX", 2)
    pending, left_out = merge(NOTHING, metrics(a=1.0, b=2.0, c=3.0), 5)
    assert (set(pending.values), left_out) == ({"a", "b"}, 1)
    pending, left_out = merge(pending, metrics(a=4.0, d=5.0), 6)
    assert (pending.values, left_out) == ({"a": 4.0, "b": 2.0}, 1)


@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from("abc"), st.floats(0, 1)), min_size=1))
def test_the_newest_value_of_each_metric_is_what_is_left(arrivals: list[tuple[int, str, float]]) -> None:
    pending = NOTHING
    for at_ms, name, value in arrivals:
        pending, _ = merge(pending, metrics(**{name: value}), at_ms)
    expected: dict[str, tuple[int, float]] = {}
    for at_ms, name, value in arrivals:
        if at_ms >= expected.get(name, (0, 0.0))[0]:
            expected[name] = (at_ms, value)
    assert pending.values == {name: value for name, (_, value) in expected.items()}

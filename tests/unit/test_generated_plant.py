"""What the truth tests stand on: a plant that has what goes wrong in plants, and an oracle that says so."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pandas as pd
import pytest

from plantwire.schemas.records import Metric, TelemetryFrame
from tests.truth.generated_plant import HOUR, plant
from tests.truth.odd_records import ODDITIES, Sent
from tests.truth.offline_tables import offline
from tests.truth.plant_hazards import DAY_MS, HOUR_MS, KINDS
from tests.truth.stored_tables import assert_same

AT_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def hour() -> list[Sent]:
    return plant(HOUR, seed=5)


def test_the_same_seed_makes_the_same_plant(hour: list[Sent]) -> None:
    assert repr(plant(HOUR, seed=5)) == repr(hour)
    assert repr(plant(HOUR, seed=6)) != repr(hour)


def test_there_is_a_device_of_every_kind() -> None:
    assert HOUR.devices == len(KINDS) + 1


def test_time_goes_wrong_in_every_way(hour: list[Sent]) -> None:
    frames = [sent.frame for sent in hour if sent.frame is not None]
    by_device: dict[str, list[TelemetryFrame]] = {}
    for frame in frames:
        by_device.setdefault(frame.device_id, []).append(frame)
    late_ms = [f.received_time_ms - f.event_time_ms for f in frames if not f.historical]
    found = Counter(
        backwards=sum(
            b.event_time_ms < a.event_time_ms for of in by_device.values() for a, b in pairwise(of)
        ),
        doubled=sum(len(of) - len({f.event_time_ms for f in of}) for of in by_device.values()),
        historical=sum(f.historical for f in frames),
        minutes_late=sum(60_000 < one < HOUR_MS for one in late_ms),
        months_late=sum(100 * DAY_MS < one < 300 * DAY_MS for one in late_ms),
        in_1970=sum(0 <= f.event_time_ms < DAY_MS for f in frames),
        before_1970=sum(f.event_time_ms < 0 for f in frames),
        a_little_ahead=sum(-120_000 <= one < -60_000 for one in late_ms),
        just_too_far_ahead=sum(one == -120_001 for one in late_ms),
        an_hour_ahead=sum(-HOUR_MS - 1000 < one < -HOUR_MS + 1000 for one in late_ms),
        a_year_ahead=sum(one < -365 * DAY_MS for one in late_ms),
        on_an_edge=sum(f.event_time_ms % 60_000 == 0 for f in frames),
        before_an_edge=sum(f.event_time_ms % 60_000 == 59_999 for f in frames),
    )
    assert all(count >= 2 for count in found.values()), found
    assert len(hour) - len(frames) >= 10
    odd = by_device["press-009"]
    assert sum(place % 2 for place in range(len(odd))) > 3 * len(ODDITIES)


def test_the_first_of_two_samples_stays_and_only_good_numbers_are_in_tiers() -> None:
    metrics = [
        Metric("a", 3.0),
        Metric("a", 100.0),
        Metric("a", 5.0, event_time_ms=AT_MS + 999),
        Metric("a", 7.0, event_time_ms=AT_MS + 1000),
        Metric("a", 100.0, quality=0, event_time_ms=AT_MS + 1),
        Metric("a", 100.0, event_time_ms=AT_MS + 200_000),
        Metric("a", 1.1e300, event_time_ms=AT_MS + 2),
        Metric("b", text="on"),
        Metric("c", float("nan")),
    ]
    frame = TelemetryFrame("d", "", None, AT_MS, AT_MS, "http", False, tuple(metrics))
    records = [Sent(0, "d", frame), Sent(1, "d", frame), Sent(2, "e", frame), Sent(3, "d", None, b"")]
    found = offline(records)
    assert found.dead == 2
    assert len(found.tables["device_telemetry"]) == 6
    assert found.tables["telemetry_1s"].to_dict("records") == [
        _row(AT_MS, avg=4.0, min=3.0, max=5.0, sum=8.0, count=2),
        _row(AT_MS + 1000, avg=7.0, min=7.0, max=7.0, sum=7.0, count=1),
    ]
    day_ms = AT_MS // DAY_MS * DAY_MS
    assert found.tables["telemetry_1d"].to_dict("records") == [
        _row(day_ms, avg=5.0, min=3.0, max=7.0, sum=15.0, count=3)
    ]


@pytest.mark.parametrize(
    ("changed", "column"),
    [({"count": 3}, "count"), ({"sum": 8.0 + 1e-7}, "sum"), ({"min": 2.9}, "min"), ({"time_ms": 0}, "rows")],
)
def test_a_row_that_differs_is_told(changed: dict[str, float], column: str) -> None:
    row = _row(AT_MS, avg=4.0, min=3.0, max=5.0, sum=8.0, count=2)
    expected = pd.DataFrame([row])
    assert_same("t", pd.DataFrame([row | {"sum": 8.0 + 1e-9}]), expected)
    with pytest.raises(AssertionError, match=f"t: .*{column}"):
        assert_same("t", pd.DataFrame([row | changed]), expected)


def _row(at_ms: int, **values: float) -> dict[str, object]:
    return {"device_id": "d", "metric": "a", "time_ms": at_ms, **values}

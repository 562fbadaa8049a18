"""What the tables must hold, computed by pandas from the records alone, as docs/storage.md says it.

In: records in the order of the topic. Out: rows of `device_telemetry` and of every tier; how many records are
dead letters.
Guarantees: nothing here comes from the storage's code or SQL. Tiers are computed from the raw samples, not
from each other.
Not here: rows as a database has them (`stored_tables`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from plantwire.schemas.records import Metric, TelemetryFrame
from tests.truth.odd_records import TRANSIENT, Sent

TIERS = {
    "telemetry_1s": 1_000,
    "telemetry_1m": 60_000,
    "telemetry_1h": 3_600_000,
    "telemetry_1d": 86_400_000,
}
GOOD = 192
SMALLEST, LARGEST = 1e-200, 1e300
AHEAD_MS = 120_000
YEAR_2200_MS = 7_258_118_400_000
KEY = ["device_id", "metric", "time_ms"]
RAW_COLUMNS = [*KEY, "number", "text", "quality"]
TIER_COLUMNS = [*KEY, "avg", "min", "max", "sum", "count"]
_DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}\Z")


class Offline(NamedTuple):
    """Rows by table, sorted by their keys; `time_ms` is the bucket in a tier. `dead` counts records."""

    tables: dict[str, pd.DataFrame]
    dead: int


def offline(records: Iterable[Sent]) -> Offline:
    """The truth about `records`."""
    rows: list[tuple[str, str, int, float | None, str | None, int]] = []
    dead = 0
    for sent in records:
        if sent.frame is None or not _is_stored(sent, sent.frame):
            dead += 1
        elif sent.frame.protocol != TRANSIENT:
            rows += _samples(sent.frame)
    raw = pd.DataFrame(rows, columns=RAW_COLUMNS).astype({"number": "float64"})
    raw = raw.drop_duplicates(KEY, keep="first")
    size = raw["number"].abs()
    good = raw[(raw["quality"] == GOOD) & ((size == 0) | ((size >= SMALLEST) & (size <= LARGEST)))]
    tables = {"device_telemetry": raw.sort_values(KEY, ignore_index=True)}
    for name, step_ms in TIERS.items():
        tables[name] = _tier(good, step_ms)
    return Offline(tables, dead)


def _tier(good: pd.DataFrame, step_ms: int) -> pd.DataFrame:
    bucket = good["time_ms"] // step_ms * step_ms
    groups = good.assign(time_ms=bucket).groupby(KEY, sort=True)["number"]
    tier = groups.agg(["min", "max", "sum", "count"]).reset_index()
    tier["avg"] = tier["sum"] / tier["count"]
    return tier[TIER_COLUMNS]


def _is_stored(sent: Sent, frame: TelemetryFrame) -> bool:
    return (
        _DEVICE_ID.match(frame.device_id) is not None
        and sent.key == frame.device_id
        and 0 <= frame.received_time_ms <= YEAR_2200_MS
    )


def _samples(
    frame: TelemetryFrame,
) -> Iterable[tuple[str, str, int, float | None, str | None, int]]:
    latest_ms = frame.received_time_ms + AHEAD_MS
    for metric in frame.metrics:
        at_ms = frame.event_time_ms if metric.event_time_ms is None else metric.event_time_ms
        if 0 <= at_ms <= latest_ms and _is_sample(metric):
            yield frame.device_id, metric.name, at_ms, metric.number, metric.text, metric.quality


def _is_sample(metric: Metric) -> bool:
    return (
        metric.name.isprintable()
        and 0 < len(metric.name) <= 256
        and (metric.number is None or bool(np.isfinite(metric.number)))
        and (metric.text is None or "\0" not in metric.text)
    )

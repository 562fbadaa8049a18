"""What the tiers must hold, computed in plain Python from samples in the order of the topic."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import QUALITY_GOOD, Metric, TelemetryFrame
from plantwire.storage.batch import Record

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
TIERS = {
    "telemetry_1s": SECOND_MS,
    "telemetry_1m": MINUTE_MS,
    "telemetry_1h": HOUR_MS,
    "telemetry_1d": DAY_MS,
}
# The clocks of Central Europe go back at 01:00 UTC of this day: 02:30 comes twice there, and never here.
CHANGE_OF_CLOCKS_MS = int(datetime(2026, 10, 25, tzinfo=UTC).timestamp() * 1000)


class Sample(NamedTuple):
    """One number of one metric."""

    device_id: str
    metric: str
    at_ms: int
    number: float
    quality: int = QUALITY_GOOD


class Aggregate(NamedTuple):
    """A row of a tier without its key."""

    avg: float
    min: float
    max: float
    sum: float
    count: int


Series = dict[tuple[str, str, int], Aggregate]


def tiers(samples: Iterable[Sample]) -> dict[str, Series]:
    """Every row of every tier; (device, metric, bucket in ms) → aggregate."""
    first: dict[tuple[str, str, int], Sample] = {}
    for sample in samples:
        first.setdefault((sample.device_id, sample.metric, sample.at_ms), sample)
    rows: Series = {
        key: Aggregate(s.number, s.number, s.number, s.number, 1)
        for key, s in first.items()
        if s.quality == QUALITY_GOOD
    }
    found = {}
    for name, width_ms in TIERS.items():
        rows = _tier(rows, width_ms)
        found[name] = rows
    return found


def _tier(below: Series, width_ms: int) -> Series:
    groups: dict[tuple[str, str, int], list[Aggregate]] = {}
    for device_id, metric, at_ms in sorted(below):
        key = (device_id, metric, at_ms // width_ms * width_ms)
        groups.setdefault(key, []).append(below[device_id, metric, at_ms])
    return {key: _merged(group) for key, group in groups.items()}


def _merged(group: list[Aggregate]) -> Aggregate:
    total, count = group[0].sum, group[0].count
    for one in group[1:]:
        total, count = total + one.sum, count + one.count
    return Aggregate(
        total / count, min(one.min for one in group), max(one.max for one in group), total, count
    )


def frame(device_id: str, at_ms: int, *metrics: Metric, **changes: object) -> TelemetryFrame:
    """A frame that the gateway received 5 ms after its time."""
    fields: dict[str, object] = {
        "device_id": device_id,
        "site": "hall-1",
        "sequence": None,
        "event_time_ms": at_ms,
        "received_time_ms": at_ms + 5,
        "protocol": "http",
        "historical": False,
        "metrics": metrics,
    }
    return TelemetryFrame(**(fields | changes))  # type: ignore[arg-type]


def record(made: TelemetryFrame | bytes, offset: int = 0, key: str | None = None) -> Record:
    """A frame, or bytes, as Kafka has it in partition 0."""
    body = made if isinstance(made, bytes) else FRAME_CODEC.encode(made)
    name = key if key is not None else "" if isinstance(made, bytes) else made.device_id
    return Record(0, offset, name.encode(), body)


def samples_of(frames: Iterable[TelemetryFrame]) -> list[Sample]:
    """The numbers in frames, in order."""
    return [
        Sample(f.device_id, m.name, m.event_time_ms or f.event_time_ms, m.number, m.quality)
        for f in frames
        for m in f.metrics
        if m.number is not None
    ]


def plant(seed: int, devices: int = 6) -> list[TelemetryFrame]:
    """A day of a plant: gaps, a backlog, a clock that jumps, disorder, duplicates, bad quality."""
    rng = random.Random(seed)
    frames: list[TelemetryFrame] = []
    for device in range(devices):
        at_ms = CHANGE_OF_CLOCKS_MS + rng.randrange(1000)
        while at_ms < CHANGE_OF_CLOCKS_MS + DAY_MS:
            metrics = [
                Metric("temperature", rng.gauss(20, 5), quality=rng.choice((192, 192, 192, 0))),
                Metric("pressure", rng.uniform(-1e9, 1e9)),
                Metric("mode", text=rng.choice("ab")),
            ]
            frames.append(frame(f"press-{device}", at_ms, *metrics))
            burst = rng.random() < 0.6
            at_ms += rng.randrange(100, 900) if burst else rng.randrange(60_000, 2 * HOUR_MS)
    frames += [frame("press-0", f.event_time_ms - 5 * DAY_MS, *f.metrics) for f in frames[:40]]
    jumped = [f for f in frames if f.device_id == "press-1"][10:20]
    frames += [frame("press-1", f.event_time_ms + 400 * DAY_MS, *f.metrics) for f in jumped]
    # A duplicate with other numbers: the first stays.
    frames += [frame(f.device_id, f.event_time_ms, Metric("pressure", 0.0)) for f in rng.sample(frames, 60)]
    order = sorted(range(len(frames)), key=lambda n: n + rng.choice((0, 0, 0, 40, -300)))
    return [frames[n] for n in order]

"""A plant's time, generated: every record that reaches the topic, in its order.

In: a stretch of time and a seed. Out: records (`odd_records.Sent`).
Guarantees: the same seed gives the same records. Devices are of ten kinds, in turns: one for each way in
which time goes wrong (`plant_hazards.KINDS`), and one that also sends what is odd (`odd_records`).
Not here: what follows from the records (`offline_tables`), sending them (`pipeline`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime

from plantwire.schemas.records import QUALITY_GOOD, Metric, TelemetryFrame
from tests.truth.odd_records import Sent, odd
from tests.truth.plant_hazards import DAY_MS, HOUR_MS, KINDS, Delivery, Stretch, moments, steady

METRICS: dict[str, Callable[[random.Random], float]] = {
    "temperature": lambda rng: rng.gauss(20, 5),
    "pressure": lambda rng: rng.uniform(-1e9, 1e9),
    "level": lambda rng: rng.randrange(1000) / 7,
    "running": lambda rng: float(rng.random() < 0.8),
    "Öldruck/bar": lambda rng: rng.lognormvariate(0, 8),
}
BAD_QUALITIES = (0, 500, 193)


def _utc_ms(*day: int) -> int:
    return int(datetime(*day, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type, misc]


# Clocks go back at 01:00 UTC of this day: the wall's has 25 hours, and one of them twice.
DAY = Stretch(_utc_ms(2025, 10, 26), DAY_MS, devices=100, slow_ms=60_000, bursts=24, burst_frames=70)
# Clocks go forward in the middle of this hour.
HOUR = Stretch(_utc_ms(2025, 3, 30, 0, 30), HOUR_MS, devices=10, slow_ms=5_000, bursts=3, burst_frames=60)


def plant(stretch: Stretch, seed: int) -> list[Sent]:
    """All records of all devices, in the order of the topic."""
    records = [sent for number in range(stretch.devices) for sent in _device(stretch, number, seed)]
    return sorted(records, key=lambda sent: sent.at_ms)


def _device(stretch: Stretch, number: int, seed: int) -> list[Sent]:
    rng = random.Random(f"{seed}:{number}")
    device_id = f"press-{number:03}"
    true = moments(stretch, rng)
    values = {at_ms: _metrics(rng) for at_ms in true}
    kind = number % (len(KINDS) + 1)
    deliver = KINDS[kind] if kind < len(KINDS) else steady
    found = []
    for delivery in deliver(true, stretch, rng):
        metrics = _other(rng) if delivery.changed else values[delivery.true_ms]
        frame = _frame(device_id, delivery, metrics)
        found.append(Sent(delivery.at_ms, device_id, frame))
    if deliver is steady and kind == len(KINDS):
        found = [odd(sent, place // 2, rng) if place % 2 else sent for place, sent in enumerate(found)]
    return found


def _frame(device_id: str, delivery: Delivery, metrics: tuple[Metric, ...]) -> TelemetryFrame:
    return TelemetryFrame(
        device_id=device_id,
        site="hall-1",
        sequence=None,
        event_time_ms=delivery.claimed_ms,
        received_time_ms=delivery.received_ms,
        protocol="http",
        historical=delivery.historical,
        metrics=metrics,
        gateway_in_us=delivery.received_ms * 1000,
    )


def _metrics(rng: random.Random) -> tuple[Metric, ...]:
    """All metrics, now and then one of them of bad quality or not there."""
    metrics = [Metric(name, value(rng)) for name, value in METRICS.items()]
    chance, place = rng.random(), rng.randrange(len(metrics))
    if chance < 0.03:
        metrics[place] = Metric(metrics[place].name, metrics[place].number, quality=rng.choice(BAD_QUALITIES))
    elif chance < 0.06:
        del metrics[place]
    return tuple(metrics)


def _other(rng: random.Random) -> tuple[Metric, ...]:
    """What a second frame of the same time may say: other values, fewer or further metrics."""
    metrics = [*_metrics(rng), Metric("afterwards", rng.random(), quality=QUALITY_GOOD)]
    return tuple(rng.sample(metrics, rng.randrange(1, len(metrics) + 1)))

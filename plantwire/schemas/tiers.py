"""The tiers of stored telemetry: their names, tables and steps.

In: nothing. Out: `RAW` and `TIERS`, finest first. A tier's rows are (device_id, metric, bucket, avg, min,
max, sum, count); a bucket is the start of its step, counted in UTC. Raw rows have `time`, `number`, `text`
and `quality` instead.
Not here: how the rows come about and how long they are kept (storage), which tier answers a question
(distribution).
"""

from __future__ import annotations

from typing import Final, NamedTuple

SECOND_MS: Final = 1000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS


class Tier(NamedTuple):
    """One resolution; raw samples have no step: `step_ms` 0."""

    name: str
    table: str
    step_ms: int


RAW: Final = Tier("raw", "device_telemetry", 0)
TIERS: Final = (
    RAW,
    Tier("1s", "telemetry_1s", SECOND_MS),
    Tier("1m", "telemetry_1m", MINUTE_MS),
    Tier("1h", "telemetry_1h", HOUR_MS),
    Tier("1d", "telemetry_1d", DAY_MS),
)
TIER_BY_NAME: Final = {tier.name: tier for tier in TIERS}

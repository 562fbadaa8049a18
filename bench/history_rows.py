"""A year of telemetry in the tiers, made by the database itself.

In: a connection to an empty database. Out: its tables, filled; how much is in them.
Guarantees: each series has what one sample a second comes to: in the 1 s tier for a day, in the 1 min tier
for 31 days, in the 1 h tier for a year, in the 1 d tier for two. With TimescaleDB, whose upper tiers make
themselves, the 1 s tier holds a row a minute for the year before that day instead, each for 60 samples.
Not here: asking (`bench.history`).
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from plantwire.schemas.tiers import DAY_MS, TIER_BY_NAME
from plantwire.storage.migration import Variant, migrate, require_current

METRICS_PER_DEVICE: Final = 10
YEAR_MS: Final = 366 * DAY_MS
# Tier → for how long before now it has rows.
_PLAIN: Final = {"1s": DAY_MS, "1m": 31 * DAY_MS, "1h": YEAR_MS, "1d": 2 * YEAR_MS}

# A wave with a phase of its own for each series; `samples` of them make a row.
_INSERT: Final = sql.SQL("""
INSERT INTO {table} (device_id, metric, bucket, avg, min, max, sum, count)
SELECT %(device)s, %(metric)s, bucket, level, level - 1, level + 1, level * %(samples)s, %(samples)s
FROM (SELECT bucket, 50 + 20 * sin(date_part('epoch', bucket) / 5000 + %(phase)s) AS level
      FROM generate_series(to_timestamp(%(start)s), to_timestamp(%(end)s), %(step)s * interval '1 second')
          AS bucket) AS wave
""")


class Filled(msgspec.Struct, frozen=True):
    """What is in the tiers."""

    variant: str
    server: str
    series: int
    rows: int
    raw_equivalent: int
    """Samples that the rows of one tier alone stand for: of the 1 h tier, which has the whole year."""
    until_ms: int
    took_s: float


def series_name(number: int) -> tuple[str, str]:
    """Device and metric of a series."""
    return f"machine-{number // METRICS_PER_DEVICE}", f"metric-{number % METRICS_PER_DEVICE}"


def fill(connection: psycopg.Connection[tuple[Any, ...]], series: int, now_ms: int) -> Filled:
    """Make the tables and fill them up to `now_ms`; `connection` is in autocommit mode."""
    began_s = time.perf_counter()
    migrate(connection)
    variant = require_current(connection)
    until_s = now_ms // 60_000 * 60
    for number in range(series):
        if variant is Variant.POSTGRESQL:
            for tier, kept_ms in _PLAIN.items():
                step_s = TIER_BY_NAME[tier].step_ms // 1000
                _insert(connection, number, tier, until_s - kept_ms // 1000, until_s, step_s, step_s)
        else:
            day_s = until_s - DAY_MS // 1000
            _insert(connection, number, "1s", day_s - YEAR_MS // 1000, day_s - 60, 60, 60)
            _insert(connection, number, "1s", day_s, until_s, 1, 1)
    if variant is Variant.TIMESCALEDB:
        for tier in ("1m", "1h", "1d"):
            connection.execute(f"CALL refresh_continuous_aggregate('telemetry_{tier}', NULL, NULL)".encode())
    for tier in _PLAIN:
        table = sql.Identifier(TIER_BY_NAME[tier].table)
        if variant is Variant.POSTGRESQL or tier == "1s":
            connection.execute(sql.SQL("ANALYZE {}").format(table))
    rows = sum(_one(connection, "SELECT count(*) FROM {}", tier) for tier in _PLAIN)
    samples = _one(connection, "SELECT sum(count)::bigint FROM {}", "1h")
    took_s = round(time.perf_counter() - began_s, 1)
    server = str(connection.info.parameter_status("server_version"))
    return Filled(variant.value, server, series, rows, samples, until_s * 1000, took_s)


def _insert(
    connection: psycopg.Connection[tuple[Any, ...]],
    number: int,
    tier: str,
    start_s: int,
    end_s: int,
    step_s: int,
    samples: int,
) -> None:
    device, metric = series_name(number)
    values = {
        "device": device,
        "metric": metric,
        "phase": number,
        "samples": samples,
        "start": start_s // step_s * step_s,
        "end": end_s,
        "step": step_s,
    }
    connection.execute(_INSERT.format(table=sql.Identifier(TIER_BY_NAME[tier].table)), values)


def _one(connection: psycopg.Connection[tuple[Any, ...]], query: str, tier: str) -> int:
    asked = sql.SQL(query).format(sql.Identifier(TIER_BY_NAME[tier].table))
    row = connection.execute(asked).fetchone()
    assert row is not None
    return int(row[0])

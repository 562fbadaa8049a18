"""The tiers above 1 s in a database without TimescaleDB: dirty buckets are computed anew from the tier below.

In: marks in `telemetry_stale`. Out: rows of `telemetry_1m`, `telemetry_1h`, `telemetry_1d`.
Guarantees: a mark goes in the statement that reads what it marked, so no change is missed: what a writer
commits later has marks of its own. Averages are weighted by count. Sums are taken in the order of time.
One process at a time (an advisory lock).
Not here: when (`upkeep`), what is taken away (`retention`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from plantwire.storage.migration import Connection

LOCK: Final = 0x706C616E74726F6C
MARKS_PER_STEP: Final = 2_000


class Rollup(NamedTuple):
    """A tier, the one that it is computed from, and the one that is computed from it."""

    tier: str
    below: str
    bucket: str
    above: str | None
    above_bucket: str


ROLLUPS: Final = (
    Rollup("telemetry_1m", "telemetry_1s", "1 minute", "telemetry_1h", "1 hour"),
    Rollup("telemetry_1h", "telemetry_1m", "1 hour", "telemetry_1d", "1 day"),
    Rollup("telemetry_1d", "telemetry_1h", "1 day", None, ""),
)

_STEP: Final = """
WITH taken AS (
    DELETE FROM telemetry_stale
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM telemetry_stale WHERE tier = '{tier}' LIMIT {limit}))
    RETURNING device_id, metrics, bucket
),
keys AS MATERIALIZED (
    SELECT DISTINCT device_id, metric, bucket FROM taken CROSS JOIN LATERAL unnest(metrics) AS metric
),
computed AS (
    INSERT INTO {tier} (device_id, metric, bucket, avg, min, max, sum, count)
    SELECT k.device_id, k.metric, k.bucket, s.sum / s.count, s.min, s.max, s.sum, s.count
    FROM keys k CROSS JOIN LATERAL (
        SELECT min(b.min) AS min, max(b.max) AS max, sum(b.sum ORDER BY b.bucket) AS sum,
               sum(b.count)::bigint AS count
        FROM {below} b
        WHERE b.device_id = k.device_id AND b.metric = k.metric
          AND b.bucket >= k.bucket AND b.bucket < k.bucket + INTERVAL '{bucket}'
    ) s
    WHERE s.count IS NOT NULL
    ON CONFLICT (device_id, metric, bucket) DO UPDATE
    SET avg = excluded.avg, min = excluded.min, max = excluded.max, sum = excluded.sum, count = excluded.count
    RETURNING device_id, metric, bucket
){mark}
SELECT (SELECT count(*) FROM taken), (SELECT count(*) FROM computed)
"""
_MARK: Final = """,
marked AS (
    INSERT INTO telemetry_stale (tier, device_id, metrics, bucket)
    SELECT '{above}', device_id, array_agg(DISTINCT metric),
           date_bin('{above_bucket}', bucket, timestamptz 'epoch')
    FROM computed GROUP BY device_id, date_bin('{above_bucket}', bucket, timestamptz 'epoch')
)"""


def roll_up(connection: Connection, rollup: Rollup, marks: int = MARKS_PER_STEP) -> tuple[int, int]:
    """One step of one tier, a transaction of its own: (marks taken, buckets computed).

    Fewer marks than asked for means that none are left. Raises psycopg.Error.
    """
    with connection.transaction():
        taken = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (LOCK,)).fetchone()
        if taken is None or not taken[0]:
            return 0, 0  # another process is at it
        answer = connection.execute(statement(rollup, marks).encode()).fetchone()
    return (answer[0], answer[1]) if answer is not None else (0, 0)


def statement(rollup: Rollup, marks: int) -> str:
    """The SQL of one step."""
    mark = "" if rollup.above is None else _MARK.format(**rollup._asdict())
    return _STEP.format(**rollup._asdict(), limit=int(marks), mark=mark)

"""The SQL of the write path, spelt once. Pure.

In: the database's variant. Out: statements.
Guarantees: the same samples give the same rows, bit for bit, in whatever batches and order they came: a sum
is always taken over all good samples of its second, in the order of their times.
Not here: when they run (`tables`), the tiers above 1 s (`rollups`, migrations).
"""

from __future__ import annotations

from typing import Final

from plantwire.schemas.records import QUALITY_GOOD
from plantwire.storage.migration import Variant

# Beyond these bounds a sum may overflow, or an average underflow, which PostgreSQL takes for errors: one such
# number would end the refresh of a tier for every device. They stay in the raw table.
GOOD: Final = (
    f"quality = {QUALITY_GOOD} AND (number = 0 OR abs(number) BETWEEN 1e-200::float8 AND 1e300::float8)"
)
SECOND: Final = "date_bin('1 second', time, timestamptz 'epoch')"
MINUTE: Final = "date_bin('1 minute', bucket, timestamptz 'epoch')"
TIER_1M: Final = "telemetry_1m"

# COPY does not fill a table's pages in their order, so a plain scan may meet a later sample before an earlier
# one of the same key. `place` is numbered as rows come in.
STAGING: Final = """
CREATE TEMPORARY TABLE incoming (
    place     bigint GENERATED ALWAYS AS IDENTITY (CACHE 1000),
    device_id text COLLATE "C" NOT NULL,
    metric    text COLLATE "C" NOT NULL,
    time      timestamptz NOT NULL,
    number    double precision,
    text      text,
    quality   integer NOT NULL
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE reopened (
    device_id text COLLATE "C" NOT NULL,
    metric    text COLLATE "C" NOT NULL,
    bucket    timestamptz NOT NULL
) ON COMMIT DELETE ROWS
"""
_COPY: Final = "COPY {table} (device_id, metric, time, number, text, quality) FROM STDIN (FORMAT binary)"
COPY: Final = _COPY.format(table="incoming")
COPY_DIRECT: Final = _COPY.format(table="device_telemetry")
# Others with frames of the same partition wait here. Two processes have one partition only while Kafka moves
# it from the one to the other; then the second must see what the first wrote before it sums up a second.
LOCK_PARTITIONS: Final = "SELECT count(pg_advisory_xact_lock(1886152052, p)) FROM unnest(%s::int[]) AS p"

_MARK_STALE: Final = f"""
stale AS (
    INSERT INTO telemetry_stale (tier, device_id, metrics, bucket)
    SELECT '{TIER_1M}', device_id, array_agg(DISTINCT metric), {MINUTE} FROM seconds
    GROUP BY device_id, {MINUTE}
),"""  # noqa: S608 - no value from outside is in it

_FRESH: Final = """
fresh AS (
    INSERT INTO device_telemetry (device_id, metric, time, number, text, quality)
    SELECT device_id, metric, time, number, text, quality FROM incoming ORDER BY place
    ON CONFLICT DO NOTHING
    RETURNING device_id, metric, time, number, quality
),"""
# A second without a row has no good samples but those that came now, and so its row is made from them; for
# the others all samples of the second have to be read.
_STORE: Final = f"""
WITH {{fresh}}
seconds AS MATERIALIZED (
    SELECT device_id, metric, {SECOND} AS bucket, min(number) AS min, max(number) AS max,
           sum(number ORDER BY time) AS sum, count(*) AS count
    FROM {{source}} WHERE {GOOD}
    GROUP BY device_id, metric, {SECOND}
),{{mark_stale}}
whole AS (
    INSERT INTO telemetry_1s (device_id, metric, bucket, avg, min, max, sum, count)
    SELECT device_id, metric, bucket, sum / count, min, max, sum, count FROM seconds
    ON CONFLICT DO NOTHING
    RETURNING device_id, metric, bucket
),
again AS (
    INSERT INTO reopened (device_id, metric, bucket)
    SELECT device_id, metric, bucket FROM seconds
    EXCEPT ALL
    SELECT device_id, metric, bucket FROM whole
    RETURNING 1
)
SELECT (SELECT count(*) FROM {{source}}), (SELECT count(*) FROM whole), (SELECT count(*) FROM again)
"""  # noqa: S608 - no value from outside is in it

REOPEN: Final = f"""
INSERT INTO telemetry_1s (device_id, metric, bucket, avg, min, max, sum, count)
SELECT k.device_id, k.metric, k.bucket, s.sum / s.count, s.min, s.max, s.sum, s.count
FROM reopened k CROSS JOIN LATERAL (
    SELECT min(number) AS min, max(number) AS max, sum(number ORDER BY time) AS sum, count(*) AS count
    FROM device_telemetry r
    WHERE r.device_id = k.device_id AND r.metric = k.metric
      AND r.time >= k.bucket AND r.time < k.bucket + INTERVAL '1 second'
      AND r.time >= {{earliest}} AND r.time < {{latest}}
      AND {GOOD}
) s
ON CONFLICT (device_id, metric, bucket) DO UPDATE
SET avg = excluded.avg, min = excluded.min, max = excluded.max, sum = excluded.sum, count = excluded.count
"""  # noqa: S608 - no value from outside is in it
# The bounds are literals so that the planner leaves out the chunks of other times.

EXPIRED_BETWEEN: Final = "SELECT min(time), max(time) FROM incoming"
# What the raw table has came in time once, and is in the tiers: it is read again. Asked for row by row, by
# the key; a join would read whole days. The bounds are literals for the same reason as above.
STORE_EXPIRED: Final = """
INSERT INTO telemetry_expired (device_id, metric, time, number, text, quality)
SELECT i.device_id, i.metric, i.time, i.number, i.text, i.quality FROM incoming i
WHERE (
    SELECT count(*) FROM device_telemetry r
    WHERE r.device_id = i.device_id AND r.metric = i.metric AND r.time = i.time
      AND r.time >= {earliest} AND r.time <= {latest}
) = 0
ORDER BY i.place
ON CONFLICT DO NOTHING
"""


def store(variant: Variant, *, checked: bool) -> str:
    """Incoming → raw samples, new rows of the 1 s tier, and `reopened` for `REOPEN`.

    Where it is not `checked`, the raw samples are there already, by `COPY_DIRECT`.
    Answers (samples stored, seconds made, seconds reopened).
    """
    # TimescaleDB notes by itself what its aggregates have to compute anew.
    mark = _MARK_STALE if variant is Variant.POSTGRESQL else ""
    fresh, source = (_FRESH, "fresh") if checked else ("", "incoming")
    return _STORE.format(fresh=fresh, source=source, mark_stale=mark)

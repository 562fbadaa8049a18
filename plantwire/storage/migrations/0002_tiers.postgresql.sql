-- Without TimescaleDB the upper tiers are tables, recomputed bucket by bucket from the tier below (rollups.py).
-- They are no views over the 1 s table, because its retention would take away what they have to keep.

CREATE TABLE telemetry_1m (LIKE telemetry_1s INCLUDING ALL);
CREATE TABLE telemetry_1h (LIKE telemetry_1s INCLUDING ALL);
CREATE TABLE telemetry_1d (LIKE telemetry_1s INCLUDING ALL);

-- A second is written again with each batch that has samples of it: with room beside it no index is touched.
ALTER TABLE telemetry_1s SET (fillfactor = 70);

-- Small, since rows lie in the order of time: for the scheduled delete.
CREATE INDEX device_telemetry_time ON device_telemetry USING brin (time) WITH (pages_per_range = 32);
CREATE INDEX telemetry_1s_bucket ON telemetry_1s USING brin (bucket) WITH (pages_per_range = 32);
CREATE INDEX telemetry_1m_bucket ON telemetry_1m USING brin (bucket) WITH (pages_per_range = 32);
CREATE INDEX telemetry_1h_bucket ON telemetry_1h USING brin (bucket) WITH (pages_per_range = 32);

-- Buckets whose lower tier has changed since they were computed. Only appended to and deleted from: a row that
-- were shared between writer and rollup could be found by the one while the other takes it away.
CREATE TABLE telemetry_stale (
    tier      text COLLATE "C" NOT NULL,
    device_id text COLLATE "C" NOT NULL,
    metrics   text[] COLLATE "C" NOT NULL,
    bucket    timestamptz NOT NULL
);
CREATE INDEX telemetry_stale_tier ON telemetry_stale (tier);

-- Hypertables, and the upper tiers as continuous aggregates on top of each other, in UTC.
-- Sums are taken in the order of time, so that the same samples give the same bits whenever they are computed.
-- Policies (refresh, columnstore, retention) follow from settings: see policies.py.

SELECT create_hypertable('device_telemetry', by_range('time', INTERVAL '2 hours'), create_default_indexes => false);
SELECT create_hypertable('telemetry_1s', by_range('bucket', INTERVAL '6 hours'), create_default_indexes => false);

-- A second is written again with each batch that has samples of it: with room beside it no index is touched.
ALTER TABLE telemetry_1s SET (fillfactor = 50);

ALTER TABLE device_telemetry SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'device_id, metric',
    timescaledb.orderby = 'time'
);
ALTER TABLE telemetry_1s SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'device_id, metric',
    timescaledb.orderby = 'bucket'
);

CREATE MATERIALIZED VIEW telemetry_1m
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT s.device_id, s.metric, time_bucket(INTERVAL '1 minute', s.bucket) AS bucket,
       sum(s.sum ORDER BY s.bucket) / sum(s.count)::double precision AS avg,
       min(s.min) AS min, max(s.max) AS max,
       sum(s.sum ORDER BY s.bucket) AS sum, sum(s.count)::bigint AS count
FROM telemetry_1s s
GROUP BY s.device_id, s.metric, time_bucket(INTERVAL '1 minute', s.bucket)
WITH NO DATA;

CREATE MATERIALIZED VIEW telemetry_1h
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT s.device_id, s.metric, time_bucket(INTERVAL '1 hour', s.bucket) AS bucket,
       sum(s.sum ORDER BY s.bucket) / sum(s.count)::double precision AS avg,
       min(s.min) AS min, max(s.max) AS max,
       sum(s.sum ORDER BY s.bucket) AS sum, sum(s.count)::bigint AS count
FROM telemetry_1m s
GROUP BY s.device_id, s.metric, time_bucket(INTERVAL '1 hour', s.bucket)
WITH NO DATA;

CREATE MATERIALIZED VIEW telemetry_1d
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT s.device_id, s.metric, time_bucket(INTERVAL '1 day', s.bucket) AS bucket,
       sum(s.sum ORDER BY s.bucket) / sum(s.count)::double precision AS avg,
       min(s.min) AS min, max(s.max) AS max,
       sum(s.sum ORDER BY s.bucket) AS sum, sum(s.count)::bigint AS count
FROM telemetry_1h s
GROUP BY s.device_id, s.metric, time_bucket(INTERVAL '1 day', s.bucket)
WITH NO DATA;

-- One index serves both the readers and the refresh; the default ones would be three.
CREATE INDEX telemetry_1m_series ON telemetry_1m (device_id, metric, bucket);
CREATE INDEX telemetry_1h_series ON telemetry_1h (device_id, metric, bucket);
CREATE INDEX telemetry_1d_series ON telemetry_1d (device_id, metric, bucket);

ALTER MATERIALIZED VIEW telemetry_1m SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'device_id, metric',
    timescaledb.orderby = 'bucket'
);
ALTER MATERIALIZED VIEW telemetry_1h SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'device_id, metric',
    timescaledb.orderby = 'bucket'
);
ALTER MATERIALIZED VIEW telemetry_1d SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'device_id, metric',
    timescaledb.orderby = 'bucket'
);
SELECT set_chunk_time_interval('telemetry_1m', INTERVAL '1 day');
SELECT set_chunk_time_interval('telemetry_1h', INTERVAL '30 days');
SELECT set_chunk_time_interval('telemetry_1d', INTERVAL '365 days');

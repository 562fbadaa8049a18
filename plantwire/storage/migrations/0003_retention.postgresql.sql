-- Up to where rows may have been deleted. Settings alone do not tell: a tier that is kept longer from now on has not
-- got back what went while it was kept shorter.
CREATE TABLE storage_retention (
    relation    text PRIMARY KEY,
    gone_before timestamptz NOT NULL
);
COMMENT ON TABLE storage_retention IS 'Rows before this may have been deleted: nothing is computed from that time.';

-- A database that has lived longer than that has lost it, by the defaults at least.
INSERT INTO storage_retention (relation, gone_before)
SELECT relation, now() - kept FROM schema_version CROSS JOIN (VALUES
    ('device_telemetry', INTERVAL '8 days'),
    ('telemetry_1s', INTERVAL '7 days'),
    ('telemetry_1m', INTERVAL '30 days'),
    ('telemetry_1h', INTERVAL '365 days')
) AS tiers (relation, kept)
WHERE version = 1 AND applied_at < now() - kept;

-- The scheduled delete takes the oldest rows first. Summaries of page ranges do not lead to them once new rows lie
-- in the room of deleted ones: each range then spans all that is kept, and every step would read the whole table.
CREATE INDEX device_telemetry_age ON device_telemetry (time);
CREATE INDEX telemetry_1s_age ON telemetry_1s (bucket);
CREATE INDEX telemetry_1m_age ON telemetry_1m (bucket);
CREATE INDEX telemetry_1h_age ON telemetry_1h (bucket);
CREATE INDEX telemetry_1d_age ON telemetry_1d (bucket);
DROP INDEX device_telemetry_time, telemetry_1s_bucket, telemetry_1m_bucket, telemetry_1h_bucket;

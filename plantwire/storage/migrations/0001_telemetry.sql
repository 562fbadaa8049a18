-- What every reader may rely on, with and without TimescaleDB: names, columns and keys of the two lowest tiers.
-- Texts are compared byte by byte: that is cheaper, and the same whatever the database's locale.

CREATE TABLE device_telemetry (
    device_id text COLLATE "C" NOT NULL,
    metric    text COLLATE "C" NOT NULL,
    time      timestamptz NOT NULL,
    number    double precision,
    text      text,
    quality   integer NOT NULL,
    PRIMARY KEY (device_id, metric, time)
);
COMMENT ON TABLE device_telemetry IS
    'Raw samples as devices sent them; of two with the same key the one that came first stays.';

CREATE TABLE telemetry_1s (
    device_id text COLLATE "C" NOT NULL,
    metric    text COLLATE "C" NOT NULL,
    bucket    timestamptz NOT NULL,
    avg       double precision NOT NULL,
    min       double precision NOT NULL,
    max       double precision NOT NULL,
    sum       double precision NOT NULL,
    count     bigint NOT NULL,
    PRIMARY KEY (device_id, metric, bucket)
);
COMMENT ON TABLE telemetry_1s IS
    'Numbers of good quality per second; written in the transaction that writes their raw samples.';

CREATE TABLE telemetry_expired (
    device_id text COLLATE "C" NOT NULL,
    metric    text COLLATE "C" NOT NULL,
    time      timestamptz NOT NULL,
    number    double precision,
    text      text,
    quality   integer NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device_id, metric, time)
);
CREATE INDEX telemetry_expired_stored_at ON telemetry_expired (stored_at);
COMMENT ON TABLE telemetry_expired IS
    'Samples older than the 1 s tier is kept: their tiers can no longer be computed, so they lie here apart.';

CREATE TABLE storage_settings (
    name  text PRIMARY KEY,
    value text NOT NULL
);
COMMENT ON TABLE storage_settings IS 'The settings that the database''s policies were made from.';

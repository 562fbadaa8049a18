-- Up to where rows may have been deleted. Settings alone do not tell: a tier that is kept longer from now on has not
-- got back what went while it was kept shorter.
CREATE TABLE storage_retention (
    relation    text PRIMARY KEY,
    gone_before timestamptz NOT NULL
);
COMMENT ON TABLE storage_retention IS 'Rows before this may have been deleted: nothing is computed from that time.';

"""The database's schema as numbered SQL files; `NNNN_name.VARIANT.sql` where servers differ."""

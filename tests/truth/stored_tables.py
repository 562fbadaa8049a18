"""The rows that a database holds, read whole, compared with the offline ones, and told apart by a digest.

In: a connection. Out: data frames of the columns of `offline_tables`; digests; an AssertionError with the
first rows that differ.
Guarantees: numbers keep their bits on the way. Keys and counts must be the same, the least and the greatest
value too, sums and averages within 1e-9 of their size.
Not here: what the rows should be (`offline_tables`).
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pandas as pd
import psycopg
from psycopg import sql

from tests.truth.offline_tables import KEY, RAW_COLUMNS, TIER_COLUMNS, TIERS

RAW = "device_telemetry"
TABLES = (RAW, *TIERS)
SUMS_WITHIN = 1e-9
_MS = "(extract(epoch FROM {}) * 1000)::bigint"
# Whether there is a text tells an empty one from none, which CSV does not.
_READ_RAW = f"""
COPY (SELECT device_id, metric, {_MS.format("time")}, number, text, text IS NULL, quality
      FROM device_telemetry) TO STDOUT (FORMAT csv)
"""  # noqa: S608 - constants
_READ_TIER = f"""
COPY (SELECT device_id, metric, {_MS.format("bucket")}, avg, min, max, sum, count FROM {{}})
TO STDOUT (FORMAT csv)
"""  # noqa: S608 - constants
_DIGEST = "SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {} AS t"


def read(connection: psycopg.Connection, table: str) -> pd.DataFrame:
    """Every row of a table, sorted by its key."""
    columns = [*KEY, "number", "text", "no_text", "quality"] if table == RAW else TIER_COLUMNS
    query = sql.SQL(_READ_RAW if table == RAW else _READ_TIER).format(sql.Identifier(table))
    with connection.cursor().copy(query) as copy:
        found = BytesIO(b"".join(copy))
    # An empty field is a number that is not there; a text or a name is never taken for one.
    words = dict.fromkeys(("device_id", "metric", "text", "no_text"), str)
    numbers = [name for name in columns if name not in words]
    rows = pd.read_csv(
        found,
        names=columns,
        dtype=words,
        keep_default_na=False,
        na_values=dict.fromkeys(numbers, ""),
        float_precision="round_trip",
        lineterminator="\n",
    )
    if table == RAW:
        rows["text"] = rows["text"].where(rows["no_text"] != "t", None)
    return rows[RAW_COLUMNS if table == RAW else TIER_COLUMNS].sort_values(KEY, ignore_index=True)


def digests(connection: psycopg.Connection) -> dict[str, tuple[int, int]]:
    """Of each table the number of its rows, and a sum over all bits of all of them."""
    found = {}
    connection.execute("SET TIME ZONE 'UTC'")
    connection.execute("SET statement_timeout = 0")
    for table in TABLES:
        row = connection.execute(sql.SQL(_DIGEST).format(sql.Identifier(table))).fetchone()
        assert row is not None
        found[table] = (int(row[0]), int(row[1] or 0))
    return found


def assert_same(table: str, found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Every row of `found` is that of `expected`, and none is missing."""
    if not (len(found) == len(expected) and (found[KEY] == expected[KEY]).all(axis=None)):
        both = found[KEY].merge(expected[KEY], how="outer", indicator="where").query("where != 'both'")
        raise AssertionError(f"{table}: {len(found)} rows, expected {len(expected)}\n{both.head(10)}")
    for column in expected.columns[len(KEY) :]:
        same = _same(column, found[column], expected[column])
        if not same.all():
            differing = pd.concat([found[~same], expected[~same]], axis=1).head(5)
            raise AssertionError(
                f"{table}: {column} differs in {(~same).sum()} rows\n{differing.to_string()}"
            )


def _same(column: str, found: pd.Series, expected: pd.Series) -> pd.Series:
    if column in ("sum", "avg"):
        return (found - expected).abs() <= SUMS_WITHIN * np.maximum(found.abs(), expected.abs())
    return (found == expected) | (found.isna() & expected.isna())

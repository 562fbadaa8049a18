"""Counts what an edge buffer's database really holds.

In: a connection. Out: entries by source, rows that are nobody's, the ages of the oldest.
Guarantees: reads only; no type or text that damage may have left in a row is an error.
Not here: what should be there (`totals`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import apsw

from plantwire.gateway.buffer import rows
from plantwire.gateway.buffer.totals import NOTHING, Held


def count_held(connection: apsw.Connection) -> tuple[dict[str, Held], int]:
    """Entries by source, and the highest id. Reads every page that holds a row's beginning."""
    found: dict[str, Held] = {}
    highest_id = 0
    for table in rows.TABLES:
        query = f"SELECT {rows.SOURCE}, count(*), sum({rows.SIZE}), max(id) FROM {table} GROUP BY 1"  # noqa: S608
        for source, count, size_bytes, highest in connection.execute(query):
            name = source.decode("ascii", "replace")
            before = found.get(name, NOTHING)
            found[name] = Held(before.entries + count, before.size_bytes + size_bytes)
            highest_id = max(highest_id, highest)
    return found, highest_id


def count_from(connection: apsw.Connection, first_id: int) -> dict[str, int]:
    """Entries by source with this id or a later one."""
    found: Counter[str] = Counter()
    for table in rows.TABLES:
        query = f"SELECT {rows.SOURCE}, count(*) FROM {table} WHERE id >= ? GROUP BY 1"  # noqa: S608
        for source, count in connection.execute(query, (first_id,)):
            found[source.decode("ascii", "replace")] += count
    return found


def damaged_strangers(connection: apsw.Connection, known: Collection[str]) -> list[tuple[str, int]]:
    """Rows (table, id) of a source that nothing was put under, unless they are as they were put."""
    chosen = f"WHERE {rows.SOURCE} NOT IN ({', '.join('?' * len(known))})"
    return [
        (table, row[0])
        for table in rows.TABLES
        for row in connection.execute(
            f"SELECT {rows.COLUMNS} FROM {table} {chosen}",  # noqa: S608
            tuple(source.encode() for source in known),
        )
        if rows.from_row(table, row) is None
    ]


def oldest_put_ms(connection: apsw.Connection) -> list[int | None]:
    """When the first entry of each table was put."""
    heads: list[int | None] = []
    for table in rows.TABLES:
        query = f"SELECT {rows.PUT_MS} FROM {table} ORDER BY id LIMIT 1"  # noqa: S608
        first = list(connection.execute(query))
        heads.append(first[0][0] if first else None)
    return heads

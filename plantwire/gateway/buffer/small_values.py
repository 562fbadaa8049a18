"""Small values that are kept beside the entries: the ledger's counts, alarm state.

In: keys and values. Out: rows of the table `saved`, each with a checksum.
Guarantees: what comes back is what was saved, or it does not come back.
Not here: what the values mean; their bound (`store`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

import apsw


def checksum(key: bytes, value: bytes) -> int:
    """Over both."""
    return zlib.crc32(value, zlib.crc32(b"%d " % len(key) + key))


def write_changes(connection: apsw.Connection, changed: Mapping[str, bytes | None]) -> None:
    """Within a transaction; None forgets a key."""
    for key, value in changed.items():
        name = key.encode()
        if value is None:
            connection.execute("DELETE FROM saved WHERE key = ?", (name,))
        else:
            row = (name, value, checksum(name, value))
            connection.execute("INSERT OR REPLACE INTO saved VALUES (?, ?, ?)", row)


def read_all(connection: apsw.Connection) -> Iterator[tuple[str, bytes]]:
    """Those whose checksum holds."""
    query = "SELECT CAST(key AS BLOB), CAST(value AS BLOB), CAST(crc AS INTEGER) FROM saved"
    for key, value, crc in connection.execute(query):
        if key is not None and value is not None and checksum(key, value) == crc:
            yield key.decode(), value


def size_change_bytes(known: Mapping[str, bytes], changed: Mapping[str, bytes | None]) -> int:
    """By how much the values and their keys grow."""
    grown = 0
    for key, value in changed.items():
        if key in known:
            grown -= len(key) + len(known[key])
        if value is not None:
            grown += len(key) + len(value)
    return grown

"""An entry as a row of the database, and back.

In: entries with their id; rows as SQLite gives them. Out: bindings; entries whose checksum holds.
Guarantees: whatever a damaged file makes of a row, reading it yields the entry that was put, or nothing.
Not here: which rows (`store`, `rescue`).
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import msgspec

from plantwire.gateway.buffer.entry import Entry, EntryKind, StoredEntry

TABLES: Final = ("alarms", "records")
"""In the order in which they are sent."""

COLUMN_NAMES: Final = (
    "id",
    "kind",
    "source",
    "device_id",
    "event_time_ms",
    "put_ms",
    "crc",
    "headers",
    "body",
)
# Cast, since a damaged row may hold any type, and a text that is no UTF-8 would be an error of its own.
COLUMNS: Final = (
    "id, CAST(kind AS INTEGER), CAST(source AS BLOB), CAST(device_id AS BLOB),"
    " CAST(event_time_ms AS INTEGER), CAST(put_ms AS INTEGER), CAST(crc AS INTEGER),"
    " CAST(headers AS BLOB), CAST(body AS BLOB)"
)
# Of a row that may be damaged: never NULL.
SOURCE: Final = "COALESCE(CAST(source AS BLOB), x'')"
SIZE: Final = "COALESCE(length(headers) + length(body), 0)"
PUT_MS: Final = "COALESCE(CAST(put_ms AS INTEGER), 0)"
INSERT: Final = "INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
OVERHEAD_BYTES: Final = 64
"""What an entry takes besides its texts and bytes."""

Bindings = tuple[int, int, bytes, bytes, int, int, int, bytes, bytes]

_INT64_MAX: Final = 2**63 - 1
SOURCE_MAX_BYTES: Final = 64
_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode


def table_of(kind: EntryKind) -> str:
    """The table that holds entries of this kind."""
    return TABLES[0] if kind is EntryKind.ALARM else TABLES[1]


def size_bytes(entry: Entry) -> int:
    """About what it takes up; raises `ValueError` for an entry that no row can hold."""
    if not 0 < len(entry.source) <= SOURCE_MAX_BYTES or not entry.source.isascii():
        raise ValueError(f"a source is 1 to {SOURCE_MAX_BYTES} ASCII characters: {entry.source!r}")
    if not -_INT64_MAX <= entry.event_time_ms <= _INT64_MAX:
        raise ValueError(f"event_time_ms is {entry.event_time_ms}")
    headers = sum(len(name) + len(value) for name, value in entry.headers)
    return OVERHEAD_BYTES + len(entry.device_id.encode()) + headers + len(entry.body)


def to_row(entry_id: int, entry: Entry, put_ms: int) -> Bindings:
    """Bindings of `INSERT`."""
    headers = _encode_headers(entry.headers) if entry.headers else b""
    source, device_id = entry.source.encode(), entry.device_id.encode()
    checksum = _checksum(
        entry_id, entry.kind, source, device_id, entry.event_time_ms, put_ms, headers, entry.body
    )
    return (
        entry_id,
        int(entry.kind),
        source,
        device_id,
        entry.event_time_ms,
        put_ms,
        checksum,
        headers,
        entry.body,
    )


def from_row(table: str, row: tuple[Any, ...]) -> StoredEntry | None:
    """The entry of a row of `COLUMNS` in a table; None where it is not as, or not where, it was written."""
    entry_id, kind, source, device_id, event_time_ms, put_ms, checksum, headers, body = row
    try:
        if checksum != _checksum(entry_id, kind, source, device_id, event_time_ms, put_ms, headers, body):
            return None
    except TypeError:  # a NULL
        return None
    if table_of(EntryKind(kind)) != table:  # one page in the trees of two tables
        return None
    return StoredEntry(
        entry_id,
        Entry(
            EntryKind(kind),
            source.decode(),
            device_id.decode(),
            event_time_ms,
            body,
            _decode_headers(headers) if headers else (),
        ),
    )


def _checksum(
    entry_id: int,
    kind: int,
    source: bytes,
    device_id: bytes,
    event_time_ms: int,
    put_ms: int,
    headers: bytes,
    body: bytes,
) -> int:
    numbers = (entry_id, kind, event_time_ms, put_ms, len(source), len(device_id), len(headers))
    head = b"%d %d %d %d %d %d %d " % numbers + source + device_id
    return zlib.crc32(body, zlib.crc32(headers, zlib.crc32(head)))

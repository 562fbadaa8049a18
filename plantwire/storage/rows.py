"""Rows as PostgreSQL's binary COPY takes them. Pure.

In: a sample. Out: bytes; a stream is `HEADER`, rows, `TRAILER`.
Guarantees: times are exact (microseconds), numbers keep all their bits.
Source: PostgreSQL's documentation of COPY, "Binary Format", and the wire formats of the types.
Not here: which samples there are (`reading`), the tables (`tables`).
"""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
TRAILER: Final = struct.pack(">h", -1)
COLUMNS: Final = ("device_id", "metric", "time", "number", "text", "quality")

_POSTGRES_EPOCH_MS: Final = 946_684_800_000
_FIELDS: Final = struct.pack(">h", len(COLUMNS))
_LENGTH: Final = struct.Struct(">i")
_NULL: Final = _LENGTH.pack(-1)
_EIGHT: Final = _LENGTH.pack(8)
_TIME: Final = struct.Struct(">q")
_NUMBER: Final = struct.Struct(">id")
_QUALITY: Final = struct.Struct(">ii")
# time, then number, no text, quality: what nearly every row ends with.
_NUMBER_ROW: Final = struct.Struct(">qidiii")


def time_us(event_time_ms: int) -> int:
    """A time as PostgreSQL counts it: microseconds since 2000-01-01 UTC."""
    return (event_time_ms - _POSTGRES_EPOCH_MS) * 1000


def series_prefix(device_id: str, metric: str) -> bytes:
    """How every row of one device and metric begins."""
    return _FIELDS + _text(device_id) + _text(metric) + _EIGHT


def number_row(prefix: bytes, at_us: int, number: float, quality: int) -> bytes:
    """A row with a number; `prefix` is `series_prefix`, `at_us` is `time_us`."""
    return prefix + _NUMBER_ROW.pack(at_us, 8, number, -1, 4, quality)


def row(prefix: bytes, at_us: int, number: float | None, text: str | None, quality: int) -> bytes:
    """A row with a number, a text or neither."""
    return b"".join(
        (
            prefix,
            _TIME.pack(at_us),
            _NULL if number is None else _NUMBER.pack(8, number),
            _NULL if text is None else _text(text),
            _QUALITY.pack(4, quality),
        )
    )


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _LENGTH.pack(len(encoded)) + encoded

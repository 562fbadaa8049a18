"""Number datatypes: a value field → a number, or None where it does not fit. Pure.

In: the value of a metric's value field. Out: `NUMBER_READERS`, by datatype and by the field's name.
Guarantees: integers are exact (as a frame's double, the nearest one beyond 2^53); NaN and infinities come
through (`samples` makes null of them).
Not here: everything that is carried as text (`texts`, `arrays`, `datasets`).

The standard puts signed integers of up to 32 bits into an unsigned 32-bit field and says no more. Found in
the wild are the two's complement in all 32 bits (Int8 -1 = 0xFFFFFFFF) and in the datatype's own bits
(0xFF), and integers of 32 bits in the 64-bit field: there is one integer that each of these can mean, so
each is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb

NumberReader = Callable[[Any], "int | float | None"]


def _signed(bits: int) -> NumberReader:
    half, full = 1 << bits - 1, 1 << bits
    low_32, low_64 = (1 << 32) - half, (1 << 64) - half

    def read(value: int) -> int | None:
        if value < half:
            return value
        if value < full:
            return value - full
        if low_32 <= value < 1 << 32:
            return value - (1 << 32)
        if low_64 <= value:
            return value - (1 << 64)
        return None

    return read


def _unsigned(bits: int) -> NumberReader:
    full = 1 << bits

    def read(value: int) -> int | None:
        return value if value < full else None

    return read


def _int64_from_32_bits(value: int) -> int | None:
    # Above 2^31 it may be meant as negative or as positive: nobody can tell.
    return value if value < 1 << 31 else None


def _integer(reader: NumberReader) -> Mapping[str | None, NumberReader]:
    return MappingProxyType({"int_value": reader, "long_value": reader})


_UNSIGNED_64: Final = _integer(_unsigned(64))
_FLOATING: Final[Mapping[str | None, NumberReader]] = MappingProxyType(
    {"float_value": float, "double_value": float}
)

NUMBER_READERS: Final[Mapping[int, Mapping[str | None, NumberReader]]] = MappingProxyType(
    {
        pb.Int8: _integer(_signed(8)),
        pb.Int16: _integer(_signed(16)),
        pb.Int32: _integer(_signed(32)),
        pb.Int64: MappingProxyType({"int_value": _int64_from_32_bits, "long_value": _signed(64)}),
        pb.UInt8: _integer(_unsigned(8)),
        pb.UInt16: _integer(_unsigned(16)),
        pb.UInt32: _integer(_unsigned(32)),
        pb.UInt64: _UNSIGNED_64,
        pb.Float: _FLOATING,
        pb.Double: _FLOATING,
        pb.Boolean: MappingProxyType({"boolean_value": int}),
        pb.DateTime: _UNSIGNED_64,
    }
)
"""For each number datatype the value fields that may hold it. DateTime: ms since the epoch."""

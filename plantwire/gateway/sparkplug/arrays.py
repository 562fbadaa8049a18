"""Array datatypes: packed bytes → a JSON list as text. Pure.

In: a metric and its array datatype. Out: `ARRAY_READERS`, by datatype; `UnfitError` and `TooLongError` as
in `texts`.
Guarantees: 64-bit integers are written exactly; a NaN or an infinity becomes null.
Not here: single values (`numbers`, `texts`).

Everything is packed little-endian (standard, "Datatype Details", array types; its examples for FloatArray and
DoubleArray show the bytes the other way round, and that for DateTimeArray leaves out the highest two of
each eight: the rule is followed, not the examples). A BooleanArray has its count in four bytes, then bits,
the first in the highest bit. The texts of a StringArray each end with a NUL; the last one may lack it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from math import isfinite
from types import MappingProxyType
from typing import Any, Final

from plantwire.gateway.decode_json import TEXT_MAX_CHARACTERS
from plantwire.gateway.sparkplug.texts import TooLongError, UnfitError, bytes_of, json_text
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb

ArrayReader = Callable[["pb.Payload.Metric"], str]

_ELEMENTS_MAX: Final = TEXT_MAX_CHARACTERS // 2
"""More cannot fit into the text: each takes a character and a comma at least."""


def _packed(code: str) -> ArrayReader:
    size = struct.calcsize(f"<{code}")

    def read(metric: pb.Payload.Metric) -> str:
        data = bytes_of(metric)
        count, rest = divmod(len(data), size)
        if rest:
            raise UnfitError(f"{len(data)} bytes are no array of {size}-byte elements")
        if count > _ELEMENTS_MAX:
            raise TooLongError
        elements: list[Any] = list(struct.unpack(f"<{count}{code}", data))
        if code in "fd":
            elements = [element if isfinite(element) else None for element in elements]
        return json_text(elements)

    return read


def _booleans(metric: pb.Payload.Metric) -> str:
    data = bytes_of(metric)
    if len(data) < 4:
        raise UnfitError("no count of booleans")
    count = int.from_bytes(data[:4], "little")
    if len(data) - 4 != (count + 7) // 8:
        raise UnfitError(f"{len(data) - 4} bytes do not hold {count} booleans")
    if count > _ELEMENTS_MAX:
        raise TooLongError
    return json_text([bool(data[4 + index // 8] >> (7 - index % 8) & 1) for index in range(count)])


def _strings(metric: pb.Payload.Metric) -> str:
    data = bytes_of(metric)
    # Even in four bytes per character no text within the bound is longer.
    if len(data) > 4 * TEXT_MAX_CHARACTERS:
        raise TooLongError
    try:
        texts = data.decode().split("\x00")
    except UnicodeDecodeError:
        raise UnfitError("a text that is not UTF-8") from None
    if texts[-1] == "":
        texts.pop()
    return json_text(texts)


ARRAY_READERS: Final[Mapping[int, ArrayReader]] = MappingProxyType(
    {
        pb.Int8Array: _packed("b"),
        pb.Int16Array: _packed("h"),
        pb.Int32Array: _packed("i"),
        pb.Int64Array: _packed("q"),
        pb.UInt8Array: _packed("B"),
        pb.UInt16Array: _packed("H"),
        pb.UInt32Array: _packed("I"),
        pb.UInt64Array: _packed("Q"),
        pb.FloatArray: _packed("f"),
        pb.DoubleArray: _packed("d"),
        pb.BooleanArray: _booleans,
        pb.StringArray: _strings,
        pb.DateTimeArray: _packed("Q"),
    }
)

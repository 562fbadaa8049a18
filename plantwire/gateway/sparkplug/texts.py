"""Datatypes that are carried as text: String, Text, UUID, Bytes and File. Pure.

In: a metric. Out: its text; `UnfitError` where its value field does not fit the datatype, `TooLongError`
where the text is out of bounds.
Guarantees: a text has at most `TEXT_MAX_CHARACTERS`, and no NUL (PostgreSQL takes none).
Not here: arrays (`arrays`), DataSets (`datasets`).
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any, Final

from plantwire.gateway.decode_json import TEXT_MAX_CHARACTERS
from plantwire.gateway.sparkplug.payload import utf8
from plantwire.schemas.sparkplug.sparkplug_b_pb2 import Payload

BYTES_MAX: Final = TEXT_MAX_CHARACTERS // 4 * 3
"""So many bytes are `TEXT_MAX_CHARACTERS` as base64."""


class UnfitError(Exception):
    """The value field is missing or does not fit the datatype; the text says how."""


class TooLongError(Exception):
    """The value would make a text above the bound, or one with a NUL."""


def string_text(metric: Payload.Metric) -> str:
    """String, Text and UUID: as they are."""
    if not metric.HasField("string_value"):
        raise UnfitError("no string_value")
    text = utf8(metric.string_value)
    if text is None:
        raise UnfitError("a text that is not UTF-8")
    return bounded(text)


def bytes_text(metric: Payload.Metric) -> str:
    """Bytes: base64."""
    return _base64(bytes_of(metric))


def file_text(metric: Payload.Metric) -> str:
    """File: JSON ``{"name"?, "type"?, "part"?, "data": base64}``; `part` numbers those of a file in parts."""
    members: dict[str, Any] = {}
    metadata = metric.metadata
    for key, value in (("name", utf8(metadata.file_name)), ("type", utf8(metadata.file_type))):
        if value:
            members[key] = value
    if metadata.is_multi_part:
        members["part"] = metadata.seq
    members["data"] = _base64(bytes_of(metric))
    return json_text(members)


def bytes_of(metric: Payload.Metric) -> bytes:
    """The bytes value; `UnfitError` where there is none."""
    if not metric.HasField("bytes_value"):
        raise UnfitError("no bytes_value")
    return metric.bytes_value


def json_text(value: Any) -> str:
    """`value` as compact JSON within the bound."""
    return bounded(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def bounded(text: str) -> str:
    """`text`, where it is within the bound; otherwise `TooLongError`."""
    if len(text) > TEXT_MAX_CHARACTERS or "\x00" in text:
        raise TooLongError
    return text


def _base64(data: bytes) -> str:
    if len(data) > BYTES_MAX:
        raise TooLongError
    return b64encode(data).decode("ascii")

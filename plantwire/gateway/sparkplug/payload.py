"""Bytes → a Sparkplug B payload. Pure.

In: the bytes of an MQTT message. Out: `Payload`, or `Rejected`.
Guarantees: never raises. Text fields that are not UTF-8 come through as `bytes`, as the protobuf library
gives them: whoever reads a text asks for its type (`utf8`).
Not here: what the metrics mean (`metric_table`, `samples`).
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.sparkplug.sparkplug_b_pb2 import Payload

BDSEQ: Final = "bdSeq"
# Protocol Buffers' wire format: Payload.metrics is field 2, length-delimited; its tag may be padded.
_METRIC_TAG: Final = b"\x12"
_METRIC_TAG_LONG: Final = b"\x92"
_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
_VARINT_SHIFT_MAX: Final = 63


def parse_payload(data: bytes, size_max_bytes: int, metrics_max: int) -> Payload | Rejected:
    """The payload in `data`; at most `size_max_bytes` and `metrics_max` metrics are looked at."""
    if len(data) > size_max_bytes:
        return Rejected(Reason.BODY_TOO_LARGE, f"A payload of {len(data)} bytes; at most {size_max_bytes}.")
    if _has_more_metrics(data, metrics_max):
        return Rejected(Reason.TOO_MANY_METRICS, f"More than {metrics_max} metrics in one message.")
    try:
        payload = Payload.FromString(data)
    except DecodeError:
        return Rejected(Reason.NOT_PROTOBUF, "The payload is no Sparkplug B payload.")
    if len(payload.metrics) > metrics_max:
        return Rejected(
            Reason.TOO_MANY_METRICS, f"{len(payload.metrics)} metrics in one message; at most {metrics_max}."
        )
    return payload


def _has_more_metrics(data: bytes, metrics_max: int) -> bool:
    """Whether there are more than `metrics_max`, found out without building them: a megabyte holds half a
    million empty ones. What is no payload is left to the parser.
    """
    # A metric's tag begins with one of these bytes, so mostly counting them is enough.
    if data.count(_METRIC_TAG) + data.count(_METRIC_TAG_LONG) <= metrics_max:
        return False
    at = metrics = 0
    try:
        while at < len(data):
            tag, at = _varint(data, at)
            kind = tag & 7
            if kind == _LENGTH_DELIMITED:
                size, at = _varint(data, at)
                at += size
            elif kind == _VARINT:
                _, at = _varint(data, at)
            elif kind in _FIXED_BYTES:
                at += _FIXED_BYTES[kind]
            else:
                return False
            metrics += tag == _METRIC_TAG[0]
            if metrics > metrics_max:
                return True
    except IndexError:
        pass
    return False


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > _VARINT_SHIFT_MAX:
            return value, at
        shift += 7


def bdseq_of(payload: Payload) -> int | None:
    """The birth/death sequence number, None where there is none.

    The standard asks for Int64 in one place and shows UInt64 in another, so any integer field is read.
    """
    for metric in payload.metrics:
        if metric.name == BDSEQ:
            field = metric.WhichOneof("value")
            if field == "long_value":
                return metric.long_value
            if field == "int_value":
                return metric.int_value
    return None


def utf8(text: object) -> str | None:
    """A text field's value, None where it is not UTF-8."""
    return text if isinstance(text, str) else None

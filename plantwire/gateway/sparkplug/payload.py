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


def parse_payload(data: bytes, size_max_bytes: int, metrics_max: int) -> Payload | Rejected:
    """The payload in `data`; at most `size_max_bytes` and `metrics_max` metrics are looked at."""
    if len(data) > size_max_bytes:
        return Rejected(Reason.BODY_TOO_LARGE, f"A payload of {len(data)} bytes; at most {size_max_bytes}.")
    try:
        payload = Payload.FromString(data)
    except DecodeError:
        return Rejected(Reason.NOT_PROTOBUF, "The payload is no Sparkplug B payload.")
    if len(payload.metrics) > metrics_max:
        return Rejected(
            Reason.TOO_MANY_METRICS, f"{len(payload.metrics)} metrics in one message; at most {metrics_max}."
        )
    return payload


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

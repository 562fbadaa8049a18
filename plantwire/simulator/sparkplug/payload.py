"""Sparkplug B payloads of an edge node.

In: metric specifications and values. Out: protobuf bytes; commands read back.
Guarantees: pure. A birth's metric has name, alias, datatype and value or `is_null`; a data metric has its
alias alone; every metric and payload has a time stamp. Integers are encoded as the standard says: two's
complement in the unsigned field of their width.
Not here: when what is sent (`sparkplug.session`).
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
from google.protobuf.message import DecodeError

from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from plantwire.simulator.frame import Value

BDSEQ: Final = "bdSeq"
REBIRTH: Final = "Node Control/Rebirth"

_INT_BITS: Final[dict[int, int]] = {pb.Int8: 8, pb.Int16: 16, pb.Int32: 32, pb.Int64: 64}
_UINT_BITS: Final[dict[int, int]] = {
    pb.UInt8: 8,
    pb.UInt16: 16,
    pb.UInt32: 32,
    pb.UInt64: 64,
    pb.DateTime: 64,
}
_TEXTS: Final[frozenset[int]] = frozenset({pb.String, pb.Text, pb.UUID})
_SHORT_BITS: Final = 32
"""What `int_value` holds; wider integers go into `long_value`."""


class MetricSpec(msgspec.Struct, frozen=True):
    """A metric as its birth declares it; `datatype` is a number of the standard's table."""

    name: str
    datatype: int
    is_writable: bool = False


class Command(msgspec.Struct, frozen=True):
    """One metric of an NCMD or DCMD: its name or its alias, and the protobuf metric with the value."""

    name: str | None
    alias: int | None
    metric: pb.Payload.Metric


def new_payload(now_ms: int, seq: int | None) -> pb.Payload:
    """A payload without metrics; an NDEATH has no sequence number."""
    payload = pb.Payload(timestamp=now_ms)
    if seq is not None:
        payload.seq = seq
    return payload


def add_birth(
    payload: pb.Payload, spec: MetricSpec, alias: int | None, value: Value | None, at_ms: int
) -> None:
    """Declare a metric with its current value."""
    metric = payload.metrics.add(name=spec.name, timestamp=at_ms, datatype=spec.datatype)
    if alias is not None:
        metric.alias = alias
    _set_value(metric, spec.datatype, value)


def add_value(payload: pb.Payload, spec: MetricSpec, alias: int, value: Value | None, at_ms: int) -> None:
    """Add a changed value, by its alias."""
    metric = payload.metrics.add(alias=alias, timestamp=at_ms)
    _set_value(metric, spec.datatype, value)


def _set_value(metric: pb.Payload.Metric, datatype: int, value: Value | None) -> None:
    """Raises ValueError for a value that the datatype does not hold."""
    if value is None:
        metric.is_null = True
    elif datatype == pb.Boolean and isinstance(value, bool):
        metric.boolean_value = value
    elif datatype in _TEXTS and isinstance(value, str):
        metric.string_value = value
    elif datatype == pb.Double and _is_number(value):
        metric.double_value = float(value)
    elif datatype == pb.Float and _is_number(value):
        metric.float_value = float(value)
    elif isinstance(value, int) and not isinstance(value, bool) and _fits(datatype, value):
        bits = _INT_BITS.get(datatype) or _UINT_BITS[datatype]
        if bits <= _SHORT_BITS:
            metric.int_value = value % (1 << _SHORT_BITS)
        else:
            metric.long_value = value % (1 << bits)
    else:
        raise ValueError(f"datatype {datatype} does not hold {value!r}")


def commands_in(payload: bytes) -> list[Command] | None:
    """The metrics that a command writes; None when the payload is malformed."""
    try:
        parsed = pb.Payload.FromString(payload)
    except DecodeError:
        return None
    return [
        Command(
            metric.name if metric.HasField("name") else None,
            metric.alias if metric.HasField("alias") else None,
            metric,
        )
        for metric in parsed.metrics
    ]


def is_true(metric: pb.Payload.Metric) -> bool:
    """Whether the metric carries the boolean true."""
    return metric.WhichOneof("value") == "boolean_value" and metric.boolean_value


def written_value(spec: MetricSpec, metric: pb.Payload.Metric) -> Value | None:
    """The value that a command writes to the metric; None when it is not compatible with its datatype."""
    field = metric.WhichOneof("value")
    datatype = spec.datatype
    if metric.is_null or field is None:
        return None
    if datatype == pb.Boolean:
        return metric.boolean_value if field == "boolean_value" else None
    if datatype in _TEXTS:
        return metric.string_value if field == "string_value" else None
    if datatype in (pb.Float, pb.Double):
        number = {"float_value": metric.float_value, "double_value": metric.double_value}.get(field)
        return number if number is not None and math.isfinite(number) else None
    bits = _INT_BITS.get(datatype) or _UINT_BITS.get(datatype)
    if bits is None or field != ("int_value" if bits <= _SHORT_BITS else "long_value"):
        return None
    encoded = metric.int_value if bits <= _SHORT_BITS else metric.long_value
    if datatype in _INT_BITS and encoded >= 1 << (max(bits, _SHORT_BITS) - 1):
        encoded -= 1 << max(bits, _SHORT_BITS)
    return encoded if _fits(datatype, encoded) else None


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _fits(datatype: int, value: int) -> bool:
    signed, unsigned = _INT_BITS.get(datatype), _UINT_BITS.get(datatype)
    if signed is not None:
        return -(1 << (signed - 1)) <= value < 1 << (signed - 1)
    return unsigned is not None and 0 <= value < 1 << unsigned

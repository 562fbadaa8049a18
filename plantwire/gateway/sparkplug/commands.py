"""NCMD and DCMD payloads: what the host application writes to edge nodes and devices.

In: metrics to write, checked against their datatype; the time. Out: topic and payload bytes. Pure.
Guarantees: a payload has a time stamp and no sequence number (tck-id-payloads-ncmd-seq, -dcmd-seq), and
each of its metrics a value that its datatype holds (tck-id-operational-behavior-data-commands-*-value).
A metric that its birth gave an alias goes by the alias alone, any other by its name
(tck-id-payloads-alias-data-cmd-requirement). Whatever does not fit raises `CommandRefusedError`.
Not here: the publishing, and what the birth said (`host`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from plantwire.gateway.sparkplug.outcome import EdgeNodeId
from plantwire.gateway.sparkplug.topic import NAMESPACE, MessageType
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb

REBIRTH_METRIC: Final = "Node Control/Rebirth"
COMMAND_QOS: Final = 0
TEXT_MAX_CHARACTERS: Final = 8192
BYTES_MAX: Final = 65_536

Value = bool | int | float | str | bytes | None
"""None writes null."""


class CommandRefusedError(Exception):
    """A command that is not sent; the text says why, in one sentence fit for who asked for it."""


class CommandMetric(msgspec.Struct, frozen=True):
    """One metric to write: by `alias` where it has one, else by `name`; `datatype` as in its birth."""

    name: str
    datatype: int
    value: Value
    alias: int | None = None


def command_topic(edge_node: EdgeNodeId, device: str | None) -> str:
    """Where commands to an edge node (device None) or to one of its devices go."""
    group, node = edge_node
    if device is None:
        return f"{NAMESPACE}/{group}/{MessageType.NCMD}/{node}"
    return f"{NAMESPACE}/{group}/{MessageType.DCMD}/{node}/{device}"


def command_payload(metrics: Sequence[CommandMetric], now_ms: int) -> bytes:
    """The bytes of an NCMD or DCMD; raises `CommandRefusedError`."""
    if not metrics:
        raise CommandRefusedError("A command needs at least one metric.")
    payload = pb.Payload(timestamp=now_ms)
    for metric in metrics:
        _fill(payload.metrics.add(timestamp=now_ms), metric)
    return payload.SerializeToString()


def rebirth_request(now_ms: int) -> bytes:
    """The payload that asks an edge node for its births. Its metric never has an alias."""
    return command_payload((CommandMetric(REBIRTH_METRIC, pb.Boolean, True),), now_ms)


def _fill(message: pb.Payload.Metric, metric: CommandMetric) -> None:
    if metric.alias is not None:
        message.alias = metric.alias
    else:
        message.name = metric.name
    # Receivers know it from the birth, but some refuse a metric without it.
    message.datatype = metric.datatype
    write = _WRITERS.get(metric.datatype)
    if write is None:
        raise CommandRefusedError(f"{metric.name}: a value of datatype {metric.datatype} cannot be written.")
    if metric.value is None:
        message.is_null = True
        return
    try:
        write(message, metric.value)
    except _UnfitError as unfit:
        raise CommandRefusedError(f"{metric.name}: {unfit}.") from None


class _UnfitError(Exception):
    """The value does not fit the datatype."""


Writer = Callable[["pb.Payload.Metric", Value], None]


def _integer(value: Value, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _UnfitError("an integer is needed")
    if not lowest <= value <= highest:
        raise _UnfitError(f"{value} is outside of {lowest} to {highest}")
    return value


def _signed(bits: int) -> Writer:
    lowest, highest = -(1 << bits - 1), (1 << bits - 1) - 1

    def write(message: pb.Payload.Metric, value: Value) -> None:
        # Two's complement in the datatype's own bits: decoders in the field refuse 32 bits for Int8 and
        # Int16, and those that extend the sign take both.
        number = _integer(value, lowest, highest) & (1 << bits) - 1
        if bits == 64:
            message.long_value = number
        else:
            message.int_value = number

    return write


def _unsigned(bits: int) -> Writer:
    def write(message: pb.Payload.Metric, value: Value) -> None:
        number = _integer(value, 0, (1 << bits) - 1)
        if bits == 64:
            message.long_value = number
        else:
            message.int_value = number

    return write


def _finite(value: Value) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _UnfitError("a number is needed")
    try:
        number = float(value)
    except OverflowError:
        raise _UnfitError("the number is too large") from None
    if not math.isfinite(number):
        raise _UnfitError("the number is not finite")
    return number


def _write_float(message: pb.Payload.Metric, value: Value) -> None:
    number = _finite(value)
    try:
        struct.pack("<f", number)
    except OverflowError:
        raise _UnfitError("the number is too large for 32 bits") from None
    message.float_value = number


def _write_double(message: pb.Payload.Metric, value: Value) -> None:
    message.double_value = _finite(value)


def _write_boolean(message: pb.Payload.Metric, value: Value) -> None:
    if not isinstance(value, bool):
        raise _UnfitError("true or false is needed")
    message.boolean_value = value


def _write_text(message: pb.Payload.Metric, value: Value) -> None:
    if not isinstance(value, str):
        raise _UnfitError("a text is needed")
    if len(value) > TEXT_MAX_CHARACTERS:
        raise _UnfitError(f"the text is longer than {TEXT_MAX_CHARACTERS} characters")
    try:
        message.string_value = value
    except (ValueError, UnicodeError):
        raise _UnfitError("the text is no valid Unicode") from None


def _write_bytes(message: pb.Payload.Metric, value: Value) -> None:
    if not isinstance(value, bytes):
        raise _UnfitError("bytes are needed")
    if len(value) > BYTES_MAX:
        raise _UnfitError(f"more than {BYTES_MAX} bytes")
    message.bytes_value = value


_WRITERS: Final[dict[int, Writer]] = {
    pb.Int8: _signed(8),
    pb.Int16: _signed(16),
    pb.Int32: _signed(32),
    pb.Int64: _signed(64),
    pb.UInt8: _unsigned(8),
    pb.UInt16: _unsigned(16),
    pb.UInt32: _unsigned(32),
    pb.UInt64: _unsigned(64),
    pb.Float: _write_float,
    pb.Double: _write_double,
    pb.Boolean: _write_boolean,
    pb.String: _write_text,
    pb.DateTime: _unsigned(64),
    pb.Text: _write_text,
    pb.UUID: _write_text,
    pb.Bytes: _write_bytes,
    pb.File: _write_bytes,
}
"""By datatype. Data sets, templates and arrays can be read, not written."""

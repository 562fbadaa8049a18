"""One TelemetryFrame out of Avro bytes, checked while it is read. Pure: no clock, no I/O.

In: bytes and where the frame begins. Out: the frame and where it ends, or `DecodeRefusalError`.
Guarantees: takes what `decode_json` would take and refuses the rest by the same names; what is the gateway's
to say (received time, protocol, hop stamps, edge state) is the gateway's. Stops at the first thing that is
not taken, so that a body of a million bytes costs no more than the metrics that a frame may have.
Not here: the container file (`decode_avro`), encoding (`schemas.codec`).

Written out by hand after TelemetryFrame.avsc: a general reader builds all that a body claims to have before
anyone can ask how much that is, and takes twice as long. Tests hold it to what `schemas.codec` writes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from struct import Struct, error
from typing import Final, NamedTuple

from plantwire.gateway.decode_json import (
    QUALITY_MAX,
    SEQUENCE_MAX,
    TEXT_MAX_CHARACTERS,
    DecodeLimits,
    DecodeRefusalError,
    check_device_id,
    check_event_time,
)
from plantwire.gateway.rejected import Reason
from plantwire.schemas.codec import FRAME_CODEC, load_schema, schema_fingerprint
from plantwire.schemas.identifiers import METRIC_NAME_MAX_CHARACTERS, is_metric_name
from plantwire.schemas.records import QUALITY_GOOD, Metric, TelemetryFrame

HAS_EDGE_STATE: Final = {
    schema_fingerprint(load_schema("released/TelemetryFrame.1")): False,
    FRAME_CODEC.fingerprint: True,
}
"""The writer schemas that are read, by fingerprint, and whether they end with `edge_state`."""

_UTF8_MAX_BYTES: Final = 4
_VARINT_MAX_BYTES: Final = 10
_LONG_MAX: Final = 2**64 - 1
_NULL: Final = 0
_VALUE: Final = 2
_double: Final = Struct("<d").unpack_from


class Origin(NamedTuple):
    """What is known of frames before they are read."""

    device_id: str | None
    """Every frame is of this device, or names none; None: each names its own."""
    protocol: str
    received_us: int
    limits: DecodeLimits


def read_frame(body: bytes, at: int, has_edge_state: bool, origin: Origin) -> tuple[TelemetryFrame, int]:
    """The frame that begins at `at`, and where it ends."""
    try:
        return _frame(body, at, has_edge_state, origin)
    except (IndexError, error, UnicodeDecodeError):
        raise _not_avro() from None


def _frame(body: bytes, at: int, has_edge_state: bool, origin: Origin) -> tuple[TelemetryFrame, int]:
    received_ms = origin.received_us // 1000
    device_id, at = _text(body, at)
    device_id = _checked_device(device_id, origin.device_id)
    site, at = _text(body, at)
    if site and not is_metric_name(site):
        raise DecodeRefusalError(Reason.BAD_SHAPE, "site is a text of at most 256 printable characters.")
    sequence, at = _optional_long(body, at)
    if sequence is not None and not 0 <= sequence <= SEQUENCE_MAX:
        raise DecodeRefusalError(Reason.BAD_SHAPE, "sequence is an integer from 0 to 2^63 - 1.")
    event_time_ms, at = _long(body, at)
    check_event_time(event_time_ms, received_ms, origin.limits)
    _, at = _long(body, at)  # received_time_ms
    _, at = _text(body, at)  # protocol
    historical = body[at]
    if historical > 1:
        raise _not_avro()
    metrics, at = _metrics(body, at + 1, received_ms, origin.limits)
    _, at = _long(body, at)  # gateway_in_us
    _, at = _long(body, at)  # gateway_out_us
    if has_edge_state:
        _, at = _piece(body, at)
    frame = TelemetryFrame(
        device_id=device_id,
        site=site,
        sequence=sequence,
        event_time_ms=event_time_ms,
        received_time_ms=received_ms,
        protocol=origin.protocol,
        historical=historical == 1,
        metrics=metrics,
        gateway_in_us=origin.received_us,
    )
    return frame, at


def _checked_device(named: str, device_id: str | None) -> str:
    if device_id is not None and named in ("", device_id):
        return device_id
    check_device_id(named)
    if device_id is not None:
        raise DecodeRefusalError(
            Reason.DEVICE_MISMATCH, f"A frame is of device {named!r}, the path is of {device_id!r}."
        )
    return named


def _metrics(body: bytes, at: int, received_ms: int, limits: DecodeLimits) -> tuple[tuple[Metric, ...], int]:
    metrics: list[Metric] = []
    while True:
        count, at = _long(body, at)
        if count == 0:
            break
        if count < 0:  # a block with its size in bytes
            count = -count
            _, at = _long(body, at)
        if len(metrics) + count > limits.metrics_per_frame_max:
            raise DecodeRefusalError(
                Reason.TOO_MANY_METRICS,
                f"{len(metrics) + count} metrics in one frame; at most {limits.metrics_per_frame_max}.",
            )
        for _ in range(count):
            metric, at = _metric(body, at, received_ms, limits)
            metrics.append(metric)
    if not metrics:
        raise DecodeRefusalError(Reason.BAD_SHAPE, "A frame has at least one metric.")
    if len({metric.name for metric in metrics}) != len(metrics):
        raise DecodeRefusalError(Reason.DUPLICATE_KEY, "A metric is given twice in one frame.")
    return tuple(metrics), at


def _metric(body: bytes, at: int, received_ms: int, limits: DecodeLimits) -> tuple[Metric, int]:
    encoded, at = _piece(body, at)
    name = _name(encoded) if len(encoded) <= _UTF8_MAX_BYTES * METRIC_NAME_MAX_CHARACTERS else None
    if name is None:
        shown = encoded[:64].decode(errors="replace")
        raise DecodeRefusalError(
            Reason.INVALID_METRIC_NAME,
            f"A metric name is 1 to 256 printable characters, unlike {shown!r}.",
        )
    number: float | None = None
    text: str | None = None
    if body[at] == _VALUE:
        (number,) = _double(body, at + 1)
        at += 8
        if not math.isfinite(number):
            raise DecodeRefusalError(Reason.NOT_A_NUMBER, f"The value of {name[:64]!r} is not finite.")
    elif body[at] != _NULL:
        raise _not_avro()
    at += 1
    if body[at] == _VALUE:
        text, at = _metric_text(body, at + 1, name)
    elif body[at] == _NULL:
        at += 1
    else:
        raise _not_avro()
    if (number is None) == (text is None):
        raise DecodeRefusalError(Reason.BAD_SHAPE, f"{name[:64]!r} has a number or a text, one of them.")
    if body[at] == 0x80 and body[at + 1] == 0x03:
        quality, at = QUALITY_GOOD, at + 2
    else:
        quality, at = _long(body, at)
        if not 0 <= quality <= QUALITY_MAX:
            raise DecodeRefusalError(Reason.BAD_SHAPE, f"quality is an integer from 0 to {QUALITY_MAX}.")
    event_time_ms, at = _optional_long(body, at)
    if event_time_ms is not None:
        check_event_time(event_time_ms, received_ms, limits)
    return Metric(name, number, text, quality, event_time_ms), at


def _metric_text(body: bytes, at: int, name: str) -> tuple[str, int]:
    encoded, at = _piece(body, at)
    # PostgreSQL takes no NUL in a text.
    if len(encoded) <= _UTF8_MAX_BYTES * TEXT_MAX_CHARACTERS:
        text = encoded.decode()
        if len(text) <= TEXT_MAX_CHARACTERS and "\x00" not in text:
            return text, at
    raise DecodeRefusalError(
        Reason.INVALID_TEXT,
        f"The text of {name[:64]!r} has NUL or more than {TEXT_MAX_CHARACTERS} characters.",
    )


@lru_cache(maxsize=16_384)
def _name(encoded: bytes) -> str | None:
    """A metric's name; None where it is none. Devices send the same ones over and over."""
    name = encoded.decode()
    return name if is_metric_name(name) else None


def _text(body: bytes, at: int) -> tuple[str, int]:
    encoded, at = _piece(body, at)
    return encoded.decode(), at


def _piece(body: bytes, at: int) -> tuple[bytes, int]:
    """Bytes with their length before them."""
    length = body[at]
    if length < 0x80 and not length & 1:
        length, at = length >> 1, at + 1
    else:
        length, at = _long(body, at)
    end = at + length
    if not at <= end <= len(body):
        raise _not_avro()
    return body[at:end], end


def _optional_long(body: bytes, at: int) -> tuple[int | None, int]:
    branch = body[at]
    if branch == _NULL:
        return None, at + 1
    if branch != _VALUE:
        raise _not_avro()
    return _long(body, at + 1)


def _long(body: bytes, at: int) -> tuple[int, int]:
    """A zigzag varint."""
    encoded = shift = 0
    for end in range(at, at + _VARINT_MAX_BYTES):
        byte = body[end]
        encoded |= (byte & 0x7F) << shift
        if byte < 0x80:
            if encoded > _LONG_MAX:
                break
            return (encoded >> 1) ^ -(encoded & 1), end + 1
        shift += 7
    raise _not_avro()


def _not_avro() -> DecodeRefusalError:
    return DecodeRefusalError(Reason.NOT_AVRO, "The bytes are no frame of this schema.")

"""Avro telemetry → frames, or the reason why not. Pure: no clock, no I/O.

In: one `TelemetryFrame` as a plain Avro body with its writer schema's fingerprint, or several in an Avro
object container file (Avro 1.12 specification, "Object Container Files"; codecs null and deflate).
Out: a tuple of `TelemetryFrame` in the order given, or `Rejected`.
Guarantees: never raises, whatever the bytes are. All or nothing. Takes what `decode_json` would take and
refuses the rest by the same names. What is the gateway's to say (received time, protocol, hop stamps, edge
state) is the gateway's, whatever the sender wrote there. Only the schemas of this program's own versions are
read, so no stranger's schema is ever resolved; unpacking stops at `unpacked_max_bytes`.
Not here: who may send (`http_transport`).
"""

from __future__ import annotations

import json
import math
import zlib
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

import fastavro

from plantwire.gateway.decode_json import (
    QUALITY_MAX,
    SEQUENCE_MAX,
    TEXT_MAX_CHARACTERS,
    DecodeLimits,
    DecodeRefusalError,
    check_device_id,
    check_event_time,
    known_metric_name,
    refuse_oversized,
)
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.codec import FRAME_CODEC, UndecodableError, schema_fingerprint
from plantwire.schemas.identifiers import is_metric_name
from plantwire.schemas.records import Metric, TelemetryFrame

MAGIC: Final = b"Obj\x01"
SYNC_BYTES: Final = 16
CHECKSUM_BYTES: Final = 4
"""zlib's checksum, which the specification leaves out of a deflated block and fastavro leaves in, in part."""
SCHEMA_MAX_BYTES: Final = 16 * 1024
"""Our own schema has 3 kB, with all that it says about itself."""
_SCHEMA_KEY: Final = "avro.schema"
_CODEC_KEY: Final = "avro.codec"
_META: Final = fastavro.parse_schema({"type": "map", "values": "bytes"})
_LONG: Final = fastavro.parse_schema("long")


def decode_avro_frame(
    body: bytes,
    fingerprint: str | None,
    device_id: str | None,
    protocol: str,
    received_us: int,
    limits: DecodeLimits,
) -> tuple[TelemetryFrame, ...] | Rejected:
    """The frame in a plain Avro body, written by the schema of `fingerprint` (the one in force where None).

    Of `device_id`, where that is given; a frame that names no device is that device's.
    """
    try:
        writer = fingerprint.strip().lower() if fingerprint is not None else FRAME_CODEC.fingerprint
        _check_schema(writer)
        stream = BytesIO(body)
        fields = _read(stream, writer)
        if stream.tell() != len(body):
            raise DecodeRefusalError(Reason.NOT_AVRO, f"{len(body) - stream.tell()} bytes follow the frame.")
        frames = (_frame(fields, device_id, protocol, received_us, limits),)
        refuse_oversized(frames)
    except DecodeRefusalError as refusal:
        return refusal.rejected
    return frames


def decode_avro_file(
    body: bytes,
    device_id: str | None,
    protocol: str,
    received_us: int,
    limits: DecodeLimits,
    unpacked_max_bytes: int,
) -> tuple[TelemetryFrame, ...] | Rejected:
    """The frames in an object container file; `device_id` as in `decode_avro_frame`."""
    try:
        stream = BytesIO(body)
        writer, is_packed, sync = _read_header(stream)
        frames: list[TelemetryFrame] = []
        left_bytes = unpacked_max_bytes
        while stream.tell() < len(body):
            count, block = _read_block(stream, sync)
            if len(frames) + count > limits.frames_max:
                raise DecodeRefusalError(
                    Reason.TOO_MANY_FRAMES, f"More than {limits.frames_max} frames in one file."
                )
            if is_packed:
                block = _unpack(block, left_bytes)
            left_bytes -= len(block)
            records = BytesIO(block)
            for _ in range(count):
                fields = _read(records, writer)
                frames.append(_frame(fields, device_id, protocol, received_us, limits))
            if records.tell() != len(block):
                raise DecodeRefusalError(Reason.NOT_AVRO, "A block has more bytes than its frames.")
        if not frames:
            raise DecodeRefusalError(Reason.BAD_SHAPE, "The file holds no frame.")
        taken = tuple(frames)
        refuse_oversized(taken)
    except DecodeRefusalError as refusal:
        return refusal.rejected
    return taken


def _read_header(stream: BytesIO) -> tuple[str, bool, bytes]:
    """(the writer schema's fingerprint, whether blocks are deflated, the sync marker)."""
    if stream.read(len(MAGIC)) != MAGIC:
        raise DecodeRefusalError(Reason.NOT_AVRO, "The body is no Avro object container file.")
    meta = _primitive(stream, _META)
    schema = meta.get(_SCHEMA_KEY)
    if schema is None:
        raise DecodeRefusalError(Reason.NOT_AVRO, "The file has no schema.")
    codec = meta.get(_CODEC_KEY, b"null")
    if codec not in (b"null", b"deflate"):
        raise DecodeRefusalError(
            Reason.UNSUPPORTED_MEDIA_TYPE, "The file's codec is neither null nor deflate."
        )
    if len(schema) > SCHEMA_MAX_BYTES:
        raise _unknown_schema()
    writer = _fingerprint_of(schema)
    _check_schema(writer)
    sync = stream.read(SYNC_BYTES)
    if len(sync) != SYNC_BYTES:
        raise DecodeRefusalError(Reason.NOT_AVRO, "The file ends in its header.")
    return writer, codec == b"deflate", sync


def _read_block(stream: BytesIO, sync: bytes) -> tuple[int, bytes]:
    count, size_bytes = _primitive(stream, _LONG), _primitive(stream, _LONG)
    if count < 0 or size_bytes < 0:
        raise DecodeRefusalError(Reason.NOT_AVRO, "A block has a negative size.")
    block = stream.read(min(size_bytes, stream.getbuffer().nbytes))
    if len(block) != size_bytes or stream.read(SYNC_BYTES) != sync:
        raise DecodeRefusalError(Reason.NOT_AVRO, "A block is not as long as it says.")
    return count, block


def _unpack(block: bytes, max_bytes: int) -> bytes:
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # One byte more than may be: it tells a block of the limit from one beyond it.
        unpacked = unpacking.decompress(block, max_bytes + 1)
    except zlib.error as error:
        raise DecodeRefusalError(Reason.NOT_AVRO, f"A block does not inflate: {error}.") from None
    if len(unpacked) > max_bytes:
        raise DecodeRefusalError(Reason.BODY_TOO_LARGE, "The file's blocks are larger unpacked than a body.")
    if not unpacking.eof or len(unpacking.unused_data) > CHECKSUM_BYTES:
        raise DecodeRefusalError(Reason.NOT_AVRO, "A block's deflate stream does not end with the block.")
    return unpacked


def _primitive(stream: BytesIO, schema: Any) -> Any:
    try:
        return fastavro.schemaless_reader(stream, schema, None)
    except Exception:  # on garbage fastavro raises many types
        raise DecodeRefusalError(Reason.NOT_AVRO, "The file is damaged, or ends early.") from None


@lru_cache(maxsize=64)
def _fingerprint_of(schema: bytes) -> str:
    """The fingerprint of a schema as JSON; an empty text where it is none."""
    try:
        return schema_fingerprint(json.loads(schema))
    except Exception:  # a stranger's schema fails in as many ways as there are
        return ""


def _check_schema(fingerprint: str) -> None:
    if not FRAME_CODEC.knows(fingerprint):
        raise _unknown_schema()


def _unknown_schema() -> DecodeRefusalError:
    return DecodeRefusalError(
        Reason.UNKNOWN_SCHEMA, "The schema is not TelemetryFrame as this gateway or one before it knows it."
    )


def _read(stream: BytesIO, writer: str) -> dict[str, Any]:
    try:
        return FRAME_CODEC.read_fields(stream, writer)
    except UndecodableError:
        raise DecodeRefusalError(Reason.NOT_AVRO, "The bytes are no frame of this schema.") from None


def _frame(
    fields: dict[str, Any], device_id: str | None, protocol: str, received_us: int, limits: DecodeLimits
) -> TelemetryFrame:
    named = fields["device_id"]
    if device_id is not None and named in ("", device_id):
        named = device_id
    else:
        check_device_id(named)
        if device_id is not None:
            raise DecodeRefusalError(
                Reason.DEVICE_MISMATCH, f"A frame is of device {named!r}, the path is of {device_id!r}."
            )
    site, sequence = fields["site"], fields["sequence"]
    if site and not is_metric_name(site):
        raise DecodeRefusalError(Reason.BAD_SHAPE, "site is a text of at most 256 printable characters.")
    if sequence is not None and not 0 <= sequence <= SEQUENCE_MAX:
        raise DecodeRefusalError(Reason.BAD_SHAPE, "sequence is an integer from 0 to 2^63 - 1.")
    received_ms = received_us // 1000
    check_event_time(fields["event_time_ms"], received_ms, limits)
    return TelemetryFrame(
        device_id=named,
        site=site,
        sequence=sequence,
        event_time_ms=fields["event_time_ms"],
        received_time_ms=received_ms,
        protocol=protocol,
        historical=fields["historical"],
        metrics=_metrics(fields["metrics"], received_ms, limits),
        gateway_in_us=received_us,
    )


def _metrics(entries: list[dict[str, Any]], received_ms: int, limits: DecodeLimits) -> tuple[Metric, ...]:
    if not entries:
        raise DecodeRefusalError(Reason.BAD_SHAPE, "A frame has at least one metric.")
    if len(entries) > limits.metrics_per_frame_max:
        raise DecodeRefusalError(
            Reason.TOO_MANY_METRICS,
            f"{len(entries)} metrics in one frame; at most {limits.metrics_per_frame_max}.",
        )
    metrics = tuple([_metric(entry, received_ms, limits) for entry in entries])
    if len({metric.name for metric in metrics}) != len(metrics):
        raise DecodeRefusalError(Reason.DUPLICATE_KEY, "A metric is given twice in one frame.")
    return metrics


def _metric(entry: dict[str, Any], received_ms: int, limits: DecodeLimits) -> Metric:
    name, number, text = entry["name"], entry["number"], entry["text"]
    if not known_metric_name(name):
        raise DecodeRefusalError(
            Reason.INVALID_METRIC_NAME,
            f"A metric name is 1 to 256 printable characters, unlike {name[:64]!r}.",
        )
    if (number is None) == (text is None):
        raise DecodeRefusalError(Reason.BAD_SHAPE, f"{name[:64]!r} has a number or a text, one of them.")
    if number is not None and not math.isfinite(number):
        raise DecodeRefusalError(Reason.NOT_A_NUMBER, f"The value of {name[:64]!r} is not finite.")
    # PostgreSQL takes no NUL in a text.
    if text is not None and (len(text) > TEXT_MAX_CHARACTERS or "\x00" in text):
        raise DecodeRefusalError(
            Reason.INVALID_TEXT,
            f"The text of {name[:64]!r} has NUL or more than {TEXT_MAX_CHARACTERS} characters.",
        )
    if not 0 <= entry["quality"] <= QUALITY_MAX:
        raise DecodeRefusalError(Reason.BAD_SHAPE, f"quality is an integer from 0 to {QUALITY_MAX}.")
    event_time_ms = entry["event_time_ms"]
    if event_time_ms is not None:
        check_event_time(event_time_ms, received_ms, limits)
    return Metric(name, number, text, entry["quality"], event_time_ms)

"""Avro telemetry → frames, or the reason why not. Pure: no clock, no I/O.

In: one `TelemetryFrame` as a plain Avro body with its writer schema's fingerprint, or several in an Avro
object container file (Avro 1.12 specification, "Object Container Files"; codecs null and deflate).
Out: a tuple of `TelemetryFrame` in the order given, or `Rejected`.
Guarantees: never raises, whatever the bytes are. All or nothing. Takes what `decode_json` would take and
refuses the rest by the same names. What is the gateway's to say (received time, protocol, hop stamps, edge
state) is the gateway's, whatever the sender wrote there. Only the schemas of this program's own versions are
read, so no stranger's schema is ever resolved; unpacking stops at `unpacked_max_bytes`.
Not here: one frame's bytes (`avro_frame`), who may send (`http_transport`).
"""

from __future__ import annotations

import json
import zlib
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

import fastavro

from plantwire.gateway.avro_frame import HAS_EDGE_STATE, Origin, read_frame
from plantwire.gateway.decode_json import DecodeLimits, DecodeRefusalError, refuse_oversized, refuse_too_many
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.codec import FRAME_CODEC, schema_fingerprint
from plantwire.schemas.records import TelemetryFrame

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
        origin = Origin(device_id, protocol, received_us, limits)
        frame, end = read_frame(body, 0, _has_edge_state(writer), origin)
        if end != len(body):
            raise DecodeRefusalError(Reason.NOT_AVRO, f"{len(body) - end} bytes follow the frame.")
        frames = (frame,)
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
        has_edge_state, is_packed, sync = _read_header(stream)
        origin = Origin(device_id, protocol, received_us, limits)
        frames: list[TelemetryFrame] = []
        metrics = 0
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
            end = 0
            for _ in range(count):
                frame, end = read_frame(block, end, has_edge_state, origin)
                frames.append(frame)
                metrics += len(frame.metrics)
                refuse_too_many(metrics, limits)
            if end != len(block):
                raise DecodeRefusalError(Reason.NOT_AVRO, "A block has more bytes than its frames.")
        if not frames:
            raise DecodeRefusalError(Reason.BAD_SHAPE, "The file holds no frame.")
        taken = tuple(frames)
        refuse_oversized(taken)
    except DecodeRefusalError as refusal:
        return refusal.rejected
    return taken


def _read_header(stream: BytesIO) -> tuple[bool, bool, bytes]:
    """(whether frames end with `edge_state`, whether blocks are deflated, the sync marker)."""
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
    has_edge_state = _has_edge_state(_fingerprint_of(schema))
    sync = stream.read(SYNC_BYTES)
    if len(sync) != SYNC_BYTES:
        raise DecodeRefusalError(Reason.NOT_AVRO, "The file ends in its header.")
    return has_edge_state, codec == b"deflate", sync


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


def _has_edge_state(fingerprint: str) -> bool:
    found = HAS_EDGE_STATE.get(fingerprint)
    if found is None:
        raise _unknown_schema()
    return found


def _unknown_schema() -> DecodeRefusalError:
    return DecodeRefusalError(
        Reason.UNKNOWN_SCHEMA, "The schema is not TelemetryFrame as this gateway or one before it knows it."
    )

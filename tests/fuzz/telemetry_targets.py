"""Telemetry bodies: JSON, Avro, gzip, and what is declared about them; tokens."""

from __future__ import annotations

import asyncio
import atexit
import gzip
import json
import zlib
from io import BytesIO
from typing import Any

import fastavro

from plantwire.gateway.decode_avro import decode_avro_file, decode_avro_frame
from plantwire.gateway.decode_json import decode_batch, decode_telemetry
from plantwire.gateway.http_body import BodyReader, DisconnectedError
from plantwire.gateway.http_media import BodyForm, read_form
from plantwire.gateway.http_refusal import RefusalError
from plantwire.gateway.rejected import Rejected
from plantwire.gateway.settings import GatewaySettings
from plantwire.platform.tokens import Claims, Role, TokenAuthority, TokenError
from plantwire.schemas.codec import FRAME_CODEC, UndecodableError, load_schema
from plantwire.schemas.records import Metric, TelemetryFrame
from tests.fuzz.cursor import Cursor
from tests.fuzz.frame_checks import LIMITS, RECEIVED_MS, RECEIVED_US, check_frames, check_rejected
from tests.fuzz.json_building import BUILT_FROM, build_json
from tests.fuzz.target import Check

HTTP = frozenset({"http"})
BODY_LIMIT = 4096
UNPACKED_MAX = 64 * 1024
FRAME = TelemetryFrame(
    device_id="press-1",
    site="hall",
    sequence=7,
    event_time_ms=RECEIVED_MS,
    received_time_ms=RECEIVED_MS,
    protocol="http",
    historical=False,
    metrics=(
        Metric("temperature", 101.5),
        Metric("state", None, "on", 0),
        Metric("late", 1.0, None, 192, RECEIVED_MS - 5),
    ),
    gateway_in_us=RECEIVED_US,
)


def json_check() -> Check:
    """Bodies of one device. What is taken is what the standard library's parser reads too."""

    def check(data: bytes) -> None:
        data = _body(data)
        outcome = decode_telemetry(data, "press-1", "http", RECEIVED_US, LIMITS)
        if isinstance(outcome, Rejected):
            check_rejected(outcome)
            return
        check_frames(outcome, HTTP)
        _check_values(data, outcome, is_batch=False)

    return check


def batch_check() -> Check:
    """Bodies of several devices."""

    def check(data: bytes) -> None:
        data = _body(data)
        outcome = decode_batch(data, "http", RECEIVED_US, LIMITS)
        if isinstance(outcome, Rejected):
            check_rejected(outcome)
            return
        check_frames(outcome, HTTP)
        _check_values(data, outcome, is_batch=True)

    return check


def _body(data: bytes) -> bytes:
    if data[:1] < bytes((BUILT_FROM,)):
        return data
    return build_json(Cursor(data[1:]), _KEYS)


_KEYS = (
    *(b"metrics", b"timestamp", b"sequence", b"site", b"quality", b"historical", b"deviceId", b"frames"),
    *(b"t", b"temperature", b"a:b", b"\\u0074", b"", b"\\u0000", b"unknown"),
)


def _check_values(data: bytes, frames: tuple[TelemetryFrame, ...], *, is_batch: bool) -> None:
    parsed: Any = json.loads(data)
    if is_batch and isinstance(parsed, dict):
        parsed = parsed["frames"]
    bodies = parsed if isinstance(parsed, list) else [parsed]
    assert len(bodies) == len(frames)
    for body, frame in zip(bodies, frames, strict=True):
        if is_batch:
            assert body["deviceId"] == frame.device_id
        values = {m.name: m.text if m.number is None else m.number for m in frame.metrics}
        assert values == {
            name: value if isinstance(value, str) else float(value) for name, value in body["metrics"].items()
        }


def json_seeds() -> list[bytes]:
    """Each field and kind of value at least once."""
    return [
        b'{"metrics": {"temperature": 101.2, "state": "on", "ok": true}}',
        b'[{"timestamp": 1700000000000, "sequence": 1, "site": "a", "quality": 192, "historical": true,'
        b' "metrics": {"t": -1e-7}}, {"metrics": {"a:b": "x:y", "\\u00e9\\ud83d\\ude00": 9007199254740993}}]',
        b'{"metrics": {"t": 1, "t": 2}}',
        b'{"metrics": {"t": NaN, "u": 1e999, "v": null, "w": [1], "x": {"y": 1}}}',
        b'{"timestamp": 99999999999999999999, "metrics": {"": 0, "\\u0000": "\\u0000"}}',
        b"[" * 40 + b"]" * 40,
        b'\xef\xbb\xbf{"metrics": {"t": 1}}',
        b'{"metrics": {"t": "\\ud800"}}',
        # Built: {"metrics": {"t": 0, "temperature": "x"}, "timestamp": 1700000000000}
        bytes((BUILT_FROM, 0, 2, 0, 0, 2, 8, 0x80, 0, 9, 0xB0, 1, 1, 0x80, 8)),
        bytes((BUILT_FROM, 0x60, 2, 0, 2, 6, 0xB0, 11, 0, 0, 1, 8, 0x80, 2, 0, 1, 0, 0, 1, 9, 0xE0, 1)),
    ]


def batch_seeds() -> list[bytes]:
    """Both forms of a batch."""
    return [
        b'{"frames": [{"deviceId": "press-1", "metrics": {"t": 1}}, '
        b'{"deviceId": "a:b", "timestamp": 1700000000000, "metrics": {"u": "x"}}]}',
        b'[{"deviceId": "press-1", "metrics": {"t": 1.5}}]',
        b'{"frames": [{"deviceId": "a", "deviceId": "b", "metrics": {"t": 1}}], "frames": []}',
        b'{"frames": [{"deviceId": "\\u0061", "metrics": {"t": 1}}]}',
        *json_seeds(),
    ]


def avro_frame_check() -> Check:
    """Plain Avro bodies, by each known schema and unknown ones. First byte: which."""
    fingerprints = (None, FRAME_CODEC.fingerprint, *FRAME_CODEC._writers, "0" * 16, "not hex")

    def check(data: bytes) -> None:
        cursor = Cursor(data)
        fingerprint = cursor.choose(fingerprints)
        device_id = cursor.choose((None, "press-1"))
        outcome = decode_avro_frame(cursor.rest(), fingerprint, device_id, "http", RECEIVED_US, LIMITS)
        if isinstance(outcome, Rejected):
            check_rejected(outcome)
        else:
            assert len(outcome) == 1
            assert device_id in (None, outcome[0].device_id)
            check_frames(outcome, HTTP)

    return check


def avro_frame_seeds() -> list[bytes]:
    """A frame by the schema in force, and by a former one."""
    body = FRAME_CODEC.encode(FRAME)
    former = BytesIO()
    fields = FRAME_CODEC.decode_fields(body)
    fastavro.schemaless_writer(
        former, fastavro.parse_schema(load_schema("released/TelemetryFrame.1")), fields
    )
    return [b"\0\0" + body, b"\x01\x01" + body, b"\x02\0" + former.getvalue(), b"\0\0" + body + b"\0"]


def avro_file_check() -> Check:
    """Object container files."""

    def check(data: bytes) -> None:
        cursor = Cursor(data)
        device_id = cursor.choose((None, "press-1"))
        outcome = decode_avro_file(cursor.rest(), device_id, "http", RECEIVED_US, LIMITS, UNPACKED_MAX)
        if isinstance(outcome, Rejected):
            check_rejected(outcome)
        else:
            assert 0 < len(outcome) <= LIMITS.frames_max
            check_frames(outcome, HTTP)

    return check


def avro_file_seeds() -> list[bytes]:
    """Files with and without compression, of one frame and of several, and a bomb."""
    fields = FRAME_CODEC.decode_fields(FRAME_CODEC.encode(FRAME))
    seeds = []
    for codec, number in (("null", 1), ("deflate", 3), ("deflate", 25)):
        out = BytesIO()
        schema = fastavro.parse_schema(load_schema("TelemetryFrame"))
        fastavro.writer(out, schema, [fields] * number, codec=codec)
        seeds.append(b"\0" + out.getvalue())
    bomb = BytesIO()
    long_text = {**fields, "metrics": [{**fields["metrics"][1], "text": "x" * 200_000}]}
    fastavro.writer(bomb, fastavro.parse_schema(load_schema("TelemetryFrame")), [long_text], codec="deflate")
    return [*seeds, b"\x01" + bomb.getvalue()]


def gzip_check() -> Check:
    """Compressed bodies in chunks. First byte: as they are, compressed here, or compressed and damaged."""
    settings = GatewaySettings(token_secret="f" * 32, gateway_body_limit_bytes=BODY_LIMIT)
    runner = asyncio.Runner()
    atexit.register(runner.close)

    def check(data: bytes) -> None:
        cursor = Cursor(data)
        mode, size = cursor.byte() % 4, 1 + cursor.byte() * 4
        damage_at, damage = cursor.number(2), cursor.byte()
        expected = cursor.rest()
        body = bytearray(expected if mode == 0 else gzip.compress(expected, 1, mtime=0))
        if mode == 2 and body:
            body[damage_at % len(body)] ^= damage or 1
        elif mode == 3:
            body += expected[:damage] or b"\0"
        chunks = [bytes(body[at : at + size]) for at in range(0, len(body), size)] or [b""]
        reader = BodyReader(settings)
        unpacked = runner.run(_read(reader, chunks))
        assert reader._held_bytes == 0
        if isinstance(unpacked, RefusalError):
            assert unpacked.rejected.detail if hasattr(unpacked, "rejected") else str(unpacked)
            assert mode != 1 or len(expected) > BODY_LIMIT or len(body) > BODY_LIMIT
            return
        assert len(unpacked) <= BODY_LIMIT
        assert unpacked == gzip.decompress(bytes(body))
        assert mode == 0 or unpacked == expected or mode == 2

    return check


async def _read(reader: BodyReader, chunks: list[bytes]) -> bytes | RefusalError:
    waiting = list(chunks)

    async def receive() -> dict[str, Any]:
        if not waiting:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    with reader.hold() as held:
        try:
            return await reader.read({}, receive, held, True)
        except RefusalError as refusal:
            return refusal
        except DisconnectedError:
            raise AssertionError("it reads past the end of the body") from None


def gzip_seeds() -> list[bytes]:
    """One member, two, a bomb, an empty one, zeros at the end."""
    body = json_seeds()[1]
    head = b"\0\x08\0\0\0"
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = bomb.compress(b"\0" * 1_000_000) + bomb.flush()
    return [
        head + gzip.compress(body),
        head + gzip.compress(body) * 2,
        head + packed[:BODY_LIMIT],
        head + gzip.compress(b""),
        head + gzip.compress(body) + b"\0" * 9,
        b"\x01\x01\0\0\0" + body,
        b"\x02\x01\x05\0\x04" + body,
        b"\x03\x01\0\0\x04" + body,
    ]


def headers_check() -> Check:
    """Content-Type, Content-Encoding and the fingerprint, one line each."""
    names = (b"content-type", b"content-encoding", b"plantwire-fingerprint")

    def check(data: bytes) -> None:
        lines = data.split(b"\n")
        try:
            form = read_form(dict(zip(names, lines, strict=False)))
        except RefusalError:
            return
        assert isinstance(form, BodyForm)

    return check


def headers_seeds() -> list[bytes]:
    """What is taken, and near misses."""
    return [
        b"application/json; charset=utf-8\ngzip",
        b"application/vnd.plantwire.frame+avro\nidentity\n0123456789abcdef",
        b'application/avro; a="b;c"\nx-gzip, gzip',
        b"avro/binary",
        b"text/plain\nbr",
    ]


def token_check() -> Check:
    """Access tokens as text."""
    authority = TokenAuthority("k" * 32, "plantwire", "plantwire")

    def check(data: bytes) -> None:
        try:
            claims = authority.verify(data.decode("utf-8", "surrogateescape"))
        except TokenError:
            return
        assert isinstance(claims, Claims)

    return check


def token_seeds() -> list[bytes]:
    """A good one, one that is not signed, one of another shape."""
    authority = TokenAuthority("k" * 32, "plantwire", "plantwire")
    good = authority.issue("anna", Role.DEVICE, ["press-1"], RECEIVED_MS // 1000, 10**9).encode()
    head, body, _ = good.split(b".")
    return [good, b"eyJhbGciOiJub25lIn0." + body + b".", head + b"." + body, b"e30.e30.e30"]


def stored_frame_check() -> Check:
    """Frames as they come from Kafka: any bytes, by any schema."""
    fingerprints = (None, FRAME_CODEC.fingerprint, *FRAME_CODEC._writers, "0" * 16)

    def check(data: bytes) -> None:
        cursor = Cursor(data)
        fingerprint = cursor.choose(fingerprints)
        try:
            frame = FRAME_CODEC.decode(cursor.rest(), fingerprint)
        except UndecodableError:
            return
        assert isinstance(frame, TelemetryFrame)

    return check


def stored_frame_seeds() -> list[bytes]:
    """As `avro_frame_seeds`, without the device."""
    return [seed[:1] + seed[2:] for seed in avro_frame_seeds()]

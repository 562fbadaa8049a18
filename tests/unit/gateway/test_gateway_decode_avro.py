"""The Avro decoders: what they take, what they refuse by which name, and that nothing makes them raise."""

from __future__ import annotations

import json
import math
import struct
import time
import zlib
from io import BytesIO
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantwire.gateway.avro_frame import HAS_EDGE_STATE
from plantwire.gateway.decode_avro import decode_avro_file, decode_avro_frame
from plantwire.gateway.decode_json import DecodeLimits
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.codec import FRAME_CODEC, AvroCodec, load_schema
from plantwire.schemas.records import QUALITY_BAD, Metric, TelemetryFrame

NOW_MS = 1_767_225_600_000
NOW_US = NOW_MS * 1000 + 123
LIMITS = DecodeLimits(metrics_per_frame_max=50, frames_max=20, time_ahead_max_ms=60_000)
UNPACKED_MAX = 100_000
SCHEMA = load_schema("TelemetryFrame")
FORMER = load_schema("released/TelemetryFrame.1")
SENT = TelemetryFrame(
    device_id="press-1",
    site="north",
    sequence=41,
    event_time_ms=NOW_MS - 5000,
    received_time_ms=7,
    protocol="forged",
    historical=True,
    metrics=(Metric("t", 21.5, None, QUALITY_BAD, NOW_MS - 5001), Metric("mode", None, "auto")),
    gateway_in_us=1,
    gateway_out_us=2,
    edge_state=b"forged",
)
TAKEN = msgspec.structs.replace(
    SENT, received_time_ms=NOW_MS, protocol="http", gateway_in_us=NOW_US, gateway_out_us=0, edge_state=b""
)
Outcome = tuple[TelemetryFrame, ...] | Rejected


def changed(**fields: Any) -> TelemetryFrame:
    return msgspec.structs.replace(SENT, **fields)


def of(*metrics: Metric) -> TelemetryFrame:
    return changed(metrics=metrics)


def decode(
    frame: TelemetryFrame | bytes, device_id: str | None = "press-1", fingerprint: str | None = None
) -> Outcome:
    body = frame if isinstance(frame, bytes) else FRAME_CODEC.encode(frame)
    return decode_avro_frame(body, fingerprint, device_id, "http", NOW_US, LIMITS)


def container(
    *frames: TelemetryFrame, codec: str = "null", schema: Any = SCHEMA, sync_interval: int = 16_000
) -> bytes:
    out = BytesIO()
    records = [msgspec.to_builtins(frame, builtin_types=(bytes,)) for frame in frames]
    fastavro.writer(out, schema, records, codec=codec, sync_interval=sync_interval)
    return out.getvalue()


def decode_file(body: bytes, device_id: str | None = "press-1") -> Outcome:
    return decode_avro_file(body, device_id, "http", NOW_US, LIMITS, UNPACKED_MAX)


def assert_refused(outcome: Outcome, reason: Reason) -> None:
    assert isinstance(outcome, Rejected), outcome
    assert outcome.reason == reason
    assert outcome.detail.endswith(".")
    assert len(outcome.detail) < 400


def test_a_frame_is_taken_and_what_is_the_gateway_s_to_say_is_replaced() -> None:
    assert decode(SENT) == (TAKEN,)


def test_a_frame_that_names_no_device_is_the_path_s() -> None:
    assert decode(changed(device_id="")) == (TAKEN,)


def test_without_a_path_the_frame_names_the_device() -> None:
    assert decode(SENT, device_id=None) == (TAKEN,)
    assert_refused(decode(changed(device_id=""), device_id=None), Reason.INVALID_DEVICE_ID)


def test_a_former_schema_is_read_by_its_fingerprint() -> None:
    former = AvroCodec(TelemetryFrame, FORMER)
    body = former.encode(SENT)
    assert decode(body, fingerprint=former.fingerprint) == (TAKEN,)
    assert decode(body, fingerprint=f" {former.fingerprint.upper()}") == (TAKEN,)
    assert_refused(decode(body), Reason.NOT_AVRO)


@pytest.mark.parametrize("fingerprint", ["", "0" * 16, "x", "0" * 10_000])
def test_an_unknown_fingerprint_is_refused(fingerprint: str) -> None:
    assert_refused(decode(SENT, fingerprint=fingerprint), Reason.UNKNOWN_SCHEMA)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (changed(device_id="press-2"), Reason.DEVICE_MISMATCH),
        (changed(device_id="a/b"), Reason.INVALID_DEVICE_ID),
        (changed(site="a\x00"), Reason.BAD_SHAPE),
        (changed(sequence=-1), Reason.BAD_SHAPE),
        (changed(event_time_ms=0), Reason.TIMESTAMP_OUT_OF_RANGE),
        (changed(event_time_ms=-(2**63)), Reason.TIMESTAMP_OUT_OF_RANGE),
        (changed(event_time_ms=2**53 + 1), Reason.TIMESTAMP_OUT_OF_RANGE),
        (changed(event_time_ms=NOW_MS + 60_001), Reason.TIMESTAMP_AHEAD),
        (of(), Reason.BAD_SHAPE),
        (of(Metric("t")), Reason.BAD_SHAPE),
        (of(Metric("t", 1.0, "both")), Reason.BAD_SHAPE),
        (of(Metric("t", math.nan)), Reason.NOT_A_NUMBER),
        (of(Metric("t", -math.inf)), Reason.NOT_A_NUMBER),
        (of(Metric("t", 1.0, None, -1)), Reason.BAD_SHAPE),
        (of(Metric("t", 1.0, None, 65_536)), Reason.BAD_SHAPE),
        (of(Metric("t", 1.0, None, 192, 0)), Reason.TIMESTAMP_OUT_OF_RANGE),
        (of(Metric("t", 1.0, None, 192, NOW_MS + 60_001)), Reason.TIMESTAMP_AHEAD),
        (of(Metric("", 1.0)), Reason.INVALID_METRIC_NAME),
        (of(Metric("a\nb", 1.0)), Reason.INVALID_METRIC_NAME),
        (of(Metric("n" * 257, 1.0)), Reason.INVALID_METRIC_NAME),
        (of(Metric("t", None, "a\x00")), Reason.INVALID_TEXT),
        (of(Metric("t", None, "x" * 8193)), Reason.INVALID_TEXT),
        (of(Metric("t", 1.0), Metric("t", 2.0)), Reason.DUPLICATE_KEY),
        (of(*(Metric(f"m{n}", 1.0) for n in range(51))), Reason.TOO_MANY_METRICS),
    ],
)
def test_what_json_may_not_say_avro_may_not_either(frame: TelemetryFrame, reason: Reason) -> None:
    assert_refused(decode(frame), reason)
    assert_refused(decode_file(container(frame)), reason)


def test_a_frame_too_large_for_kafka_is_refused() -> None:
    limits = DecodeLimits(metrics_per_frame_max=1000, frames_max=1, time_ahead_max_ms=0)
    body = FRAME_CODEC.encode(of(*(Metric(f"m{n}", None, "x" * 8000) for n in range(120))))
    outcome = decode_avro_frame(body, None, "press-1", "http", NOW_US, limits)
    assert_refused(outcome, Reason.FRAME_TOO_LARGE)


def test_every_cut_and_every_addition_is_refused() -> None:
    body = FRAME_CODEC.encode(SENT)
    for end in range(len(body)):
        assert_refused(decode(body[:end]), Reason.NOT_AVRO)
    assert_refused(decode(body + b"\x00"), Reason.NOT_AVRO)


@pytest.mark.parametrize("codec", ["null", "deflate"])
@pytest.mark.parametrize("schema", [SCHEMA, FORMER])
def test_a_file_of_several_blocks_keeps_its_order(codec: str, schema: Any) -> None:
    frames = [changed(sequence=n) for n in range(20)]
    outcome = decode_file(container(*frames, codec=codec, schema=schema, sync_interval=1))
    assert not isinstance(outcome, Rejected), outcome
    assert [frame.sequence for frame in outcome] == list(range(20))
    assert outcome[0] == msgspec.structs.replace(TAKEN, sequence=0)


def test_a_file_of_several_devices_without_a_path() -> None:
    outcome = decode_file(container(SENT, changed(device_id="press-2")), device_id=None)
    assert not isinstance(outcome, Rejected), outcome
    assert [frame.device_id for frame in outcome] == ["press-1", "press-2"]


def test_one_bad_frame_refuses_the_file() -> None:
    assert_refused(decode_file(container(SENT, changed(event_time_ms=0))), Reason.TIMESTAMP_OUT_OF_RANGE)


def test_bounds_of_a_file() -> None:
    assert_refused(decode_file(container(*[SENT] * 21)), Reason.TOO_MANY_FRAMES)
    assert_refused(decode_file(container(*[SENT] * 21, sync_interval=1)), Reason.TOO_MANY_FRAMES)
    assert_refused(decode_file(container()), Reason.BAD_SHAPE)
    assert_refused(decode_file(container(SENT, codec="bzip2")), Reason.UNSUPPORTED_MEDIA_TYPE)


def test_another_schema_is_refused_unread() -> None:
    other = {"type": "record", "name": "X", "fields": [{"name": "a", "type": "long"}]}
    out = BytesIO()
    fastavro.writer(out, other, [{"a": 1}])
    assert_refused(decode_file(out.getvalue()), Reason.UNKNOWN_SCHEMA)
    newer = {**SCHEMA, "fields": [*SCHEMA["fields"], {"name": "z", "type": "long", "default": 0}]}
    assert_refused(decode_file(container(SENT, schema=newer)), Reason.UNKNOWN_SCHEMA)


def header(schema: bytes, codec: bytes = b"null") -> bytes:
    out = BytesIO(b"Obj\x01")
    out.seek(4)
    meta = {"avro.schema": schema, "avro.codec": codec}
    fastavro.schemaless_writer(out, fastavro.parse_schema({"type": "map", "values": "bytes"}), meta)
    return out.getvalue() + b"s" * 16


def block(count: int, data: bytes, size: int | None = None) -> bytes:
    out = BytesIO()
    for number in (count, len(data) if size is None else size):
        fastavro.schemaless_writer(out, fastavro.parse_schema("long"), number)
    return out.getvalue() + data + b"s" * 16


OWN = json.dumps(SCHEMA).encode()
BODY = FRAME_CODEC.encode(SENT)


def test_the_file_by_hand_is_taken() -> None:
    assert decode_file(header(OWN) + block(1, BODY)) == (TAKEN,)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (b"", Reason.UNKNOWN_SCHEMA),
        (b"\xff", Reason.UNKNOWN_SCHEMA),
        (b"[" * 16_000, Reason.UNKNOWN_SCHEMA),
        (b"[" * 400 + b"]" * 400, Reason.UNKNOWN_SCHEMA),
        (b'{"type":' * 900 + b'"int"' + b"}" * 900, Reason.UNKNOWN_SCHEMA),
        (OWN + b" " * 20_000, Reason.UNKNOWN_SCHEMA),
        (b'{"type": "record"}', Reason.UNKNOWN_SCHEMA),
        (b"null", Reason.UNKNOWN_SCHEMA),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_hostile_schema_is_refused(schema: bytes, reason: Reason) -> None:
    assert_refused(decode_file(header(schema) + block(1, BODY)), reason)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Obj\x01",
        b"Obj\x02" + header(OWN)[4:],
        header(OWN)[:-1],
        header(OWN) + block(1, BODY)[:-1],
        header(OWN) + block(1, BODY)[:-1] + b"x",
        header(OWN) + block(1, BODY, size=-1),
        header(OWN) + block(1, BODY, size=2**62),
        header(OWN) + block(-1, BODY),
        header(OWN) + block(2, BODY),
        header(OWN) + block(1, BODY + BODY),
        header(OWN) + block(1, b""),
        header(OWN) + b"\xff" * 100,
        header(OWN, b"deflate") + block(1, BODY),
        header(OWN, b"deflate") + block(1, zlib.compress(BODY, wbits=-15) + b"12345"),
        header(OWN, b"deflate") + block(1, zlib.compress(BODY, wbits=-15)[:-3]),
    ],
)
def test_a_damaged_file_is_refused(body: bytes) -> None:
    assert_refused(decode_file(body), Reason.NOT_AVRO)


def test_a_block_that_unpacks_without_end_is_refused_at_the_limit() -> None:
    bomb = zlib.compress(bytes(200_000_000), 9, wbits=-15)
    assert_refused(decode_file(header(OWN, b"deflate") + block(1, bomb)), Reason.BODY_TOO_LARGE)
    several = b"".join(block(0, zlib.compress(bytes(60_000), wbits=-15)) for _ in range(3))
    outcome = decode_file(header(OWN, b"deflate") + several)
    assert isinstance(outcome, Rejected)


def test_a_frame_that_claims_lengths_beyond_its_end_is_refused() -> None:
    for length in (b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x01", b"\x80" * 50, struct.pack("<d", 1e300)):
        assert isinstance(decode(length + BODY[1:]), Rejected)


NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=30)
TIMES = st.integers(1, NOW_MS + 60_000)
NUMBERS = st.builds(
    Metric,
    NAMES,
    st.floats(allow_nan=False, allow_infinity=False),
    st.none(),
    st.integers(0, 65_535) | st.just(192),
    st.none() | TIMES,
)
TEXTS = st.builds(
    Metric,
    NAMES,
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40),
    st.integers(0, 65_535),
    st.none() | TIMES,
)
FRAMES = st.builds(
    TelemetryFrame,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}", fullmatch=True),
    st.text(st.characters(exclude_categories=["C"]), max_size=30),
    st.none() | st.integers(0, 2**63 - 1),
    TIMES,
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.booleans(),
    st.lists(NUMBERS | TEXTS, min_size=1, max_size=8, unique_by=lambda metric: metric.name).map(tuple),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=100),
)


@given(FRAMES, st.booleans())
@settings(max_examples=300)
def test_every_frame_that_the_codec_writes_is_read(frame: TelemetryFrame, is_former: bool) -> None:
    codec = AvroCodec(TelemetryFrame, FORMER) if is_former else FRAME_CODEC
    expected = msgspec.structs.replace(
        frame,
        received_time_ms=NOW_MS,
        protocol="http",
        gateway_in_us=NOW_US,
        gateway_out_us=0,
        edge_state=b"",
    )
    assert decode(codec.encode(frame), None, codec.fingerprint) == (expected,)


def test_every_schema_that_the_codec_reads_is_read() -> None:
    assert set(HAS_EDGE_STATE) == {FRAME_CODEC.fingerprint, *FRAME_CODEC._writers}


def long(number: int) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema("long"), number)
    return out.getvalue()


def with_metrics(blocks: bytes) -> bytes:
    """A frame whose array of metrics is written by hand."""
    empty = FRAME_CODEC.encode(changed(metrics=(), gateway_in_us=0, gateway_out_us=0, edge_state=b""))
    assert empty.endswith(bytes(4))
    return empty[:-4] + blocks + bytes(3)


ONE = b"\x02a\x02" + struct.pack("<d", 1.5) + b"\x00\x80\x03\x00"
TWO = b"\x02b" + ONE[2:]


@pytest.mark.parametrize(
    "blocks",
    [
        long(2) + ONE + TWO + b"\x00",
        long(1) + ONE + long(1) + TWO + b"\x00",
        long(-2) + long(len(ONE + TWO)) + ONE + TWO + b"\x00",
        long(-1) + long(len(ONE)) + ONE + long(1) + TWO + b"\x00",
    ],
)
def test_metrics_in_blocks_are_joined(blocks: bytes) -> None:
    assert decode(with_metrics(blocks)) == (
        msgspec.structs.replace(TAKEN, metrics=(Metric("a", 1.5), Metric("b", 1.5))),
    )


def test_a_million_metrics_are_refused_before_they_are_read() -> None:
    many = b"\x00\x00\x00\x80\x03\x00" * 170_000
    for blocks in (long(170_000) + many, long(-170_000) + long(7) + many, long(51) + ONE, long(2**62) + ONE):
        started_s = time.perf_counter()
        assert_refused(decode(with_metrics(blocks)), Reason.TOO_MANY_METRICS)
        assert time.perf_counter() - started_s < 0.05
    blocks = b"".join(long(1) + b"\x04%02d" % number + ONE[2:] for number in range(60))
    assert_refused(decode(with_metrics(blocks + b"\x00")), Reason.TOO_MANY_METRICS)


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_random_bytes_never_raise(body: bytes) -> None:
    for outcome in (decode(body), decode_file(body), decode_file(header(OWN) + body)):
        assert isinstance(outcome, Rejected) or outcome


@given(st.data(), st.sampled_from(["null", "deflate"]))
@settings(max_examples=300)
def test_damage_never_raises_and_what_is_taken_encodes(data: st.DataObject, codec: str) -> None:
    body = bytearray(data.draw(st.sampled_from([BODY, container(SENT, SENT, codec=codec)])))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    for outcome in (decode(bytes(body), None), decode_file(bytes(body), None)):
        if not isinstance(outcome, Rejected):
            for frame in outcome:
                assert FRAME_CODEC.decode(FRAME_CODEC.encode(frame)) == frame
                assert all(m.number is None or math.isfinite(m.number) for m in frame.metrics)

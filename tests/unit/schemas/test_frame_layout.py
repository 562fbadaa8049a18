"""Reading by layout gives what the codec gives, or leaves it to the codec."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from plantwire.schemas import frame_layout
from plantwire.schemas.codec import FRAME_CODEC, UndecodableError
from plantwire.schemas.frame_layout import FrameReader
from plantwire.schemas.records import QUALITY_BAD, Metric, TelemetryFrame

NOW_MS = 1_795_000_000_000


def frame(*metrics: Metric, at_ms: int = NOW_MS, **changes: Any) -> TelemetryFrame:
    fields: dict[str, Any] = {
        "device_id": "press-01",
        "site": "hall",
        "sequence": None,
        "event_time_ms": at_ms,
        "received_time_ms": at_ms + 3,
        "protocol": "http",
        "historical": False,
        "metrics": metrics or (Metric("a", 1.0), Metric("b", 2.0)),
        "gateway_in_us": at_ms * 1000,
        "gateway_out_us": at_ms * 1000 + 55,
    }
    return TelemetryFrame(**(fields | changes))


def learnt(body: bytes) -> FrameReader:
    reader = FrameReader()
    assert reader.read(body) is None
    reader.learn(body, FRAME_CODEC.decode_fields(body))
    return reader


def agrees(reader: FrameReader, body: bytes) -> bool:
    """Whether the layout read `body`; what it reads must be what the codec reads."""
    reading = reader.read(body)
    if reading is None:
        return False
    decoded = FRAME_CODEC.decode(body)
    assert reading.layout.device_id == decoded.device_id
    assert reading.layout.site == decoded.site
    assert reading.layout.historical == decoded.historical
    assert reading.layout.names == tuple(metric.name for metric in decoded.metrics)
    assert repr(reading.numbers) == repr(tuple(metric.number for metric in decoded.metrics))
    assert reading.event_time_ms == decoded.event_time_ms
    assert reading.received_time_ms == decoded.received_time_ms
    assert all(m.quality == 192 and m.text is None and m.event_time_ms is None for m in decoded.metrics)
    return True


def test_the_next_frame_of_a_device_is_read_by_its_layout() -> None:
    reader = learnt(FRAME_CODEC.encode(frame()))
    assert agrees(
        reader, FRAME_CODEC.encode(frame(Metric("a", -7.5), Metric("b", 1e300), at_ms=NOW_MS + 999))
    )


def test_other_devices_metrics_and_flags_are_not() -> None:
    reader = learnt(FRAME_CODEC.encode(frame()))
    for other in (
        frame(device_id="press-02"),
        frame(site="hell"),
        frame(historical=True),
        frame(protocol="mqtt"),
        frame(Metric("a", 1.0), Metric("c", 2.0)),
        frame(Metric("a", 1.0)),
        frame(Metric("a", 1.0), Metric("b", 2.0, quality=QUALITY_BAD)),
        frame(sequence=5),
        frame(edge_state=b"x"),
    ):
        assert reader.read(FRAME_CODEC.encode(other)) is None


def test_bodies_of_the_former_schema_have_layouts_too() -> None:
    former = FRAME_CODEC.encode(frame())[:-1]
    reader = learnt(former)
    assert agrees(reader, FRAME_CODEC.encode(frame(Metric("a", 3.0), Metric("b", 4.0)))[:-1])
    assert reader.read(FRAME_CODEC.encode(frame())) is None


def test_what_is_not_simple_has_no_layout() -> None:
    for complicated in (
        frame(Metric("a", 1.0), Metric("b", text="on")),
        frame(Metric("a", 1.0), Metric("b", 2.0, event_time_ms=5)),
        frame(Metric("a", 1.0), Metric("b", 2.0, quality=QUALITY_BAD)),
        frame(Metric("a", 1.0)),
        frame(device_id="x" * 100),
        frame(received_time_ms=2**62),
    ):
        body = FRAME_CODEC.encode(complicated)
        assert learnt(body).read(body) is None


def test_a_sequence_keeps_its_layout_until_it_grows() -> None:
    reader = learnt(FRAME_CODEC.encode(frame(sequence=100)))
    assert agrees(reader, FRAME_CODEC.encode(frame(sequence=5000)))
    assert reader.read(FRAME_CODEC.encode(frame(sequence=5))) is None


def test_memory_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(frame_layout, "MAX_NUMBERS", 6)
    reader = FrameReader()
    bodies = [FRAME_CODEC.encode(frame(device_id=f"d{n}")) for n in range(5)]
    for body in bodies:
        reader.learn(body, FRAME_CODEC.decode_fields(body))
    assert [reader.read(body) is not None for body in bodies] == [False, False, True, True, True]


def test_a_device_that_never_settles_is_left_to_the_codec() -> None:
    reader = FrameReader()
    bodies = [FRAME_CODEC.encode(frame(Metric(f"{n:02}", 1.0), Metric("b", 2.0))) for n in range(40)]
    for body in bodies:
        reader.learn(body, FRAME_CODEC.decode_fields(body))
    assert reader.read(bodies[-1]) is None
    assert reader.read(bodies[frame_layout.MAX_RELEARNT]) is not None


names = st.text(min_size=1, max_size=5)
times = st.integers(0, 2**52) | st.integers(NOW_MS, NOW_MS + 10**9)
numbers = st.floats()


@st.composite
def pairs(draw: st.DrawFn) -> tuple[TelemetryFrame, TelemetryFrame]:
    """Two frames that share a layout, or nearly."""
    metric_names = draw(st.lists(names, min_size=1, max_size=6))
    base = frame(
        *(Metric(name, draw(numbers)) for name in metric_names),
        at_ms=draw(times),
        sequence=draw(st.none() | st.integers(0, 2**40)),
    )
    other = frame(
        *(Metric(name, draw(numbers)) for name in metric_names),
        at_ms=draw(times),
        sequence=draw(st.just(base.sequence) | st.none() | st.integers(0, 2**40)),
    )
    return base, other


@given(pairs())
def test_layouts_read_what_the_codec_reads(pair: tuple[TelemetryFrame, TelemetryFrame]) -> None:
    first, second = (FRAME_CODEC.encode(f) for f in pair)
    reader = learnt(first)
    agrees(reader, first)
    agrees(reader, second)


@given(st.integers(0, 2**32), st.integers(1, 4))
@example(0, 1)
def test_a_damaged_body_is_read_the_same_or_not_at_all(seed: int, damages: int) -> None:
    chance = random.Random(seed)
    reader = learnt(FRAME_CODEC.encode(frame(sequence=300)))
    body = bytearray(FRAME_CODEC.encode(frame(Metric("a", 3.0), Metric("b", 4.0), sequence=400)))
    for _ in range(damages):
        body[chance.randrange(len(body))] = chance.randrange(256)
    try:
        FRAME_CODEC.decode(bytes(body))
    except UndecodableError:
        assert reader.read(bytes(body)) is None
    else:
        agrees(reader, bytes(body))

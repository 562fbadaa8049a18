"""Records become rows, or are counted with the reason why not."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.domain.admission import MAX_AHEAD_MS
from plantwire.schemas.records import Metric
from plantwire.storage.batch import GAP_MINUTES, ISLANDS_MAX, MINUTE_MS, Batch, Record
from plantwire.storage.reading import LATE_AFTER_MS, LATEST_MS, RecordReader
from plantwire.storage.rows import COLUMNS
from tests.telemetry_truth import frame, record

AT_MS = 1_790_000_000_123
POSTGRES_EPOCH_MS = 946_684_800_000
Row = tuple[str, str, int, float | None, str | None, int]


def read(*records: Record, horizon_ms: int = 0, reader: RecordReader | None = None) -> Batch:
    batch = Batch()
    (reader or RecordReader()).read(records, horizon_ms, batch)
    return batch


def rows_of(batch: Batch) -> list[Row]:
    """The rows of all islands, unpacked from PostgreSQL's format."""
    return [row for island in batch.islands() for piece in island.pieces for row in unpack(piece.rows)]


def unpack(rows: bytes) -> list[Row]:
    found: list[Row] = []
    position = 0
    while position < len(rows):
        (count,) = struct.unpack_from(">h", rows, position)
        assert count == len(COLUMNS)
        position += 2
        values: list[bytes | None] = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", rows, position)
            position += 4
            values.append(None if length < 0 else rows[position : position + length])
            position += max(length, 0)
        device, metric, time, number, text, quality = values
        assert device is not None
        assert metric is not None
        assert time is not None
        assert quality is not None
        found.append(
            (
                device.decode(),
                metric.decode(),
                struct.unpack(">q", time)[0] // 1000 + POSTGRES_EPOCH_MS,
                None if number is None else struct.unpack(">d", number)[0],
                None if text is None else text.decode(),
                struct.unpack(">i", quality)[0],
            )
        )
    return found


def test_a_frame_becomes_a_row_for_each_metric() -> None:
    made = frame(
        "press-1",
        AT_MS,
        Metric("temperature", 21.5),
        Metric("mode", text="über"),
        Metric("speed", quality=500, event_time_ms=AT_MS - 7),
    )
    batch = read(record(made))
    assert rows_of(batch) == [
        ("press-1", "temperature", AT_MS, 21.5, None, 192),
        ("press-1", "mode", AT_MS, None, "über", 192),
        ("press-1", "speed", AT_MS - 7, None, None, 500),
    ]
    assert (batch.frames, batch.samples, batch.partitions) == (1, 3, {0})


metrics = st.lists(
    st.tuples(
        st.text(
            st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=("Cc",)),
            min_size=1,
            max_size=20,
        ),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    min_size=2,
    max_size=8,
)


@given(metrics, st.lists(st.integers(-200_000, 3_000), min_size=2, max_size=6), st.booleans())
def test_frames_read_by_their_layout_give_the_same_batch_as_those_that_the_codec_reads(
    named: list[tuple[str, float]], delays_ms: list[int], historical: bool
) -> None:
    records = [
        record(
            frame(
                "press-1",
                AT_MS + number * 1000,
                *(Metric(name, value + number) for name, value in named),
                received_time_ms=AT_MS + number * 1000 + delay_ms,
                historical=historical,
            ),
            number,
        )
        for number, delay_ms in enumerate(delays_ms)
    ]
    together = read(*records, horizon_ms=AT_MS + 1000)
    apart = Batch()
    for one in records:
        RecordReader().read([one], AT_MS + 1000, apart)  # knows no layout
    assert together.islands() == apart.islands()
    assert together.expired() == apart.expired()
    for counted in ("frames", "samples", "late_samples", "refused", "refused_samples", "oldest_received_ms"):
        assert getattr(together, counted) == getattr(apart, counted), counted


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (record(b"\xff\x01", key="press-1"), "undecodable"),
        (record(b"", key="press-1"), "undecodable"),
        (record(frame("press-1", AT_MS), key="press-2"), "key-is-not-the-device"),
        (record(frame("press/1", AT_MS)), "device-id"),
        (record(frame("press-1", AT_MS, received_time_ms=LATEST_MS + 1)), "time-out-of-range"),
    ],
)
def test_a_record_that_is_no_frame_of_its_key_is_refused_with_the_reason(
    refused: Record, reason: str
) -> None:
    batch = read(refused)
    assert batch.refused == [(refused, reason)]
    assert batch.islands() == []


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (Metric("a", 1.0, event_time_ms=AT_MS + 5 + MAX_AHEAD_MS + 1), "from-the-future"),
        (Metric("a", 1.0, event_time_ms=-1), "time-out-of-range"),
        (Metric("a\n", 1.0), "metric-name"),
        (Metric("a", float("nan")), "not-finite"),
        (Metric("a", float("inf")), "not-finite"),
        (Metric("a", text="b\x00"), "text-with-nul"),
    ],
)
def test_a_sample_that_cannot_be_stored_is_counted_and_the_others_are_stored(
    metric: Metric, reason: str
) -> None:
    batch = read(record(frame("press-1", AT_MS, metric, Metric("good", 2.0))))
    assert dict(batch.refused_samples) == {reason: 1}
    assert rows_of(batch) == [("press-1", "good", AT_MS, 2.0, None, 192)]


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_a_number_that_is_none_is_found_in_a_frame_of_a_known_layout_too(number: float) -> None:
    reader = RecordReader()
    read(record(frame("press-1", AT_MS, Metric("a", 1.0), Metric("b", 1.0))), reader=reader)
    batch = read(record(frame("press-1", AT_MS, Metric("a", number), Metric("b", 1.0))), reader=reader)
    assert dict(batch.refused_samples) == {"not-finite": 1}
    assert [row[1] for row in rows_of(batch)] == ["b"]


@given(st.binary(max_size=200), st.integers(0, 120), st.booleans())
def test_no_bytes_break_the_reader(noise: bytes, place: int, inside: bool) -> None:
    body = record(frame("press-1", AT_MS, Metric("a", 1.0), Metric("b", text="x"))).body
    made = body[:place] + noise + body[place + len(noise) :] if inside else noise
    reader = RecordReader()
    batch = read(record(body, key="press-1"), record(made, key="press-1"), reader=reader)
    assert batch.frames == 2
    assert len(rows_of(batch)) == batch.samples >= 2
    assert len(batch.refused) <= 1


def test_what_is_not_for_a_historian_is_left_out_and_counted() -> None:
    batch = read(record(frame("press-1", AT_MS, Metric("a", 1.0), protocol="sparkplug-b-transient")))
    assert dict(batch.left_out) == {"transient": 1}
    assert (batch.frames, batch.samples) == (1, 0)


def test_samples_before_the_horizon_are_kept_apart() -> None:
    made = frame("press-1", AT_MS, Metric("a", 1.0, event_time_ms=AT_MS - 10), Metric("b", 2.0))
    batch = read(record(made), horizon_ms=AT_MS)
    assert [row[1] for row in rows_of(batch)] == ["b"]
    expired = batch.expired()
    assert expired is not None
    assert [row[1] for piece in expired.pieces for row in unpack(piece.rows)] == ["a"]
    assert batch.samples == 2


@pytest.mark.parametrize(
    ("changes", "late"),
    [
        ({}, 0),
        ({"received_time_ms": AT_MS + LATE_AFTER_MS}, 0),
        ({"received_time_ms": AT_MS + LATE_AFTER_MS + 1}, 2),
        ({"historical": True}, 2),
    ],
)
def test_late_and_historical_samples_are_counted(changes: dict[str, Any], late: int) -> None:
    made = frame("press-1", AT_MS, Metric("a", 1.0), Metric("b", 1.0), **changes)
    reader = RecordReader()
    for _ in range(2):  # by the codec, then by the layout
        batch = read(record(made), reader=reader)
        assert batch.late_samples == late
        assert batch.samples == 2


def test_minutes_with_a_gap_between_them_are_islands_and_keep_the_order() -> None:
    base_ms = AT_MS // MINUTE_MS * MINUTE_MS
    times_ms = [base_ms, base_ms - 90 * MINUTE_MS, base_ms + 5 * MINUTE_MS, base_ms - 90 * MINUTE_MS, base_ms]
    frames = [frame("press-1", at_ms, Metric("a", float(n))) for n, at_ms in enumerate(times_ms)]
    islands = read(*(record(one, number) for number, one in enumerate(frames))).islands()
    assert [(i.first_minute * MINUTE_MS, i.last_minute * MINUTE_MS) for i in islands] == [
        (base_ms - 90 * MINUTE_MS, base_ms - 90 * MINUTE_MS),
        (base_ms, base_ms + 5 * MINUTE_MS),
    ]
    assert [[piece.record.offset for piece in island.pieces] for island in islands] == [[1, 3], [0, 4, 2]]
    first, second = islands[1].halves()
    assert first.pieces + second.pieces == islands[1].pieces
    assert (first.samples, second.samples) == (1, 2)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60))
def test_a_batch_is_divided_at_its_widest_gaps_into_a_few_islands(minutes: list[int]) -> None:
    frames = [frame("press-1", minute * MINUTE_MS, Metric("a", 1.0)) for minute in minutes]
    islands = read(*(record(one, number) for number, one in enumerate(frames))).islands()
    assert 1 <= len(islands) <= ISLANDS_MAX
    assert sorted(p.record.offset for i in islands for p in i.pieces) == list(range(len(minutes)))
    between = [later.first_minute - earlier.last_minute for earlier, later in pairwise(islands)]
    assert all(gap > GAP_MINUTES for gap in between)
    for island in islands:
        inside = [m for m in sorted(set(minutes)) if island.first_minute <= m <= island.last_minute]
        left = [later - earlier for earlier, later in pairwise(inside)]
        assert max(left, default=0) <= (min(between) if len(islands) == ISLANDS_MAX else GAP_MINUTES)


def test_a_record_of_the_former_schema_is_read() -> None:
    made = frame("press-1", AT_MS, Metric("a", 1.0))
    body = record(made).body
    assert body.endswith(b"\x00")  # the field that schema 2 added, empty
    batch = read(Record(0, 0, b"press-1", body[:-1]))
    assert rows_of(batch) == [("press-1", "a", AT_MS, 1.0, None, 192)]
    assert msgspec.structs.asdict(made)["edge_state"] == b""

"""Frames as lines of InfluxDB's line protocol."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.schemas.records import Metric
from plantwire.storage.batch import Record
from plantwire.storage.influx_lines import LineReader, Lines
from tests.telemetry_truth import frame, record

AT_MS = 1_790_000_000_000


def lines_of(*records: Record) -> Lines:
    found = Lines()
    LineReader("telemetry").read(records, found)
    return found


def test_a_number_and_a_text_are_a_line_each() -> None:
    made = frame("press-1", AT_MS, Metric("temperature", 20.5, None), Metric("mode", None, 'a "b" \\ c\nd'))
    found = lines_of(record(made))
    assert found.lines == [
        b"telemetry,device=press-1,metric=temperature,site=hall-1 value=20.5,quality=192i 1790000000000",
        b"telemetry,device=press-1,metric=mode,site=hall-1 "
        b'text="a \\"b\\" \\\\ c\nd",quality=192i 1790000000000',
    ]
    assert (found.frames, dict(found.left_out)) == (1, {})


def test_names_are_escaped_and_a_site_that_is_none_is_left_out() -> None:
    made = frame("press-1", AT_MS, Metric("Node Control/Öl, a=b\\c", 1.0, None), site="")
    assert lines_of(record(made)).lines == [
        "telemetry,device=press-1,metric=Node\\ Control/Öl\\,\\ a\\=b\\c "
        "value=1.0,quality=192i 1790000000000".encode()
    ]
    for site in ("hall\n1", "hall\\"):
        (line,) = lines_of(record(frame("press-1", AT_MS, Metric("n", 1.0, None), site=site))).lines
        assert line.startswith(b"telemetry,device=press-1,metric=n value")
    (line,) = lines_of(record(frame("press-1", AT_MS, Metric("n", 1.0, None), site="hall 1"))).lines
    assert b",site=hall\\ 1 value" in line


def test_a_metric_has_its_own_time_and_quality() -> None:
    made = frame("press-1", AT_MS, Metric("n", 1.5, None, 0, AT_MS - 7), Metric("m", None, None, 500))
    assert [line.partition(b" ")[2] for line in lines_of(record(made)).lines] == [
        b"value=1.5,quality=0i 1789999999993",
        b"quality=500i 1790000000000",
    ]


@pytest.mark.parametrize(
    ("made", "reason", "count"),
    [
        (record(b"\x00"), "undecodable", 1),
        (record(frame("press-1", AT_MS, Metric("n", 1.0, None)), key="press-2"), "key-is-not-the-device", 1),
        (record(frame("press-1", AT_MS, Metric("n", math.nan, None))), "not-finite", 1),
        (record(frame("press-1", AT_MS, Metric("n\\", 1.0, None))), "name-ends-with-backslash", 1),
        (
            record(frame("press-1", AT_MS, Metric("n", 1.0, None), received_time_ms=AT_MS - 600_000)),
            "from-the-future",
            1,
        ),
        (
            record(frame("press-1", AT_MS, *[Metric("n", 1.0, None)] * 3, protocol="sparkplug-b-transient")),
            "transient",
            3,
        ),
    ],
)
def test_what_is_no_line_is_counted(made: Record, reason: str, count: int) -> None:
    found = lines_of(made)
    assert found.lines == []
    assert dict(found.left_out) == {reason: count}


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=1, max_size=5),
    st.sampled_from(["a b", "c=d,e", "ö"]),
    st.sampled_from(["hall 1", "", "h\\"]),
    st.booleans(),
)
def test_frames_read_by_their_layout_give_the_same_lines(
    values: list[list[float]], name: str, site: str, historical: bool
) -> None:
    made = [
        record(
            frame(
                "press-1",
                AT_MS + n,
                Metric(name, first, None),
                Metric("m", second, None),
                site=site,
                historical=historical,
            )
        )
        for n, (first, second) in enumerate(values)
    ]
    singly = [line for one in made for line in lines_of(one).lines]
    assert lines_of(*made).lines == singly
    assert [float(line.rpartition(b"value=")[2].partition(b",")[0]) for line in singly] == [
        number for pair in values for number in pair
    ]


def test_a_repeated_layout_does_not_let_a_bad_value_through() -> None:
    good = [record(frame("press-1", AT_MS + n, Metric("n", 1.0, None))) for n in range(3)]
    bad = record(frame("press-1", AT_MS + 3, Metric("n", math.inf, None)))
    far = record(frame("press-1", AT_MS + 4, Metric("n", 1.0, None)), key="press-2")
    found = lines_of(*good, bad, far)
    assert len(found.lines) == 3
    assert dict(found.left_out) == {"not-finite": 1, "key-is-not-the-device": 1}

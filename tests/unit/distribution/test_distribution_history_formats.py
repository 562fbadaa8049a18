"""History as JSON, CSV and Arrow."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.distribution.history_formats import (
    COLUMNS,
    About,
    Format,
    NotAcceptableError,
    choose_format,
    encode,
)
from plantwire.distribution.history_store import SLICE_ROWS, Point

ABOUT = About("press-1", 'Über "druck"', "1m", 60_000, 0, 10**9, "1m.60000.120000.1000000000")
# More than two slices, with numbers that only a shortest exact notation keeps.
POINTS: list[Point] = [
    (60_000 * n, 0.1 * n, -1e-300 * n, 1e300, n / 3, 2**53 + n) for n in range(2 * SLICE_ROWS + 3)
]


async def test_json_is_the_contract() -> None:
    answer = json.loads(await encode(Format.JSON, ABOUT, POINTS))
    points = answer.pop("points")
    assert answer == {
        "deviceId": "press-1",
        "metric": 'Über "druck"',
        "resolution": "1m",
        "stepMs": 60_000,
        "from": 0,
        "to": 10**9,
        "cursor": "1m.60000.120000.1000000000",
    }
    assert points == [dict(zip(COLUMNS, point, strict=True)) for point in POINTS]
    assert COLUMNS == ("timestamp", "avg", "min", "max", "sum", "count")


async def test_csv_keeps_every_bit() -> None:
    head, *rows = csv.reader(io.StringIO((await encode(Format.CSV, ABOUT, POINTS)).decode(), newline=""))
    assert tuple(head) == COLUMNS
    assert [(int(t), float(a), float(b), float(c), float(d), int(n)) for t, a, b, c, d, n in rows] == POINTS


async def test_arrow_keeps_every_bit_and_says_what_it_is_of() -> None:
    arrow = pytest.importorskip("pyarrow", reason="the extra `arrow` is not installed")
    with arrow.ipc.open_stream(await encode(Format.ARROW, ABOUT, POINTS)) as reader:
        table = reader.read_all()
    assert tuple(table.schema.names) == COLUMNS
    assert str(table.schema.field("timestamp").type) == "timestamp[ms, tz=UTC]"
    assert not any(field.nullable for field in table.schema)
    assert table.schema.metadata[b"metric"].decode() == ABOUT.metric
    assert table.schema.metadata[b"resolution"] == b"1m"
    columns = [table.column("timestamp").cast(arrow.int64()), *(table.column(name) for name in COLUMNS[1:])]
    assert list(zip(*(column.to_pylist() for column in columns), strict=True)) == POINTS


async def test_an_answer_without_points_is_whole() -> None:
    assert json.loads(await encode(Format.JSON, ABOUT, []))["points"] == []
    assert await encode(Format.CSV, ABOUT, []) == b"timestamp,avg,min,max,sum,count\r\n"
    arrow = pytest.importorskip("pyarrow", reason="the extra `arrow` is not installed")
    with arrow.ipc.open_stream(await encode(Format.ARROW, ABOUT, [])) as reader:
        assert reader.read_all().num_rows == 0


async def test_what_is_not_finite_is_null_in_json() -> None:
    point: Point = (0, math.nan, -math.inf, math.inf, 1.0, 1)
    (found,) = json.loads(await encode(Format.JSON, ABOUT, [point]))["points"]
    assert found == {"timestamp": 0, "avg": None, "min": None, "max": None, "sum": 1.0, "count": 1}
    assert (await encode(Format.CSV, ABOUT, [point])).splitlines()[1] == b"0,nan,-inf,inf,1.0,1"


@pytest.mark.parametrize(
    ("name", "accept", "chosen"),
    [
        (None, None, Format.JSON),
        (None, "*/*", Format.JSON),
        (None, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format.JSON),
        (None, "text/*", Format.CSV),
        (None, "text/csv", Format.CSV),
        (None, "application/json;q=0.1, TEXT/CSV; q=0.2", Format.CSV),
        (None, "application/vnd.apache.arrow.stream", Format.ARROW),
        (None, "application/json;q=0, */*", Format.CSV),
        (None, "application/*;q=0.5, text/csv;q=0.4", Format.JSON),
        ("csv", "application/json", Format.CSV),
        ("ARROW", None, Format.ARROW),
        ("json", "text/csv", Format.JSON),
    ],
)
def test_the_format_is_the_one_asked_for(name: str | None, accept: str | None, chosen: Format) -> None:
    assert choose_format(name, accept, with_arrow=True) is chosen


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "text/csv;q=x", ";q=1", "nonsense"])
def test_what_no_format_satisfies_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptableError, match="application/json, text/csv"):
        choose_format(None, accept, with_arrow=True)


def test_arrow_is_refused_with_advice_where_its_package_is_not_installed() -> None:
    for name, accept in [("arrow", None), (None, Format.ARROW.value), (None, "application/vnd.apache.*")]:
        expected = "pyarrow" if accept != "application/vnd.apache.*" else "application/json"
        with pytest.raises(NotAcceptableError, match=expected):
            choose_format(name, accept, with_arrow=False)
    assert choose_format(None, f"{Format.ARROW.value}, application/json;q=0.5", False) is Format.JSON


def test_an_unknown_format_is_an_invalid_parameter() -> None:
    with pytest.raises(ValueError, match="json, csv, arrow"):
        choose_format("xlsx", None, with_arrow=True)


@given(
    st.one_of(
        st.text(max_size=60),
        st.from_regex(r"(([a-z*]+/[a-z*]+)?(;q=[0-9.a-z-]{0,5})?,?){0,4}", fullmatch=True),
    )
)
def test_any_header_gives_a_format_or_is_refused(accept: str) -> None:
    try:
        chosen = choose_format(None, accept, with_arrow=False)
    except NotAcceptableError:
        return
    assert chosen in {Format.JSON, Format.CSV}

"""History as JSON, CSV or an Arrow IPC stream.

In: points, what they are of. Out: the bytes of an answer, and which format a client asked for.
Guarantees: every format carries the same points and numbers; JSON has null for what is not finite, CSV
`nan`, `inf`, `-inf`.
Not here: where points come from (`history_store`). Arrow needs the package `pyarrow` (extra `arrow`).
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import orjson

from plantwire.distribution.history_store import SLICE_ROWS, Point

COLUMNS: Final = ("timestamp", "avg", "min", "max", "sum", "count")


class Format(Enum):
    """A format by its media type."""

    JSON = "application/json"
    CSV = "text/csv"
    ARROW = "application/vnd.apache.arrow.stream"


FORMAT_BY_NAME: Final = {each.name.lower(): each for each in Format}


class NotAcceptableError(Exception):
    """No format that the client takes; the text says why."""


@dataclass(frozen=True)
class About:
    """What the points of an answer are of; `cursor` where there are more."""

    device_id: str
    metric: str
    resolution: str
    step_ms: int
    start_ms: int
    end_ms: int
    cursor: str | None

    def as_json(self) -> dict[str, Any]:
        """Everything but the points, by the names of the interface."""
        return {
            "deviceId": self.device_id,
            "metric": self.metric,
            "resolution": self.resolution,
            "stepMs": self.step_ms,
            "from": self.start_ms,
            "to": self.end_ms,
            "cursor": self.cursor,
        }


def has_arrow() -> bool:
    """Whether answers in Arrow's format can be made."""
    return importlib.util.find_spec("pyarrow") is not None


def choose_format(name: str | None, accept: str | None, with_arrow: bool) -> Format:
    """The format by the parameter `format`, else by the header `Accept`, else JSON.

    Of formats that the client likes equally, the first in the order JSON, CSV, Arrow. Raises
    NotAcceptableError, and ValueError for a `name` that is no format's.
    """
    if name is not None:
        chosen = FORMAT_BY_NAME.get(name.lower())
        if chosen is None:
            raise ValueError(f"format is none of {', '.join(FORMAT_BY_NAME)}")
        if chosen is Format.ARROW and not with_arrow:
            raise NotAcceptableError(_WITHOUT_ARROW)
        return chosen
    liking = _liking(accept or "*/*")
    usable = [each for each in Format if with_arrow or each is not Format.ARROW]
    best = max(usable, key=lambda each: _likes(liking, each))
    if _likes(liking, best) > 0:
        return best
    if not with_arrow and _likes(liking, Format.ARROW) > 0:
        raise NotAcceptableError(_WITHOUT_ARROW)
    raise NotAcceptableError(f"History comes as {', '.join(each.value for each in usable)}.")


async def encode(media: Format, about: About, points: Sequence[Point]) -> bytes:
    """The body of an answer; gives way to other work between slices."""
    if media is Format.ARROW:
        return await asyncio.to_thread(_arrow, about, points)
    encode_slice = _json_points if media is Format.JSON else _csv_lines
    slices = []
    for start in range(0, len(points), SLICE_ROWS):
        slices.append(encode_slice(points[start : start + SLICE_ROWS]))
        await asyncio.sleep(0)
    if media is Format.CSV:
        return b"".join((",".join(COLUMNS).encode() + b"\r\n", *slices))
    head = orjson.dumps(about.as_json())
    return b"".join((head[:-1], b',"points":[', b",".join(slices), b"]}"))


_WITHOUT_ARROW: Final = "This server gives no Arrow: its package pyarrow is not installed (extra `arrow`)."


def _json_points(points: Sequence[Point]) -> bytes:
    return orjson.dumps([dict(zip(COLUMNS, point, strict=True)) for point in points])[1:-1]


def _csv_lines(points: Sequence[Point]) -> bytes:
    return "".join(",".join(map(repr, point)) + "\r\n" for point in points).encode()


def _arrow(about: About, points: Sequence[Point]) -> bytes:
    arrow = importlib.import_module("pyarrow")
    number = arrow.float64()
    types = (arrow.timestamp("ms", tz="UTC"), number, number, number, number, arrow.int64())
    schema = arrow.schema(
        [arrow.field(name, kind, nullable=False) for name, kind in zip(COLUMNS, types, strict=True)],
        metadata={key: str(value) for key, value in about.as_json().items() if value is not None},
    )
    columns = list(zip(*points, strict=True)) or [()] * len(COLUMNS)
    arrays = [arrow.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(arrow.RecordBatch.from_arrays(arrays, schema=schema))
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _liking(accept: str) -> dict[str, float]:
    """Weights (0…1) by media range of an Accept header; what is malformed is left out."""
    liking: dict[str, float] = {}
    for entry in accept.lower().split(","):
        media, *parameters = (word.strip() for word in entry.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weight = min(1.0, max(0.0, float(value)))
                except ValueError:
                    weight = 0.0
        if media:
            liking[media] = weight
    return liking


def _likes(liking: dict[str, float], media: Format) -> float:
    """The weight that the most precise range gives to a format."""
    kind = media.value.partition("/")[0]
    for wanted in (media.value, f"{kind}/*", "*/*"):
        if wanted in liking:
            return liking[wanted]
    return 0.0

"""A DataSet → JSON as text: ``{"columns": [...], "types": [...], "rows": [[...], ...]}``. Pure.

In: a metric with a DataSet. Out: its text; `UnfitError` and `TooLongError` as in `texts`.
Guarantees: 64-bit integers are written exactly; NaN, infinities and elements without a value become null.
Not here: single values (`numbers`, `texts`).
"""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

from plantwire.gateway.decode_json import TEXT_MAX_CHARACTERS
from plantwire.gateway.sparkplug.numbers import NUMBER_READERS
from plantwire.gateway.sparkplug.payload import utf8
from plantwire.gateway.sparkplug.texts import TooLongError, UnfitError, json_text
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb

_CELLS_MAX: Final = TEXT_MAX_CHARACTERS // 2
_TEXT_TYPES: Final = frozenset({pb.String, pb.Text, pb.UUID})
_NAMES: Final[dict[int, str]] = {number: name for name, number in pb.DataType.items()}


def dataset_text(metric: pb.Payload.Metric) -> str:
    """The DataSet of `metric`. Its columns, types and rows must agree (tck-id-payloads-dataset-*)."""
    if not metric.HasField("dataset_value"):
        raise UnfitError("no dataset_value")
    dataset = metric.dataset_value
    width = len(dataset.columns)
    if len(dataset.types) != width or (
        dataset.HasField("num_of_columns") and dataset.num_of_columns != width
    ):
        raise UnfitError(
            f"a DataSet of {dataset.num_of_columns} columns has {width} names and {len(dataset.types)} types"
        )
    if (width or 1) * (len(dataset.rows) + 1) > _CELLS_MAX:
        raise TooLongError
    columns = [utf8(column) for column in dataset.columns]
    if None in columns:
        raise UnfitError("a text that is not UTF-8")
    types = list(dataset.types)
    for datatype in types:
        if datatype not in NUMBER_READERS and datatype not in _TEXT_TYPES:
            raise UnfitError(f"a DataSet's column cannot have datatype {datatype}")
    rows = []
    for row in dataset.rows:
        if len(row.elements) != width:
            raise UnfitError(f"a row of {len(row.elements)} elements in a DataSet of {width} columns")
        rows.append([_cell(datatype, cell) for datatype, cell in zip(types, row.elements, strict=True)])
    names = [_NAMES[datatype] for datatype in types]
    return json_text({"columns": columns, "types": names, "rows": rows})


def _cell(datatype: Any, cell: pb.Payload.DataSet.DataSetValue) -> Any:
    field = cell.WhichOneof("value")
    if field is None:
        return None
    if datatype in _TEXT_TYPES:
        text = utf8(cell.string_value) if field == "string_value" else None
        if text is None:
            raise UnfitError("a text column holds something else")
        return text
    read = NUMBER_READERS[datatype].get(field)
    value = read(getattr(cell, field)) if read is not None else None
    if value is None:
        raise UnfitError(f"a DataSet's element does not fit datatype {datatype}")
    if datatype == pb.Boolean:
        return bool(value)
    return value if isfinite(value) else None

"""One metric's value and quality, for those that are not plain good numbers. Pure.

In: a datatype and a metric. Out: `Value`; `UnfitError` where the value does not fit the datatype.
Guarantees: a number is finite, a text within the bound; what cannot be carried becomes null with quality
bad and a note, so that the last good value is not taken for the present one.
Not here: the fast path for plain numbers (`samples`), members of templates (`samples`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from types import MappingProxyType
from typing import Final, NamedTuple

from plantwire.gateway.sparkplug.arrays import ARRAY_READERS
from plantwire.gateway.sparkplug.datasets import dataset_text
from plantwire.gateway.sparkplug.numbers import NUMBER_READERS
from plantwire.gateway.sparkplug.outcome import Note
from plantwire.gateway.sparkplug.texts import TooLongError, UnfitError, bytes_text, file_text, string_text
from plantwire.schemas.records import QUALITY_BAD, QUALITY_GOOD, QUALITY_STALE
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb

QUALITY_PROPERTY: Final = "Quality"
_QUALITIES: Final = frozenset({QUALITY_BAD, QUALITY_GOOD, QUALITY_STALE})

TEXT_READERS: Final[Mapping[int, Callable[[pb.Payload.Metric], str]]] = MappingProxyType(
    {
        pb.String: string_text,
        pb.Text: string_text,
        pb.UUID: string_text,
        pb.Bytes: bytes_text,
        pb.File: file_text,
        pb.DataSet: dataset_text,
        **ARRAY_READERS,
    }
)
"""For each datatype that is carried as text."""


class Value(NamedTuple):
    """A number, a text, or null (neither); with its quality."""

    number: float | None
    text: str | None
    quality: int
    note: Note | None = None


def is_metric_datatype(datatype: int) -> bool:
    """Whether a metric can have this datatype: not Unknown, PropertySet, PropertySetList, or unheard of."""
    return datatype in NUMBER_READERS or datatype in TEXT_READERS or datatype == pb.Template


def value_of(datatype: int, metric: pb.Payload.Metric) -> Value:
    """The value of a metric that is no Template."""
    quality, note = quality_of(metric)
    if metric.is_null:
        return Value(None, None, quality, note)
    read_text = TEXT_READERS.get(datatype)
    if read_text is not None:
        try:
            return Value(None, read_text(metric), quality, note)
        except TooLongError:
            return Value(None, None, QUALITY_BAD, Note.VALUE_TOO_LONG)
    field = metric.WhichOneof("value")
    if field is None:
        raise UnfitError("no value, and not null")
    read = NUMBER_READERS[datatype].get(field)
    number = read(getattr(metric, field)) if read is not None else None
    if number is None:
        raise UnfitError(f"its {field} does not fit datatype {datatype}")
    if not isfinite(number):
        return Value(None, None, QUALITY_BAD, Note.VALUE_NOT_FINITE)
    return Value(float(number), None, quality, note)


def quality_of(metric: pb.Payload.Metric) -> tuple[int, Note | None]:
    """The Quality property (standard, "Quality Codes"); good where there is none."""
    if not metric.HasField("properties"):
        return QUALITY_GOOD, None
    properties = metric.properties
    # Two lists that should be of one length; a key without a value says nothing.
    for key, value in zip(properties.keys, properties.values, strict=False):
        if key == QUALITY_PROPERTY:
            field = value.WhichOneof("value")
            if value.is_null or field is None:
                return QUALITY_GOOD, None
            if field in ("int_value", "long_value") and getattr(value, field) in _QUALITIES:
                return int(getattr(value, field)), None
            return QUALITY_BAD, Note.QUALITY_UNKNOWN
    return QUALITY_GOOD, None

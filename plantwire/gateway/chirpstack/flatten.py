"""Decoded objects → metrics. Pure.

In: what a codec made of an uplink: numbers, booleans, texts, nulls, nested in objects and lists. Out:
metrics named by the path, levels joined by a slash: ``{"gps": {"lat": 1}, "t": [20, 21]}`` gives `gps/lat`,
`t/0` and `t/1`.
Guarantees: every metric fits `TelemetryFrame` and Avro; depth and number are bounded; two values never get
one name. A null, and a number that is not finite, is a metric without a value, of quality bad. Raises
`FlattenError` and, on objects of a plug-in that misbehave when they are looked at, whatever those raise.
Not here: who made the object (`codecs`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from plantwire.gateway.decode_json import TEXT_MAX_CHARACTERS
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.identifiers import is_metric_name
from plantwire.schemas.records import QUALITY_BAD, Metric

DEPTH_MAX: Final = 8
OWN_PREFIX: Final = "lorawan/"
"""Names below it are given by the gateway; an object may not use them."""

_known_metric_name: Final = lru_cache(maxsize=16_384)(is_metric_name)


class FlattenError(Exception):
    """The object cannot become metrics."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.rejected = Rejected(reason, detail)


def flatten_object(decoded: Mapping[str, object], metrics_max: int) -> list[Metric]:
    """The metrics of an object, in its order; none where it is empty."""
    metrics: dict[str, Metric] = {}
    _add_entries(metrics, decoded.items(), "", 1, metrics_max)
    return list(metrics.values())


def _add_entries(
    metrics: dict[str, Metric],
    entries: Iterable[tuple[object, object]],
    prefix: str,
    depth: int,
    metrics_max: int,
) -> None:
    if depth > DEPTH_MAX:
        raise FlattenError(Reason.BAD_SHAPE, f"The object is nested more than {DEPTH_MAX} levels deep.")
    for key, value in entries:
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            _add_entries(metrics, value.items(), f"{name}/", depth + 1, metrics_max)
        elif isinstance(value, list | tuple):
            _add_entries(metrics, enumerate(value), f"{name}/", depth + 1, metrics_max)
        else:
            _add(metrics, name, value, metrics_max)


def _add(metrics: dict[str, Metric], name: str, value: object, metrics_max: int) -> None:
    if not _known_metric_name(name) or name.startswith(OWN_PREFIX):
        raise FlattenError(
            Reason.INVALID_METRIC_NAME,
            f"A metric name is 1 to 256 printable characters, not below {OWN_PREFIX}, unlike {name[:64]!r}.",
        )
    if name in metrics:
        raise FlattenError(Reason.DUPLICATE_KEY, f"Two values have the name {name[:64]!r}.")
    if len(metrics) >= metrics_max:
        raise FlattenError(Reason.TOO_MANY_METRICS, f"More than {metrics_max} metrics in one frame.")
    metrics[name] = metric_of(name, value)


def metric_of(name: str, value: object) -> Metric:
    """The metric of a plain value; raises `FlattenError` where it is none."""
    if value is None:
        return Metric(name, None, None, QUALITY_BAD)
    if isinstance(value, str):
        return Metric(name, None, _checked_text(name, value))
    if isinstance(value, int | float):  # a boolean is an int, and becomes 0 or 1
        try:
            number = float(value)
        except OverflowError:
            raise FlattenError(
                Reason.NOT_A_NUMBER, f"The value of {name[:64]!r} is out of the range of a double."
            ) from None
        if math.isfinite(number):
            return Metric(name, number)
        return Metric(name, None, None, QUALITY_BAD)
    raise FlattenError(
        Reason.BAD_SHAPE, f"The value of {name[:64]!r} is neither a number, a boolean, a text nor null."
    )


def _checked_text(name: str, value: str) -> str:
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "\x00"  # as unfit as NUL, which PostgreSQL takes in no text
    if len(text) > TEXT_MAX_CHARACTERS or "\x00" in text:
        raise FlattenError(
            Reason.INVALID_TEXT,
            f"The text of {name[:64]!r} has NUL, a lone surrogate or more than "
            f"{TEXT_MAX_CHARACTERS} characters.",
        )
    return text

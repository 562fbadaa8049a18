"""Percentiles of many measurements, and the spread of a few repeats.

In: numbers. Out: frozen records that go into a report as they are.
Guarantees: percentiles are nearest-rank, so each is a value that was measured; nothing is smoothed
or trimmed.
Not here: what was measured (`bench.deliveries`, `bench.detection`), where it is written (`bench.report`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec


class Distribution(msgspec.Struct, frozen=True):
    """Many measurements of one quantity, in the unit of the field that holds this."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float
    mean: float


class Repeats(msgspec.Struct, frozen=True):
    """The same figure from several runs: its median and how far the runs lie apart."""

    values: tuple[float, ...]
    median: float
    min: float
    max: float
    iqr: float


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The nearest-rank percentile of ascending `ordered`: the smallest value that `fraction` of all
    values do not exceed. `fraction` in (0, 1]; raises ValueError for none or for another fraction.
    """
    if not ordered:
        raise ValueError("a percentile needs at least one value")
    if not 0 < fraction <= 1:
        raise ValueError(f"a percentile's fraction lies in (0, 1], not {fraction}")
    # The product of two floats can end a hair above a whole number: 0.95 * 20 must be rank 19.
    rank = math.ceil(round(fraction * len(ordered), 9))
    return ordered[rank - 1]


def distribution(values: Iterable[float]) -> Distribution | None:
    """P50, P95, P99, maximum and mean, rounded to 3 decimals; None where nothing was measured."""
    ordered = sorted(values)
    if not ordered:
        return None
    return Distribution(
        count=len(ordered),
        p50=round(percentile(ordered, 0.50), 3),
        p95=round(percentile(ordered, 0.95), 3),
        p99=round(percentile(ordered, 0.99), 3),
        max=round(ordered[-1], 3),
        mean=round(math.fsum(ordered) / len(ordered), 3),
    )


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two middle ones; raises ValueError for none."""
    return _quantile(sorted(values), 0.5)


def repeats(values: Sequence[float]) -> Repeats:
    """Median, extremes and interquartile range (linear between neighbours, since repeats are few)."""
    ordered = sorted(values)
    return Repeats(
        values=tuple(values),
        median=_quantile(ordered, 0.5),
        min=ordered[0],
        max=ordered[-1],
        iqr=_quantile(ordered, 0.75) - _quantile(ordered, 0.25),
    )


def _quantile(ordered: Sequence[float], fraction: float) -> float:
    if not ordered:
        raise ValueError("a quantile needs at least one value")
    position = fraction * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

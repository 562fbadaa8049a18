"""Coalescing of a device's live values: at most one message per interval, and the newest value wins.

In: frames in order of arrival. Out: the values to show now, or the moment to look again.
Guarantees: the first frame after a quiet interval passes at once; what is held back is merged, never
lost; a value older than the one shown is not shown.
Not here: clocks, Flink, Redis (`domain.live_values`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypedDict

from plantwire.schemas.records import QUALITY_BAD, QUALITY_GOOD

Value = float | str

METRICS_PER_DEVICE_MAX: Final = 2_000
"""A device that keeps making up names would fill its state; further names are not shown."""


class LiveMetricFields(TypedDict):
    """What coalescing reads of a decoded Metric."""

    name: str
    number: float | None
    text: str | None
    quality: int
    event_time_ms: int | None


class Pending(NamedTuple):
    """What a device shows next."""

    shown_ms: int
    """When the last message went out, processing time."""
    timestamp_ms: int
    """Event time of the newest value held back; 0 when none is."""
    values: dict[str, Value]
    newest_ms: dict[str, int]
    """Event time of the newest value seen, per metric."""
    look_again_ms: int = 0
    """When it is time to ask whether the device fell silent, processing time."""
    qualities: dict[str, int] = {}  # noqa: RUF012 - never changed in place
    """Of the values held back those that are not good, and the metrics that have no value now."""


NOTHING = Pending(0, 0, {}, {})


def merge(
    pending: Pending,
    metrics: Sequence[LiveMetricFields],
    event_time_ms: int,
    *,
    historical: bool = False,
) -> tuple[Pending, int]:
    """Take a frame in. A metric without a value takes back the one held: it is known to be unknown.

    Of a `historical` frame only what is newer than the last live value counts: what a device sent, or that it
    died, while its gateway was cut off. Where nothing was live before, history shows nothing.

    The second result counts its values that are not shown: older than what is, or of
    one metric too many.
    """
    values = dict(pending.values)
    qualities = dict(pending.qualities)
    newest_ms = dict(pending.newest_ms)
    timestamp_ms = pending.timestamp_ms
    left_out = 0
    for metric in metrics:
        value = metric["number"] if metric["number"] is not None else metric["text"]
        name = metric["name"]
        at_ms = metric["event_time_ms"] or event_time_ms
        known_ms = newest_ms.get(name)
        if historical and (known_ms is None or at_ms <= known_ms):
            continue
        if known_ms is None and len(newest_ms) >= METRICS_PER_DEVICE_MAX:
            left_out += 1
            continue
        if known_ms is not None and at_ms < known_ms:
            left_out += 1
            continue
        newest_ms[name] = at_ms
        quality = metric["quality"]
        if value is None:
            values.pop(name, None)
            qualities[name] = quality if quality != QUALITY_GOOD else QUALITY_BAD
        else:
            values[name] = value
            if quality != QUALITY_GOOD:
                qualities[name] = quality
            elif qualities:
                qualities.pop(name, None)
        timestamp_ms = max(timestamp_ms, at_ms)
    after = pending._replace(
        timestamp_ms=timestamp_ms, values=values, newest_ms=newest_ms, qualities=qualities
    )
    return after, left_out


def holds_back(pending: Pending) -> bool:
    """Whether there is something to show."""
    return bool(pending.values or pending.qualities)


def due_ms(pending: Pending, interval_ms: int) -> int | None:
    """When the held-back values are to be shown, processing time; None when there are none."""
    return pending.shown_ms + interval_ms if holds_back(pending) else None


def shown(pending: Pending, now_ms: int) -> Pending:
    """The state once the held-back values went out."""
    return pending._replace(shown_ms=now_ms, timestamp_ms=0, values={}, qualities={})

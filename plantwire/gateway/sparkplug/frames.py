"""Samples of one message → frames. Pure.

In: `Samples`, and what the frames of one message share (`Stamp`). Out: frames: historical ones first, by
time; then live ones, then transient ones, each in order of time.
Guarantees: a frame holds each metric at most once, at most `metrics_max` metrics, and fits a Kafka record.
Its event time is that of its newest value, or of the death; a value of another time carries its own.
Not here: reading values (`samples`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from plantwire.gateway.decode_json import FRAME_MAX_BYTES
from plantwire.gateway.sparkplug.metric_table import Definition, MetricTable
from plantwire.gateway.sparkplug.outcome import PROTOCOL, PROTOCOL_TRANSIENT
from plantwire.gateway.sparkplug.samples import Sample, Samples
from plantwire.schemas.records import QUALITY_STALE, Metric, TelemetryFrame

_SURELY_FITS: Final = 500
"""So many metrics without texts fit, however long their names."""
_TEXT_REMEMBERED_MAX: Final = 256
"""A longer text is not kept to be told once more when it goes stale."""


class Stamp(NamedTuple):
    """What the frames of one message share."""

    device_id: str
    site: str
    sequence: int | None
    received_us: int


def frames_of(
    stamp: Stamp, samples: Samples, metrics_max: int, *, late: bool = False
) -> list[TelemetryFrame]:
    """The frames of one message; remembers the last value of each metric.

    `late`: messages that were sent after this one are known. Where they had newer numbers, these are told
    once more after it, as of their own time: a late value may raise an alarm, and none other might come for
    long that says it is over.
    """
    frames: list[TelemetryFrame] = []
    if samples.historical:
        by_time: dict[int, list[Sample]] = {}
        for sample in samples.historical:
            by_time.setdefault(sample[4], []).append(sample)
        for at_ms in sorted(by_time):
            for chunk in _chunks(by_time[at_ms], metrics_max):
                frames.append(_frame(stamp, PROTOCOL, True, at_ms, _metrics(chunk, at_ms)))
    for group, protocol in ((samples.live, PROTOCOL), (samples.transient, PROTOCOL_TRANSIENT)):
        if not group:
            continue
        if samples.repeated:
            group = sorted(group, key=lambda sample: sample[4])
        for chunk in _chunks(group, metrics_max, may_split=samples.repeated):
            newest_ms = max([sample[4] for sample in chunk])
            metrics = _metrics(chunk, newest_ms)
            overtaken = _remember(chunk, metrics, protocol == PROTOCOL_TRANSIENT)
            frames.append(_frame(stamp, protocol, False, newest_ms, metrics))
            if late and overtaken:
                newest_ms = max(sample[4] for sample in overtaken)
                frames.append(_frame(stamp, protocol, False, newest_ms, _metrics(overtaken, newest_ms)))
    return frames


def stale_frames(
    table: MetricTable, definitions: Iterable[Definition], at_ms: int, received_us: int, metrics_max: int
) -> list[TelemetryFrame]:
    """The last values of `definitions` once more, of quality stale, as of `at_ms`.

    A value from later than that, of a device whose clock is ahead, goes stale at its own time: readers that
    go by event time would otherwise keep it.
    """
    groups: dict[str, list[Sample]] = {PROTOCOL: [], PROTOCOL_TRANSIENT: []}
    for definition in definitions:
        last = definition.last
        number, text = (last.number, last.text) if last is not None else (None, None)
        protocol = PROTOCOL_TRANSIENT if definition.transient else PROTOCOL
        stale_ms = max(at_ms, definition.last_ms)
        groups[protocol].append((definition, number, text, QUALITY_STALE, stale_ms))
    stamp = Stamp(table.device_id, table.site, None, received_us)
    return [
        _frame(stamp, protocol, False, at_ms, _metrics(chunk, at_ms))
        for protocol, group in groups.items()
        for chunk in _chunks(group, metrics_max)
    ]


def _frame(
    stamp: Stamp, protocol: str, historical: bool, event_time_ms: int, metrics: tuple[Metric, ...]
) -> TelemetryFrame:
    return TelemetryFrame(
        device_id=stamp.device_id,
        site=stamp.site,
        sequence=stamp.sequence,
        event_time_ms=event_time_ms,
        received_time_ms=stamp.received_us // 1000,
        protocol=protocol,
        historical=historical,
        metrics=metrics,
        gateway_in_us=stamp.received_us,
    )


def _metrics(chunk: list[Sample], frame_ms: int) -> tuple[Metric, ...]:
    return tuple(
        [
            Metric(definition.name, number, text, quality, None if at_ms == frame_ms else at_ms)
            for definition, number, text, quality, at_ms in chunk
        ]
    )


def _remember(chunk: list[Sample], metrics: tuple[Metric, ...], transient: bool) -> list[Sample]:
    """Keep the values for when they go stale; returns the numbers that are newer than the chunk's."""
    overtaken: list[Sample] = []
    for (definition, _, text, _, at_ms), metric in zip(chunk, metrics, strict=True):
        if at_ms < definition.last_ms:
            last = definition.last
            if last is not None and last.number is not None:
                overtaken.append((definition, last.number, None, last.quality, definition.last_ms))
        else:
            too_long = text is not None and len(text) > _TEXT_REMEMBERED_MAX
            definition.last = Metric(definition.name) if too_long else metric
            definition.last_ms = at_ms
            definition.transient = transient
    return overtaken


def _chunks(samples: list[Sample], metrics_max: int, *, may_split: bool = True) -> Iterator[list[Sample]]:
    """`samples` cut where a metric comes again, and where a frame would be too large."""
    simple = len(samples) <= min(metrics_max, _SURELY_FITS) and not may_split
    if simple and all(sample[2] is None for sample in samples):
        if samples:
            yield samples
        return
    chunk: list[Sample] = []
    seen: set[Definition] = set()
    size_bytes = 0
    for sample in samples:
        definition, _, text, _, _ = sample
        # A character takes at most four bytes.
        sample_bytes = definition.size_bytes + (4 * len(text) if text is not None else 0)
        if chunk and (
            definition in seen or len(chunk) >= metrics_max or size_bytes + sample_bytes > FRAME_MAX_BYTES
        ):
            yield chunk
            chunk, seen, size_bytes = [], set(), 0
        chunk.append(sample)
        seen.add(definition)
        size_bytes += sample_bytes
    if chunk:
        yield chunk

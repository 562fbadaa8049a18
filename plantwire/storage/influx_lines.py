"""Kafka records → InfluxDB's line protocol. Pure.

In: records of `device.telemetry.raw`. Out: a line for each sample, without its end, and counts of the rest.
A sample is `telemetry,device=…,metric=…,site=… value=20.5,quality=192i 1790000000000`, or with `text="…"`;
times are ms.
Guarantees: every sample is a line, or counted with the reason why not; what is not stored in the database
(`reading`) is no line either; a line says the same however often it is made.
Source: InfluxDB's documentation of the line protocol, 1.x and 2.x. A tag's value cannot end with a backslash
there, for nothing escapes one.
Not here: sending (`influx_client`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from plantwire.domain.admission import is_too_far_ahead
from plantwire.schemas.codec import FRAME_CODEC, UndecodableError
from plantwire.schemas.frame_layout import FrameLayout, FrameReader, FrameReading
from plantwire.schemas.identifiers import is_metric_name
from plantwire.schemas.topics import HEADER_FINGERPRINT
from plantwire.storage.batch import Record
from plantwire.storage.reading import (
    LATEST_MS,
    PROTOCOL_TRANSIENT,
    REASON_TRANSIENT,
    REASON_UNDECODABLE,
    refusal_of_frame,
    refusal_of_sample,
)

REASON_BACKSLASH: Final = "name-ends-with-backslash"
_PREFIXES_MAX: Final = 500_000
_TAG: Final = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_TEXT: Final = str.maketrans({"\\": r"\\", '"': r"\""})
_GOOD: Final = b",quality=192i "


@dataclass
class Lines:
    """What records came to."""

    lines: list[bytes] = field(default_factory=list)
    frames: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Samples, or whole frames that cannot be read, by reason."""


class LineReader:
    """Reads records one after the other; remembers what frames of a device look like. One thread."""

    def __init__(self, measurement: str) -> None:
        self._measurement = measurement
        self._reader = FrameReader()
        # Lines begin alike for every frame of a layout. Emptied when full: it is quickly learnt again.
        self._beginnings: dict[FrameLayout, tuple[bytes, ...]] = {}
        self._beginnings_count = 0

    def read(self, records: Iterable[Record], found: Lines) -> None:
        """Add the samples of `records` to `found`."""
        for record in records:
            found.frames += 1
            reading = self._reader.read(record.body)
            if reading is None or not self._add_fast(record, reading, found):
                self._add(record, found)

    def _add_fast(self, record: Record, reading: FrameReading, found: Lines) -> bool:
        layout, at_ms, numbers, _ = reading
        received_ms = reading.received_time_ms
        if not (
            at_ms >= 0
            and not is_too_far_ahead(at_ms, received_ms)
            and received_ms <= LATEST_MS
            and math.isfinite(sum(numbers))
            and record.key == layout.device_id.encode()
        ):
            return False
        beginnings = self._beginnings.get(layout)
        if beginnings is None:
            beginnings = self._learn(layout)
        end = _GOOD + str(at_ms).encode()
        found.lines += [
            start + b" value=" + repr(number).encode() + end
            for start, number in zip(beginnings, numbers, strict=True)
        ]
        return True

    def _learn(self, layout: FrameLayout) -> tuple[bytes, ...]:
        if self._beginnings_count >= _PREFIXES_MAX:
            self._beginnings.clear()
            self._beginnings_count = 0
        made = tuple(self._series(layout.device_id, name, layout.site) for name in layout.names)
        self._beginnings[layout] = made
        self._beginnings_count += len(made)
        return made

    def _add(self, record: Record, found: Lines) -> None:
        try:
            frame = FRAME_CODEC.decode_fields(record.body, _fingerprint(record.headers))
        except UndecodableError:
            found.left_out[REASON_UNDECODABLE] += 1
            return
        metrics = frame["metrics"]
        if (reason := refusal_of_frame(record, frame)) is not None:
            found.left_out[reason] += 1
            return
        if frame["protocol"] == PROTOCOL_TRANSIENT:
            found.left_out[REASON_TRANSIENT] += len(metrics)
            return
        if all(is_metric_name(metric["name"]) and not metric["name"].endswith("\\") for metric in metrics):
            self._reader.learn(record.body, frame)
        for metric in metrics:
            at_ms = frame["event_time_ms"] if metric["event_time_ms"] is None else metric["event_time_ms"]
            reason = refusal_of_sample(metric, at_ms, frame["received_time_ms"])
            if reason is None and metric["name"].endswith("\\"):
                reason = REASON_BACKSLASH
            if reason is not None:
                found.left_out[reason] += 1
                continue
            series = self._series(frame["device_id"], metric["name"], frame["site"])
            found.lines.append(b"%s %s %d" % (series, _fields(metric), at_ms))

    def _series(self, device_id: str, metric: str, site: str) -> bytes:
        tags = f"{self._measurement},device={device_id.translate(_TAG)},metric={metric.translate(_TAG)}"
        if is_metric_name(site) and not site.endswith("\\"):
            tags += f",site={site.translate(_TAG)}"
        return tags.encode()


def _fields(metric: dict[str, Any]) -> bytes:
    fields = []
    if metric["number"] is not None:
        fields.append(f"value={metric['number']!r}")
    if metric["text"] is not None:
        fields.append(f'text="{metric["text"].translate(_TEXT)}"')
    fields.append(f"quality={metric['quality']}i")
    return ",".join(fields).encode()


def _fingerprint(headers: Any) -> str | None:
    for name, value in headers or ():
        if name == HEADER_FINGERPRINT and isinstance(value, bytes):
            return value.decode(errors="replace")
    return None

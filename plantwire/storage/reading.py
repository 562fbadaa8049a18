"""Kafka records → rows, refusals and counts. Pure: the present arrives as an argument.

In: records of `device.telemetry.raw`. Out: additions to a `Batch`.
Guarantees: every sample is in the batch as a row, or counted with the reason why not; every record that is no
frame is there with its reason. What is refused as coming from the future is judged by the time at which the
gateway received it, so that a replay is judged alike.
Not here: which of two samples with the same key stays (`tables`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from plantwire.domain.admission import is_too_far_ahead
from plantwire.schemas.codec import FRAME_CODEC, UndecodableError
from plantwire.schemas.frame_layout import FrameLayout, FrameReader, FrameReading
from plantwire.schemas.identifiers import is_device_id, is_metric_name
from plantwire.schemas.records import QUALITY_GOOD
from plantwire.schemas.topics import HEADER_FINGERPRINT
from plantwire.storage.batch import MINUTE_MS, Batch, Piece, Record, Refusal
from plantwire.storage.rows import number_row, row, series_prefix, time_us

REASON_UNDECODABLE: Final = "undecodable"
REASON_KEY: Final = "key-is-not-the-device"
REASON_DEVICE_ID: Final = "device-id"
REASON_TIME: Final = "time-out-of-range"
REASON_FUTURE: Final = "from-the-future"
REASON_NAME: Final = "metric-name"
REASON_NOT_FINITE: Final = "not-finite"
REASON_TEXT: Final = "text-with-nul"
REASON_QUALITY: Final = "quality"
REASON_TRANSIENT: Final = "transient"
FRAME_REASONS: Final = (REASON_UNDECODABLE, REASON_KEY, REASON_DEVICE_ID, REASON_TIME)
SAMPLE_REASONS: Final = (
    REASON_FUTURE,
    REASON_TIME,
    REASON_NAME,
    REASON_NOT_FINITE,
    REASON_TEXT,
    REASON_QUALITY,
)

PROTOCOL_TRANSIENT: Final = "sparkplug-b-transient"
"""Values that are not for a historian (docs/decisions/0013-sparkplug-values-do-not-wait.md)."""
LATEST_MS: Final = 7_258_118_400_000
"""The year 2200. Times outside 1970 to 2200 are no times of a plant, and some not even PostgreSQL's."""
LATE_AFTER_MS: Final = 1_100
"""A live window of 1 s is closed then: its second and 100 ms of grace."""
_PREFIXES_MAX: Final = 500_000
_INT_32: Final = range(-(2**31), 2**31)


class RecordReader:
    """Reads records one after the other; remembers what frames of a device look like. One thread."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        # Rows begin alike for every frame of a layout. Emptied when full: it is quickly learnt again.
        self._prefixes: dict[FrameLayout, tuple[bytes, ...]] = {}
        self._prefixes_count = 0

    def read(self, records: Iterable[Record], horizon_ms: int, batch: Batch) -> None:
        """Add what is in `records`; samples before `horizon_ms` are too old for the tiers."""
        for record in records:
            reading = self._reader.read(record.body)
            if reading is None or not self._add_fast(record, reading, horizon_ms, batch):
                self._add(record, horizon_ms, batch)

    def _add_fast(self, record: Record, reading: FrameReading, horizon_ms: int, batch: Batch) -> bool:
        layout, at_ms, numbers, _ = reading
        received_ms = reading.received_time_ms
        ordinary = (
            at_ms >= max(horizon_ms, 0)
            and not is_too_far_ahead(at_ms, received_ms)
            and received_ms <= LATEST_MS
            and math.isfinite(sum(numbers))
            and record.key == layout.device_id.encode()
        )
        if not ordinary:
            return False
        prefixes = self._prefixes.get(layout)
        if prefixes is None:
            prefixes = self._learn_prefixes(layout)
        at_us = time_us(at_ms)
        rows = b"".join(
            [
                number_row(prefix, at_us, number, QUALITY_GOOD)
                for prefix, number in zip(prefixes, numbers, strict=True)
            ]
        )
        batch.frames += 1
        batch.add(at_ms // MINUTE_MS, Piece(record, rows, len(numbers)))
        _note_age(batch, layout.historical, at_ms, received_ms, len(numbers))
        return True

    def _learn_prefixes(self, layout: FrameLayout) -> tuple[bytes, ...]:
        if self._prefixes_count >= _PREFIXES_MAX:
            self._prefixes.clear()
            self._prefixes_count = 0
        prefixes = tuple(series_prefix(layout.device_id, name) for name in layout.names)
        self._prefixes[layout] = prefixes
        self._prefixes_count += len(prefixes)
        return prefixes

    def _add(self, record: Record, horizon_ms: int, batch: Batch) -> None:
        batch.frames += 1
        try:
            frame = FRAME_CODEC.decode_fields(record.body, _fingerprint(record.headers))
        except UndecodableError:
            batch.refused.append(Refusal(record, REASON_UNDECODABLE))
            return
        if (reason := refusal_of_frame(record, frame)) is not None:
            batch.refused.append(Refusal(record, reason))
            return
        if frame["protocol"] == PROTOCOL_TRANSIENT:
            batch.left_out[REASON_TRANSIENT] += len(frame["metrics"])
            return
        if all(is_metric_name(metric["name"]) for metric in frame["metrics"]):
            self._reader.learn(record.body, frame)
        by_minute: dict[int | None, list[bytes]] = {}
        received_ms = frame["received_time_ms"]
        for metric in frame["metrics"]:
            at_ms = frame["event_time_ms"] if metric["event_time_ms"] is None else metric["event_time_ms"]
            if (reason := refusal_of_sample(metric, at_ms, received_ms)) is not None:
                batch.refused_samples[reason] += 1
                continue
            prefix = series_prefix(frame["device_id"], metric["name"])
            made = row(prefix, time_us(at_ms), metric["number"], metric["text"], metric["quality"])
            by_minute.setdefault(at_ms // MINUTE_MS if at_ms >= horizon_ms else None, []).append(made)
            _note_age(batch, frame["historical"], at_ms, received_ms, 1)
        for minute, rows in by_minute.items():
            piece = Piece(record, b"".join(rows), len(rows))
            if minute is None:
                batch.add_expired(piece)
            else:
                batch.add(minute, piece)


def refusal_of_frame(record: Record, frame: dict[str, Any]) -> str | None:
    """Why a frame, as the codec reads it, is not stored; None when it is."""
    device_id: str = frame["device_id"]
    if not is_device_id(device_id):
        return REASON_DEVICE_ID
    if record.key != device_id.encode():
        # Another key is another partition: whose sample came first would be left to chance.
        return REASON_KEY
    return None if 0 <= frame["received_time_ms"] <= LATEST_MS else REASON_TIME


def refusal_of_sample(metric: dict[str, Any], at_ms: int, received_ms: int) -> str | None:
    """Why one of its samples, of the time `at_ms`, is not stored; None when it is."""
    number, text = metric["number"], metric["text"]
    if not is_metric_name(metric["name"]):
        return REASON_NAME
    if metric["quality"] not in _INT_32:
        return REASON_QUALITY
    if at_ms < 0:
        return REASON_TIME
    if is_too_far_ahead(at_ms, received_ms):
        return REASON_FUTURE
    if number is not None and not math.isfinite(number):
        return REASON_NOT_FINITE
    return REASON_TEXT if text is not None and "\x00" in text else None


def _note_age(batch: Batch, historical: bool, at_ms: int, received_ms: int, samples: int) -> None:
    if historical or received_ms - at_ms > LATE_AFTER_MS:
        batch.late_samples += samples
    if not historical and (batch.oldest_received_ms is None or received_ms < batch.oldest_received_ms):
        batch.oldest_received_ms = received_ms


def _fingerprint(headers: Any) -> str | None:
    for name, value in headers or ():
        if name == HEADER_FINGERPRINT and isinstance(value, bytes):
            return value.decode(errors="replace")
    return None

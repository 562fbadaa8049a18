"""What holds of every frame that a gateway's decoder gives out, whatever came in."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from plantwire.gateway.decode_json import QUALITY_MAX, TEXT_MAX_CHARACTERS, DecodeLimits
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.identifiers import is_device_id, is_metric_name
from plantwire.schemas.records import Metric, TelemetryFrame

RECEIVED_US: Final = 1_700_000_000_000_123
RECEIVED_MS: Final = RECEIVED_US // 1000
LIMITS: Final = DecodeLimits(metrics_per_frame_max=50, frames_max=20, time_ahead_max_ms=60_000)
RECORD_MAX_BYTES: Final = 1_000_000
DETAIL_MAX_CHARACTERS: Final = 1_000


def check_frames(frames: Iterable[TelemetryFrame], protocols: frozenset[str]) -> None:
    """Each frame is valid, fits a Kafka record, and comes back from Avro as it went in."""
    for frame in frames:
        assert is_device_id(frame.device_id), frame.device_id
        assert not frame.site or is_metric_name(frame.site), frame.site
        assert frame.protocol in protocols, frame.protocol
        assert 0 < frame.event_time_ms <= RECEIVED_MS + LIMITS.time_ahead_max_ms, frame.event_time_ms
        assert frame.received_time_ms == RECEIVED_MS
        assert frame.gateway_in_us == RECEIVED_US
        assert frame.edge_state == b""
        assert 0 < len(frame.metrics) <= LIMITS.metrics_per_frame_max, len(frame.metrics)
        for metric in frame.metrics:
            _check_metric(metric)
        body = FRAME_CODEC.encode(frame)
        assert len(body) < RECORD_MAX_BYTES, len(body)
        assert FRAME_CODEC.decode(body, FRAME_CODEC.fingerprint) == frame


def _check_metric(metric: Metric) -> None:
    assert is_metric_name(metric.name), metric.name
    assert metric.number is None or math.isfinite(metric.number), metric
    assert metric.number is None or metric.text is None, metric
    assert 0 <= metric.quality <= QUALITY_MAX, metric
    if metric.text is not None:
        assert len(metric.text) <= TEXT_MAX_CHARACTERS, len(metric.text)
        assert "\x00" not in metric.text, metric
    assert metric.event_time_ms is None or 0 < metric.event_time_ms <= (
        RECEIVED_MS + LIMITS.time_ahead_max_ms
    ), metric


def check_rejected(rejected: Rejected) -> None:
    """A refusal has a known reason and a sentence that can be sent, logged and put into a header."""
    assert isinstance(rejected, Rejected), rejected
    assert isinstance(rejected.reason, Reason)
    assert 0 < len(rejected.detail) <= DETAIL_MAX_CHARACTERS, rejected.detail
    rejected.detail.encode()

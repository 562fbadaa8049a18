"""Why input is refused: a closed set of reasons, the same for HTTP errors, dead letters and counters.

In: nothing. Out: `Reason` and `Rejected`.
Guarantees: the names are stable; clients, dashboards and dead-letter readers act on them.
Not here: the HTTP status of a reason (`http_transport`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class Reason(StrEnum):
    """Why a request or message is refused."""

    # The bytes.
    NOT_JSON = "not-json"
    NOT_A_NUMBER = "not-a-number"
    DUPLICATE_KEY = "duplicate-key"
    BAD_SHAPE = "bad-shape"
    BODY_TOO_LARGE = "body-too-large"
    # What they say.
    INVALID_DEVICE_ID = "invalid-device-id"
    INVALID_METRIC_NAME = "invalid-metric-name"
    INVALID_TEXT = "invalid-text"
    TOO_MANY_METRICS = "too-many-metrics"
    TOO_MANY_FRAMES = "too-many-frames"
    FRAME_TOO_LARGE = "frame-too-large"
    TIMESTAMP_OUT_OF_RANGE = "timestamp-out-of-range"
    TIMESTAMP_AHEAD = "timestamp-ahead"
    # HTTP alone.
    TOKEN_MISSING = "token-missing"  # noqa: S105 - a reason, not a secret
    TOKEN_INVALID = "token-invalid"  # noqa: S105 - a reason, not a secret
    TOKEN_EXPIRED = "token-expired"  # noqa: S105 - a reason, not a secret
    ROLE_TOO_LOW = "role-too-low"
    OTHER_DEVICE = "other-device"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    BODY_TIMEOUT = "body-timeout"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    NOT_AVRO = "not-avro"
    UNKNOWN_SCHEMA = "unknown-schema"
    DEVICE_MISMATCH = "device-mismatch"
    GZIP_CORRUPT = "gzip-corrupt"
    GZIP_INCOMPLETE = "gzip-incomplete"
    GZIP_TRAILING = "gzip-trailing"
    RATE_LIMITED = "rate-limited"
    AUTH_RATE_LIMITED = "auth-rate-limited"
    # Sparkplug alone.
    INVALID_TOPIC = "invalid-topic"
    NOT_PROTOBUF = "not-protobuf"
    NOT_BORN = "not-born"
    INVALID_BIRTH = "invalid-birth"
    UNKNOWN_METRIC = "unknown-metric"
    INVALID_VALUE = "invalid-value"
    TOO_MANY_DEVICES = "too-many-devices"
    # ChirpStack alone.
    TOPIC_MISMATCH = "topic-mismatch"
    UNKNOWN_EVENT = "unknown-event"
    UNKNOWN_CODEC = "unknown-codec"
    CODEC_FAILED = "codec-failed"


NOT_HTTP: Final = frozenset(
    {
        Reason.INVALID_TOPIC,
        Reason.NOT_PROTOBUF,
        Reason.NOT_BORN,
        Reason.INVALID_BIRTH,
        Reason.UNKNOWN_METRIC,
        Reason.INVALID_VALUE,
        Reason.TOO_MANY_DEVICES,
        Reason.TOPIC_MISMATCH,
        Reason.UNKNOWN_EVENT,
        Reason.UNKNOWN_CODEC,
        Reason.CODEC_FAILED,
    }
)
"""Reasons that no HTTP request is refused for: they have no status."""


class Rejected(msgspec.Struct, frozen=True):
    """Input that is refused; `detail` is one sentence fit for the sender."""

    reason: Reason
    detail: str

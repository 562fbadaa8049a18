"""The frozen records behind the Avro schemas, field for field.

In: decoded bytes (`schemas.codec`) or a gateway's decoder. Out: what every tier passes on.
Guarantees: immutable; changed with `msgspec.structs.replace`.
Not here: bytes (`schemas.codec`), JSON (`schemas.wire`).
"""

from __future__ import annotations

from typing import Final

import msgspec

QUALITY_GOOD: Final = 192
QUALITY_BAD: Final = 0
QUALITY_STALE: Final = 500
DELAY_MAX_MS: Final = 7 * 24 * 3600 * 1000
"""The longest delay of an alarm rule."""
MISSING_AFTER_MIN_MS: Final = 1_000
MISSING_AFTER_MAX_MS: Final = 30 * 24 * 3600 * 1000


class AlarmKind:
    """What an AlarmEvent says happened. Plain strings, so that a reader can skip kinds added later."""

    RAISED: Final = "RAISED"
    SEVERITY_CHANGED: Final = "SEVERITY_CHANGED"
    CLEARED: Final = "CLEARED"


class Metric(msgspec.Struct, frozen=True, gc=False):
    """One reading: a finite `number`, or a `text`; never both."""

    name: str
    number: float | None = None
    text: str | None = None
    quality: int = QUALITY_GOOD
    event_time_ms: int | None = None


class TelemetryFrame(msgspec.Struct, frozen=True):
    """One device, one moment, many metrics."""

    device_id: str
    site: str
    sequence: int | None
    event_time_ms: int
    received_time_ms: int
    protocol: str
    historical: bool
    metrics: tuple[Metric, ...]
    gateway_in_us: int = 0
    gateway_out_us: int = 0
    edge_state: bytes = b""
    """`domain.packed_state` of the gateway's own detection before this frame; nearly always empty."""


class AlarmEvent(msgspec.Struct, frozen=True):
    """One change of one alarm; (alarm_id, revision) names it."""

    alarm_id: str
    revision: int
    rule_id: str
    rule_version: int
    device_id: str
    site: str
    metric: str
    value: float | None
    limit: float | None
    severity: int
    kind: str
    message: str
    event_time_ms: int
    raise_time_ms: int
    count: int
    device_us: int = 0
    gateway_in_us: int = 0
    gateway_out_us: int = 0
    detect_in_us: int = 0
    detect_out_us: int = 0
    published_us: int = 0


class Limit(msgspec.Struct, frozen=True):
    """A limit of one severity: violated above `above` or below `below`, until back by `deadband`."""

    severity: int
    above: float | None = None
    below: float | None = None
    deadband: float = 0.0


class Missing(msgspec.Struct, frozen=True):
    """Data of which the last good value is `after_ms` old are missing, with this severity."""

    severity: int
    after_ms: int


class AlarmRule(msgspec.Struct, frozen=True):
    """One alarm rule in one version; `limits` and `missing` are sorted, most severe first.

    A rule has either limits on values, or says when data are missing. An empty `metric` is the device as a
    whole.
    """

    rule_id: str
    version: int
    devices: str
    metric: str
    limits: tuple[Limit, ...]
    on_delay_ms: int = 0
    off_delay_ms: int = 0
    message: str = "{device} {metric} at {value}, limit {limit}"
    retired: bool = False
    missing: tuple[Missing, ...] = ()

"""What comes from Redis, parsed once and as little as delivery needs.

In: the JSON of the Redis channels and keys, as bytes. Out: `AlarmHeader`, `TelemetryUpdate`, or
`MalformedError` with the reason.
Guarantees: a device id that leaves here is one by `schemas.identifiers`; numbers are in range.
Not here: the full alarm, which is passed on as the bytes it came as.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import orjson

from plantwire.schemas.identifiers import is_device_id
from plantwire.schemas.severity import Severity

Values = dict[str, float | int | str]
Qualities = dict[str, int]
"""Metric → OPC quality, of those that are not good."""

_SEQUENCE_MAX: Final = 2**53 - 1  # the largest integer that a JavaScript client holds exactly


class MalformedError(ValueError):
    """Something from Redis is not what the contract says."""


class AlarmHeader(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What delivery needs to know of an alarm on the wire."""

    alarm_id: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    revision: Annotated[int, msgspec.Meta(ge=0)]
    device_id: str
    severity: str
    kind: str
    timestamp: int
    hops: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def rank(self) -> int:
        """The severity as a number, 0 the most severe."""
        return Severity[self.severity].value


class Alarm(msgspec.Struct, frozen=True, gc=False):
    """An alarm on the wire: what was parsed of it, and its bytes."""

    header: AlarmHeader
    body: bytes


class TelemetryUpdate(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """One message of one device."""

    device_id: str
    seq: Annotated[int, msgspec.Meta(ge=1, le=_SEQUENCE_MAX)]
    timestamp: int
    metrics: msgspec.Raw
    quality: msgspec.Raw = msgspec.Raw(b"{}")
    """Metric → OPC quality, of those that are not good."""


class _PublishedHop(msgspec.Struct, gc=False):
    published: float = 0.0


_alarm_decoder = msgspec.json.Decoder(AlarmHeader)
_telemetry_decoder = msgspec.json.Decoder(list[TelemetryUpdate])
_qualities_decoder = msgspec.json.Decoder(Qualities)
_published_decoder = msgspec.json.Decoder(_PublishedHop)


def parse_alarm(body: bytes) -> Alarm:
    """The alarm in `body`; raises `MalformedError`."""
    try:
        header = _alarm_decoder.decode(body)
        # The body goes to clients as it is, so all of it has to be sound; this costs some µs.
        orjson.loads(body)
    except (msgspec.DecodeError, UnicodeDecodeError, orjson.JSONDecodeError) as error:
        raise MalformedError(f"alarm: {error}") from error
    if not is_device_id(header.device_id):
        raise MalformedError("alarm: not a device id")
    if header.severity not in Severity.__members__:
        raise MalformedError("alarm: unknown severity")
    if bytes(header.hops)[:1] != b"{":
        raise MalformedError("alarm: hops is not an object")
    return Alarm(header, body)


def published_ms(header: AlarmHeader) -> float:
    """When the alarm was published to Redis, ms since the epoch; 0 where it does not say."""
    try:
        return _published_decoder.decode(header.hops).published
    except msgspec.DecodeError:
        return 0.0


def parse_telemetry(body: bytes) -> list[TelemetryUpdate]:
    """The updates of one publication; raises `MalformedError`."""
    try:
        updates = _telemetry_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(f"telemetry: {error}") from error
    for update in updates:
        if not is_device_id(update.device_id):
            raise MalformedError("telemetry: not a device id")
        if bytes(update.metrics)[:1] != b"{":
            raise MalformedError("telemetry: metrics is not an object")
        if bytes(update.quality)[:1] != b"{":
            raise MalformedError("telemetry: quality is not an object")
    return updates


def values_of(metrics: bytes | msgspec.Raw) -> Values:
    """Metric → value; raises `MalformedError`."""
    try:
        values: Any = orjson.loads(bytes(metrics))
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"telemetry: {error}") from error
    if not isinstance(values, dict):
        raise MalformedError("telemetry: metrics is not an object")
    return values


def qualities_of(quality: bytes | msgspec.Raw) -> Qualities:
    """Metric → OPC quality; raises `MalformedError`."""
    try:
        return _qualities_decoder.decode(bytes(quality))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(f"telemetry: {error}") from error

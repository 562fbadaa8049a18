"""JSON telemetry → frames, or the reason why not. Pure: no clock, no I/O.

In: the bytes of an HTTP body or an MQTT payload, ``{"timestamp": ms?, "metrics": {name: value}}`` or a
list of such, and when they were received; a batch over devices is ``{"frames": [...]}`` or a list, where
each frame has its ``deviceId``. Out: a tuple of `TelemetryFrame` (one or more, in the order given), or
`Rejected`.
Guarantees: never raises, whatever the bytes are. All or nothing: one bad frame refuses the whole list.
Every accepted frame fits a Kafka record and encodes in Avro; its numbers are finite.
Not here: who may send (`http_transport`), where refused bytes go (`mqtt_transport`).
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any, Final, Never

import msgspec

from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.identifiers import is_device_id, is_metric_name
from plantwire.schemas.records import QUALITY_GOOD, Metric, TelemetryFrame

TIMESTAMP_MAX_MS: Final = 2**53
"""The largest integer that every JSON reader keeps exact."""
SEQUENCE_MAX: Final = 2**63 - 1
QUALITY_MAX: Final = 65_535
TEXT_MAX_CHARACTERS: Final = 8192
FRAME_MAX_BYTES: Final = 900_000
"""Kafka takes records of 1 MB by default; this leaves room for headers and the record's frame."""

_FIELDS: Final = frozenset({"timestamp", "metrics", "quality", "sequence", "site", "historical"})
_BATCH_FIELDS: Final = _FIELDS | {"deviceId"}
# Below this body size no frame can come near FRAME_MAX_BYTES: Avro needs fewer bytes for names and texts
# than JSON does, and METRIC_OVERHEAD_BYTES for the rest of each metric.
_SURELY_FITS_BYTES: Final = 500_000
_METRIC_OVERHEAD_BYTES: Final = 32
_METRIC_MIN_BYTES: Final = 6
"""A metric in JSON, such as `"t":1,`."""

_decoder: Final = msgspec.json.Decoder()
# Devices send the same names over and over: remembering the verdict is four times cheaper than the pattern.
known_metric_name: Final = lru_cache(maxsize=16_384)(is_metric_name)
"""`is_metric_name` with a memory."""


class DecodeLimits(msgspec.Struct, frozen=True):
    """What one message may hold at most."""

    metrics_per_frame_max: int
    frames_max: int
    time_ahead_max_ms: int
    metrics_max: int = 20_000
    """Of all frames of a message together: what is taken in one go costs the event loop so much at most."""


class DecodeRefusalError(Exception):
    """Carries a `Rejected` out of nested decoding; never leaves a decoder."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.rejected = Rejected(reason, detail)


def decode_telemetry(
    body: bytes | bytearray,
    device_id: str,
    protocol: str,
    received_us: int,
    limits: DecodeLimits,
) -> tuple[TelemetryFrame, ...] | Rejected:
    """The frames in `body`, or why there are none.

    `received_us` is when the gateway had the bytes, microseconds since the epoch: the hop stamp, and the
    event time of a frame that brings none.
    """
    try:
        check_device_id(device_id)
        parsed = _parse(body)
        items = parsed if type(parsed) is list else [parsed]
        _check_count(items, limits)
        _check_metrics(body, items, limits)
        _check_keys(body, items, 0)
        frames = tuple([_frame(item, device_id, protocol, received_us, limits) for item in items])
        if len(body) > _SURELY_FITS_BYTES:
            refuse_oversized(frames)
    except DecodeRefusalError as refusal:
        return refusal.rejected
    return frames


def decode_batch(
    body: bytes | bytearray, protocol: str, received_us: int, limits: DecodeLimits
) -> tuple[TelemetryFrame, ...] | Rejected:
    """The frames of several devices in `body`, or why there are none; otherwise as `decode_telemetry`."""
    try:
        parsed = _parse(body)
        colons = 0
        if type(parsed) is dict:
            if parsed.keys() != {"frames"}:
                raise DecodeRefusalError(Reason.BAD_SHAPE, 'A batch is {"frames": [...]}, or the list alone.')
            colons = 1
            parsed = parsed["frames"]
        if type(parsed) is not list:
            raise DecodeRefusalError(Reason.BAD_SHAPE, "The frames of a batch are a list.")
        _check_count(parsed, limits)
        _check_metrics(body, parsed, limits)
        if b"\\" not in body:
            colons += _colons_in_ids(parsed)
        _check_keys(body, parsed, colons)
        frames = tuple([_batch_frame(item, protocol, received_us, limits) for item in parsed])
        if len(body) > _SURELY_FITS_BYTES:
            refuse_oversized(frames)
    except DecodeRefusalError as refusal:
        return refusal.rejected
    return frames


def check_device_id(device_id: str) -> None:
    """Refuses what is no device id."""
    if not is_device_id(device_id):
        raise DecodeRefusalError(
            Reason.INVALID_DEVICE_ID,
            "A device id is 1 to 128 of A-Z a-z 0-9 . _ : @ -, the first a letter or a digit.",
        )


def _check_count(items: list[Any], limits: DecodeLimits) -> None:
    if not items:
        raise DecodeRefusalError(Reason.BAD_SHAPE, "The list holds no frame.")
    if len(items) > limits.frames_max:
        raise DecodeRefusalError(
            Reason.TOO_MANY_FRAMES, f"{len(items)} frames in one message; at most {limits.frames_max}."
        )


def _check_metrics(body: bytes | bytearray, items: list[Any], limits: DecodeLimits) -> None:
    if len(body) < limits.metrics_max * _METRIC_MIN_BYTES:
        return
    metrics = [item.get("metrics") for item in items if type(item) is dict]
    refuse_too_many(sum([len(each) for each in metrics if type(each) is dict]), limits)


def refuse_too_many(metrics: int, limits: DecodeLimits) -> None:
    """Refuses so many metrics in one message."""
    if metrics > limits.metrics_max:
        raise DecodeRefusalError(
            Reason.TOO_MANY_METRICS, f"{metrics} metrics in one message; at most {limits.metrics_max}."
        )


def _check_keys(body: bytes | bytearray, items: list[Any], known_colons: int) -> None:
    """Refuses a key that is given twice. `known_colons` stand elsewhere in the body than behind a key of a
    frame or metric.
    """
    # As many colons as decoded keys: no key can have been given twice. Otherwise a text holds a colon,
    # or a key was lost, and the slow parser says which.
    if body.count(b":") != known_colons + _keys_in_shape(items):
        _refuse_duplicate_keys(body)


def _colons_in_ids(items: list[Any]) -> int:
    """How many colons the device ids have, which commonly use them; right where nothing is escaped."""
    ids = [item.get("deviceId") for item in items if type(item) is dict]
    return sum([device_id.count(":") for device_id in ids if type(device_id) is str])


def _batch_frame(item: Any, protocol: str, received_us: int, limits: DecodeLimits) -> TelemetryFrame:
    device_id = item.get("deviceId") if type(item) is dict else None
    if type(device_id) is not str:
        raise DecodeRefusalError(
            Reason.BAD_SHAPE,
            'A frame of a batch is an object such as {"deviceId": "a", "metrics": {"t": 1}}.',
        )
    check_device_id(device_id)
    return _frame(item, device_id, protocol, received_us, limits, _BATCH_FIELDS)


def _parse(body: bytes | bytearray) -> Any:
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError:
        # With no type asked for, the only complaint left is a number that no double holds.
        raise DecodeRefusalError(Reason.NOT_A_NUMBER, "A number is out of the range of a double.") from None
    except RecursionError:
        raise DecodeRefusalError(Reason.BAD_SHAPE, "The JSON is nested too deeply.") from None
    except msgspec.DecodeError as error:
        _refuse_non_numbers(body)
        raise DecodeRefusalError(Reason.NOT_JSON, f"{error}.") from None
    except UnicodeDecodeError:
        raise DecodeRefusalError(Reason.NOT_JSON, "The body is not UTF-8.") from None


def _refuse_non_numbers(body: bytes | bytearray) -> None:
    """Tells NaN and Infinity, which some encoders emit, from any other malformed JSON."""
    try:
        json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return


def _refuse_constant(token: str) -> Never:
    raise DecodeRefusalError(Reason.NOT_A_NUMBER, f"{token} is not a number that JSON or Plantwire takes.")


def _keys_in_shape(items: list[Any]) -> int:
    """How many keys the frames and their metrics have; deeper ones are refused later anyway."""
    keys = 0
    for item in items:
        if type(item) is dict:
            keys += len(item)
            metrics = item.get("metrics")
            if type(metrics) is dict:
                keys += len(metrics)
    return keys


def _refuse_duplicate_keys(body: bytes | bytearray) -> None:
    try:
        json.loads(body, object_pairs_hook=_unique_object)
    except (ValueError, RecursionError):
        # Python's parser is stricter in one way (integers of over 4,300 digits) and shallower in another;
        # neither passes what comes after this check.
        return


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DecodeRefusalError(Reason.DUPLICATE_KEY, f"The key {key[:64]!r} is given twice.")
            seen.add(key)
    return unique


def _frame(
    item: Any,
    device_id: str,
    protocol: str,
    received_us: int,
    limits: DecodeLimits,
    fields: frozenset[str] = _FIELDS,
) -> TelemetryFrame:
    if type(item) is not dict:
        raise DecodeRefusalError(
            Reason.BAD_SHAPE, 'A frame is an object such as {"metrics": {"temperature": 21.5}}.'
        )
    if not item.keys() <= fields:
        unknown = min(str(key) for key in item.keys() - fields)
        raise DecodeRefusalError(Reason.BAD_SHAPE, f"A frame has no field {unknown[:64]!r}.")
    received_ms = received_us // 1000
    event_time_ms = item.get("timestamp")
    if event_time_ms is None:
        event_time_ms = received_ms
    else:
        check_event_time(event_time_ms, received_ms, limits)
    quality = item.get("quality", QUALITY_GOOD)
    if type(quality) is not int or not 0 <= quality <= QUALITY_MAX:
        raise DecodeRefusalError(Reason.BAD_SHAPE, f"quality is an integer from 0 to {QUALITY_MAX}.")
    sequence = item.get("sequence")
    if sequence is not None and (type(sequence) is not int or not 0 <= sequence <= SEQUENCE_MAX):
        raise DecodeRefusalError(Reason.BAD_SHAPE, "sequence is an integer from 0 to 2^63 - 1.")
    site = item.get("site", "")
    if type(site) is not str or (site and not is_metric_name(site)):
        raise DecodeRefusalError(Reason.BAD_SHAPE, "site is a text of at most 256 printable characters.")
    historical = item.get("historical", False)
    if type(historical) is not bool:
        raise DecodeRefusalError(Reason.BAD_SHAPE, "historical is true or false.")
    return TelemetryFrame(
        device_id=device_id,
        site=site,
        sequence=sequence,
        event_time_ms=event_time_ms,
        received_time_ms=received_ms,
        protocol=protocol,
        historical=historical,
        metrics=_metrics(item.get("metrics"), quality, limits),
        gateway_in_us=received_us,
    )


def check_event_time(event_time_ms: Any, received_ms: int, limits: DecodeLimits) -> None:
    """Refuses what is no time stamp, and one too far ahead."""
    if type(event_time_ms) is not int:
        raise DecodeRefusalError(Reason.BAD_SHAPE, "timestamp is an integer, milliseconds since the epoch.")
    if not 0 < event_time_ms <= TIMESTAMP_MAX_MS:
        raise DecodeRefusalError(Reason.TIMESTAMP_OUT_OF_RANGE, "timestamp is above 0 and at most 2^53 ms.")
    ahead_ms = event_time_ms - received_ms
    if ahead_ms > limits.time_ahead_max_ms:
        raise DecodeRefusalError(
            Reason.TIMESTAMP_AHEAD,
            f"timestamp is {ahead_ms} ms ahead of the gateway; at most {limits.time_ahead_max_ms} ms.",
        )


def _metrics(values: Any, quality: int, limits: DecodeLimits) -> tuple[Metric, ...]:
    if type(values) is not dict or not values:
        raise DecodeRefusalError(
            Reason.BAD_SHAPE, "metrics is an object with at least one entry, name to value."
        )
    if len(values) > limits.metrics_per_frame_max:
        raise DecodeRefusalError(
            Reason.TOO_MANY_METRICS,
            f"{len(values)} metrics in one frame; at most {limits.metrics_per_frame_max}.",
        )
    return tuple([_metric(name, value, quality) for name, value in values.items()])


def _metric(name: str, value: Any, quality: int) -> Metric:
    if not known_metric_name(name):
        raise DecodeRefusalError(
            Reason.INVALID_METRIC_NAME,
            f"A metric name is 1 to 256 printable characters, unlike {name[:64]!r}.",
        )
    kind = type(value)
    if kind is float:
        if math.isfinite(value):
            return Metric(name, value, None, quality)
    elif kind is int:
        try:
            return Metric(name, float(value), None, quality)
        except OverflowError:
            pass
    elif kind is bool:
        return Metric(name, 1.0 if value else 0.0, None, quality)
    elif kind is str:
        # PostgreSQL takes no NUL in a text.
        if len(value) > TEXT_MAX_CHARACTERS or "\x00" in value:
            raise DecodeRefusalError(
                Reason.INVALID_TEXT,
                f"The text of {name[:64]!r} has NUL or more than {TEXT_MAX_CHARACTERS} characters.",
            )
        return Metric(name, None, value, quality)
    else:
        raise DecodeRefusalError(
            Reason.BAD_SHAPE, f"The value of {name[:64]!r} is neither a number, a boolean nor a text."
        )
    raise DecodeRefusalError(
        Reason.NOT_A_NUMBER, f"The value of {name[:64]!r} is out of the range of a double."
    )


def refuse_oversized(frames: tuple[TelemetryFrame, ...]) -> None:
    """Refuses a frame that fits no Kafka record."""
    for frame in frames:
        size = sum(
            len(m.name.encode()) + len((m.text or "").encode()) + _METRIC_OVERHEAD_BYTES
            for m in frame.metrics
        )
        if size > FRAME_MAX_BYTES:
            raise DecodeRefusalError(
                Reason.FRAME_TOO_LARGE, f"A frame of about {size} bytes; at most {FRAME_MAX_BYTES}."
            )

"""Cayenne Low Power Payload → values. Pure.

In: an uplink's bytes: channel, type, value, repeated. Out: values named by type and channel, such as
`temperature_1`; a type of several values is an object (`gps_1`: latitude, longitude, altitude).
Guarantees: raises `ValueError` on an unknown type or bytes that end early, and nothing else; a value has
the decimals that its type defines (27.2, not 27.200000000000003).
Source of the types: IPSO object number minus 3200, sizes and resolutions of myDevices' Cayenne LPP 1 and 2.
Where a channel has one type twice in a payload, the last value counts, as in ChirpStack's own decoder.
Not here: who sends in this format (`codec_choice`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec


class _Part(msgspec.Struct, frozen=True):
    """One number: big-endian, `size_bytes` long, to be divided by `per_unit`."""

    size_bytes: int
    per_unit: int = 1
    signed: bool = False
    name: str = ""


class _Type(msgspec.Struct, frozen=True):
    name: str
    parts: tuple[_Part, ...]
    size_bytes: int


def _one(name: str, size_bytes: int, per_unit: int = 1, signed: bool = False) -> _Type:
    return _Type(name, (_Part(size_bytes, per_unit, signed),), size_bytes)


def _many(name: str, *parts: _Part) -> _Type:
    return _Type(name, parts, sum(part.size_bytes for part in parts))


TYPES: Final[Mapping[int, _Type]] = {
    0: _one("digital_input", 1),
    1: _one("digital_output", 1),
    2: _one("analog_input", 2, 100, signed=True),
    3: _one("analog_output", 2, 100, signed=True),
    100: _one("generic", 4),
    101: _one("illuminance", 2),  # lux
    102: _one("presence", 1),
    103: _one("temperature", 2, 10, signed=True),  # °C
    104: _one("humidity", 1, 2),  # %
    113: _many("accelerometer", *(_Part(2, 1000, True, axis) for axis in "xyz")),  # g
    115: _one("barometer", 2, 10),  # hPa
    116: _one("voltage", 2, 100),  # V
    117: _one("current", 2, 1000),  # A
    118: _one("frequency", 4),  # Hz
    120: _one("percentage", 1),
    121: _one("altitude", 2, signed=True),  # m
    125: _one("concentration", 2),  # ppm
    128: _one("power", 2),  # W
    130: _one("distance", 4, 1000),  # m
    131: _one("energy", 4, 1000),  # kWh
    132: _one("direction", 2),  # °
    133: _one("unix_time", 4),  # s
    134: _many("gyrometer", *(_Part(2, 100, True, axis) for axis in "xyz")),  # °/s
    135: _many("colour", *(_Part(1, name=channel) for channel in ("red", "green", "blue"))),
    136: _many(
        "gps",
        _Part(3, 10_000, True, "latitude"),  # °
        _Part(3, 10_000, True, "longitude"),
        _Part(3, 100, True, "altitude"),  # m
    ),
    142: _one("switch", 1),
}
_HEADER_BYTES: Final = 2


def decode_cayenne_lpp(payload: bytes, _f_port: int) -> dict[str, object]:
    """The values of a payload by name; see the module for units. Raises `ValueError`."""
    values: dict[str, object] = {}
    at = 0
    while at < len(payload):
        if at + _HEADER_BYTES > len(payload):
            raise ValueError(f"byte {at} is a channel without a type")
        channel, number = payload[at], payload[at + 1]
        kind = TYPES.get(number)
        if kind is None:
            raise ValueError(f"byte {at + 1} is {number}, which is no type of Cayenne LPP")
        at += _HEADER_BYTES
        if at + kind.size_bytes > len(payload):
            raise ValueError(f"{kind.name} of channel {channel} needs {kind.size_bytes} bytes from byte {at}")
        name = f"{kind.name}_{channel}"
        if len(kind.parts) == 1:
            values[name] = _number(payload, at, kind.parts[0])
            at += kind.size_bytes
            continue
        parts: dict[str, float] = {}
        for part in kind.parts:
            parts[part.name] = _number(payload, at, part)
            at += part.size_bytes
        values[name] = parts
    return values


def _number(payload: bytes, at: int, part: _Part) -> float:
    whole = int.from_bytes(payload[at : at + part.size_bytes], "big", signed=part.signed)
    # Divided, not multiplied by 0.1: the nearest double of the decimal number.
    return whole / part.per_unit if part.per_unit != 1 else float(whole)

"""Cayenne LPP, as sensors send it: channel, type, value, again and again.

In: readings. Out: the bytes. Values are cut to the format's steps and limits.
Not here: decoding (the gateway's).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from plantwire.simulator.frame import Value

# Metric → (channel, type, struct format, units per step); the numbers are those of the format.
_FIELDS: Final = {
    "temperature": (1, 103, ">h", 0.1),
    "humidity": (2, 104, ">B", 0.5),
    "door": (3, 0, ">B", 1.0),
}
_RANGES: Final = {">h": (-(1 << 15), (1 << 15) - 1), ">B": (0, 255)}


def encode(values: Mapping[str, Value]) -> bytes:
    """The payload for the readings that have a channel; raises KeyError for one that has none."""
    out = bytearray()
    for name, value in values.items():
        channel, kind, layout, step = _FIELDS[name]
        low, high = _RANGES[layout]
        out += bytes((channel, kind)) + struct.pack(layout, min(high, max(low, round(float(value) / step))))
    return bytes(out)

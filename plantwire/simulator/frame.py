"""What a simulated device says at one moment, and its JSON.

In: a device's values. Out: a `Frame`, which each outlet puts into its own form.
Not here: the other forms (`simulator.sparkplug`, `simulator.lorawan`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

Value = float | int | bool | str


class Frame(msgspec.Struct, frozen=True):
    """One device, one moment; `metrics` is empty when the device could not be read."""

    device_id: str
    site: str
    sequence: int
    timestamp_ms: int
    metrics: Mapping[str, Value]


def encode_json(frame: Frame) -> bytes:
    """The frame in the gateway's JSON, for HTTP and for `devices/{id}/telemetry`."""
    body: dict[str, Any] = {
        "timestamp": frame.timestamp_ms,
        "sequence": frame.sequence,
        "site": frame.site,
        "metrics": frame.metrics,
    }
    return msgspec.json.encode(body)

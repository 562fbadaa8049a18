"""Avro bodies of planned frames, fast: encoded once per template, then only the times are put in.

In: a template and times. Out: exactly the bytes that FRAME_CODEC would make (checked once per template).
Not here: which template a frame has (`bench.frame_plan`).
"""

from __future__ import annotations

import math
import random
from typing import Final

from bench.frame_plan import (
    CRITICAL,
    CRITICAL_LIMIT,
    HIGH,
    HIGH_LIMIT,
    MARK_METRIC,
    PHYSICAL_METRICS,
    Template,
    machine_id,
)
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import Metric, TelemetryFrame

# A time that no number in a body looks like by chance; `FrameBodies` checks that it occurs once.
_PLACEHOLDER_MS: Final = 1_234_567_654_321
_CHECK_MS: Final = 1_700_000_000_123
GATEWAY_DELAY_MS: Final = 2


def encode_long(number: int) -> bytes:
    """An Avro long: zigzag, then seven bits per byte, low ones first."""
    rest = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append((rest & 0x7F) | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


class FrameBodies:
    """Makes bodies; keeps the two halves of every template that was asked for."""

    def __init__(self) -> None:
        self._halves: dict[Template, tuple[bytes, bytes]] = {}

    def body(self, template: Template, event_time_ms: int) -> bytes:
        """The body of a frame that was measured at `event_time_ms` and received `GATEWAY_DELAY_MS` later."""
        halves = self._halves.get(template)
        if halves is None:
            halves = self._halves[template] = _split(template)
        times = encode_long(event_time_ms) + encode_long(event_time_ms + GATEWAY_DELAY_MS)
        return halves[0] + times + halves[1]


def frame_of(template: Template, event_time_ms: int) -> TelemetryFrame:
    """The record behind a template."""
    rng = random.Random(template.device * 1_000 + template.variant)
    phase = template.variant / 16 * math.tau
    metrics = []
    for index, name in enumerate(PHYSICAL_METRICS):
        number = 60 + 12 * math.sin(phase + index) + rng.uniform(-5, 5)
        if index == template.metric and template.level == HIGH:
            number = (HIGH_LIMIT + CRITICAL_LIMIT) / 2 + rng.uniform(-1, 1)
        elif index == template.metric and template.level == CRITICAL:
            number = CRITICAL_LIMIT + rng.uniform(5, 10)
        metrics.append(Metric(name, number=round(number, 2)))
    metrics.append(Metric(MARK_METRIC, number=float(template.mark)))
    return TelemetryFrame(
        device_id=machine_id(template.device),
        site="hall-1",
        sequence=None,
        event_time_ms=event_time_ms,
        received_time_ms=event_time_ms + GATEWAY_DELAY_MS,
        protocol="http",
        historical=False,
        metrics=tuple(metrics),
        # Fixed: they are passed on and not looked at.
        gateway_in_us=_CHECK_MS * 1000,
        gateway_out_us=_CHECK_MS * 1000 + 500,
    )


def _split(template: Template) -> tuple[bytes, bytes]:
    times = encode_long(_PLACEHOLDER_MS) + encode_long(_PLACEHOLDER_MS + GATEWAY_DELAY_MS)
    parts = FRAME_CODEC.encode(frame_of(template, _PLACEHOLDER_MS)).split(times)
    check = encode_long(_CHECK_MS) + encode_long(_CHECK_MS + GATEWAY_DELAY_MS)
    if len(parts) != 2 or check.join(parts) != FRAME_CODEC.encode(frame_of(template, _CHECK_MS)):
        raise ValueError("the times of a frame are no longer two longs one after the other")
    return parts[0], parts[1]

"""The telemetry of `bench.aggregation` as a plan, and the windows that it must give. Pure.

In: how many frames. Out: each frame's template and time; the windows of 1 s per device and metric.
Guarantees: every frame has `METRICS_PER_FRAME` good numbers; a device's frames are in order of time.
Not here: bytes (`bench.frame_bodies`), Kafka (`bench.window_topic`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import isclose
from typing import Final

import msgspec

from bench.frame_bodies import frame_of
from bench.frame_plan import METRICS_PER_FRAME, Template, machine_id
from plantwire.schemas.windows import ONE_SECOND, WindowValues

ROUND_MS: Final = 100
"""Each device measures ten times a second."""
SAMPLES_PER_WINDOW: Final = ONE_SECOND.size_ms // ROUND_MS
OPEN_AT_END_MS: Final = 2_000
"""Windows that end later are not asked for: what closes them comes after the last frame."""
HELD_BACK_MS: Final = 10_000
"""An engine may hold windows back for so long while it works off old frames; the last then come at once."""
MEASURED_PART: Final = (0.4, 0.9)
"""Of all windows: after start-up and what was held back until its end (three seconds long, by Flink SQL), and
before the last ones, which are held back too.
"""
SUM_TOLERANCE: Final = 1e-9
"""Relative; engines may add in another order."""

Windows = dict[tuple[str, int], dict[str, WindowValues]]
"""(device, end in ms) → metric → values."""


class WindowPlan(msgspec.Struct, frozen=True):
    """Rounds in which every device sends one frame."""

    rounds: int
    devices: int = 200
    partitions: int = 4
    variants: int = 16

    def __post_init__(self) -> None:
        if min(self.rounds, self.devices, self.partitions, self.variants) < 1:
            raise ValueError("rounds, devices, partitions and variants are at least 1")
        if self.rounds * ROUND_MS * (1 - MEASURED_PART[1]) < HELD_BACK_MS:
            raise ValueError(f"{self.rounds} rounds are too few: nothing would be left to measure")

    @property
    def frames(self) -> int:
        """All frames."""
        return self.rounds * self.devices

    @property
    def samples(self) -> int:
        """All numbers in all frames."""
        return self.frames * METRICS_PER_FRAME

    def partition_of(self, device: int) -> int:
        """Where a device's frames go."""
        return device % self.partitions

    def event_time_ms(self, base_ms: int, device: int, round_number: int) -> int:
        """The event time of a frame; devices measure one after the other within a round."""
        return base_ms + round_number * ROUND_MS + device * ROUND_MS // self.devices

    def template(self, device: int, round_number: int) -> Template:
        """What a frame is made from."""
        return Template(device, (round_number + device) % self.variants)

    def last_end_ms(self, base_ms: int) -> int:
        """The end of the last window that is asked for; `base_ms` is a whole second."""
        return (base_ms + self.rounds * ROUND_MS - OPEN_AT_END_MS) // ONE_SECOND.size_ms * ONE_SECOND.size_ms

    def seconds(self, base_ms: int) -> int:
        """Rows of the 1 s tier that it makes, the last ones included; `base_ms` is a whole second."""
        end_ms = base_ms + (self.rounds - 1) * ROUND_MS + ROUND_MS * (self.devices - 1) // self.devices
        return ((end_ms - base_ms) // ONE_SECOND.size_ms + 1) * self.devices * METRICS_PER_FRAME

    def windows(self, base_ms: int) -> Windows:
        """Every window that is asked for."""
        numbers: dict[tuple[str, int], list[tuple[float, ...]]] = {}
        last_end_ms = self.last_end_ms(base_ms)
        for device in range(self.devices):
            for round_number in range(self.rounds):
                at_ms = self.event_time_ms(base_ms, device, round_number)
                end_ms = at_ms // ONE_SECOND.size_ms * ONE_SECOND.size_ms + ONE_SECOND.size_ms
                if end_ms > last_end_ms:
                    break
                row = _numbers(self.template(device, round_number))[1]
                numbers.setdefault((machine_id(device), end_ms), []).append(row)
        names = _numbers(self.template(0, 0))[0]
        return {
            key: {
                name: WindowValues(sum(column), min(column), max(column), len(column))
                for name, column in zip(names, zip(*rows, strict=True), strict=True)
            }
            for key, rows in numbers.items()
        }


@cache
def _numbers(template: Template) -> tuple[tuple[str, ...], tuple[float, ...]]:
    metrics = frame_of(template, 0).metrics
    return tuple(m.name for m in metrics), tuple(m.number for m in metrics if m.number is not None)


def difference(expected: Windows, found: Mapping[tuple[str, int], Mapping[str, WindowValues]]) -> str | None:
    """How `found` differs from `expected`, None where it does not; what is found beyond is not asked for."""
    for key, metrics in expected.items():
        others = found.get(key, {})
        if metrics.keys() != others.keys():
            return f"{key}: metrics {sorted(others)}, not {sorted(metrics)}"
        for metric, values in metrics.items():
            other = others[metric]
            if not isclose(values.total, other.total, rel_tol=SUM_TOLERANCE) or values[1:] != other[1:]:
                return f"{key} {metric}: {other}, not {values}"
    return None

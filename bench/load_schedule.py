"""The load as a plan: which device sends when, and which frame raises or clears which alarm. Pure.

In: rate, devices, metrics, raises per second, phases. Out: intended send times, the metrics that are
over their limit in a frame, the raises that must come out at the other end.
Guarantees: open loop: times depend on the plan alone, never on answers; whole milliseconds, since a
frame's time stamp is; a (device, metric) pair is raised again only after more than the deduplication
window has passed since its last clear.
Not here: sending (`bench.load_generator`), comparing (`bench.deliveries`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

DEDUPLICATION_WINDOW_MS = 60_000


class PlannedRaise(msgspec.Struct, frozen=True):
    """One critical alarm to come: over the limit from frame `raise_frame` until `clear_frame`."""

    device: int
    metric: int
    raise_frame: int
    clear_frame: int
    raise_offset_ms: int
    clear_offset_ms: int


class LoadPlan(msgspec.Struct, frozen=True):
    """A load of `frames_per_s` over all devices in turn, through warm-up, window and tail.

    `first_raise` is the ordinal of the first raise: a plan that follows another on the same stack
    goes on counting, so that it does not raise a pair again too early.
    """

    frames_per_s: int = 500
    devices: int = 50
    metrics: int = 10
    raises_per_s: int = 5
    hold_ms: int = 3_000
    warm_up_ms: int = 30_000
    window_ms: int = 180_000
    tail_ms: int = 5_000
    first_raise: int = 0

    def __post_init__(self) -> None:
        for name in ("frames_per_s", "devices", "metrics", "raises_per_s", "hold_ms", "window_ms", "tail_ms"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.warm_up_ms < 0 or self.first_raise < 0:
            raise ValueError("warm_up_ms and first_raise cannot be negative")
        if self.tail_ms <= self.hold_ms + 2 * self.device_interval_ms + 1000 // self.raises_per_s:
            raise ValueError("the tail must be longer than an alarm holds, or the last clears are not sent")
        needed = math.ceil((DEDUPLICATION_WINDOW_MS + self.hold_ms) * self.raises_per_s / 1000) + 1
        if self.first_raise + self.raise_count > self.pairs and self.pairs < needed:
            raise ValueError(
                f"{self.raises_per_s} raises/s need {needed} (device, metric) pairs to stay out of the "
                f"deduplication window; {self.devices} devices of {self.metrics} metrics are {self.pairs}"
            )

    @property
    def pairs(self) -> int:
        """How many (device, metric) pairs there are."""
        return self.devices * self.metrics

    @property
    def duration_ms(self) -> int:
        """From the first frame to the end of the tail."""
        return self.warm_up_ms + self.window_ms + self.tail_ms

    @property
    def frame_count(self) -> int:
        """Frames in all phases."""
        return self.frames_per_s * self.duration_ms // 1000

    @property
    def raise_count(self) -> int:
        """Raises in warm-up and window; the tail raises none, it only clears."""
        return self.raises_per_s * (self.warm_up_ms + self.window_ms) // 1000

    @property
    def device_interval_ms(self) -> int:
        """Between two frames of one device, rounded up."""
        return math.ceil(self.devices * 1000 / self.frames_per_s)

    def offset_ms(self, frame: int) -> int:
        """When frame number `frame` is to be sent, after the start."""
        return frame * 1000 // self.frames_per_s

    def device_of(self, frame: int) -> int:
        """The device that sends frame number `frame`."""
        return frame % self.devices

    def raises(self) -> Iterator[PlannedRaise]:
        """Every raise in order of time."""
        stride = _stride(self.devices)
        for ordinal in range(self.raise_count):
            pair = (self.first_raise + ordinal) % self.pairs
            device = pair * stride % self.devices
            # The golden section within each interval, and the stride through the devices, spread raises
            # over all phases of the second: none of the pipeline's own timers is met or missed always.
            due_ms = (ordinal * 1000 + ordinal * 618 % 1000) // self.raises_per_s
            raise_frame = self._first_frame(device, due_ms)
            clear_frame = self._first_frame(device, self.offset_ms(raise_frame) + self.hold_ms)
            yield PlannedRaise(
                device=device,
                metric=pair // self.devices,
                raise_frame=raise_frame,
                clear_frame=clear_frame,
                raise_offset_ms=self.offset_ms(raise_frame),
                clear_offset_ms=self.offset_ms(clear_frame),
            )

    def in_window(self, offset_ms: int) -> bool:
        """Whether a time after the start belongs to the measuring window."""
        return self.warm_up_ms <= offset_ms < self.warm_up_ms + self.window_ms

    def _first_frame(self, device: int, not_before_ms: int) -> int:
        """The first frame of `device` that is to be sent at `not_before_ms` or later."""
        round_number = max(0, (not_before_ms * self.frames_per_s // 1000 - device) // self.devices)
        frame = device + round_number * self.devices
        while self.offset_ms(frame) < not_before_ms:
            frame += self.devices
        return frame


def device_id(device: int) -> str:
    """The id of device number `device` of the load."""
    return f"bench-{device:04d}"


def metric_name(metric: int) -> str:
    """The name of metric number `metric` of the load."""
    return f"metric-{metric:02d}"


def _stride(devices: int) -> int:
    """A step that visits every device once per round: coprime to `devices`, near its golden section."""
    stride = max(1, round(devices * 0.618))
    while math.gcd(stride, devices) != 1:
        stride += 1
    return stride

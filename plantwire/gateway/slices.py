"""Frames in parts small enough that handing one over does not hold the event loop up. Pure.

In: frames, in order. Out: the same frames, in order, in slices.
Guarantees: a slice costs at most `SLICE_COST_MAX`, about 5 ms of encoding, or is a single frame.
Not here: what happens between two slices (`http_transport`, `mqtt_transport`, `sparkplug.hand_over`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from plantwire.schemas.records import TelemetryFrame

FRAME_COST: Final = 5
"""What a frame costs beside its metrics, in metrics."""
SLICE_COST_MAX: Final = 1500


def cost_of(frame: TelemetryFrame) -> int:
    """About how much work it is to encode and hand over a frame, in metrics."""
    return FRAME_COST + len(frame.metrics)


def slices(
    frames: Sequence[TelemetryFrame], cost_max: int = SLICE_COST_MAX
) -> Iterator[Sequence[TelemetryFrame]]:
    """The frames in slices; all of them at once where they are few."""
    begin, cost = 0, 0
    for end, frame in enumerate(frames):
        frame_cost = cost_of(frame)
        if cost + frame_cost > cost_max and end > begin:
            yield frames[begin:end]
            begin, cost = end, 0
        cost += frame_cost
    if begin < len(frames):
        yield frames[begin:] if begin else frames

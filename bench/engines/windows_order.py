"""What a peer engine is asked to do in `bench.aggregation`, and the steps that are the same in each.

In: an order file named by the environment variable `BENCH_ORDER`. Out: a frame's numbers; window messages.
Guarantees: the same bytes in and out for every engine.
Not here: how an engine reads, keys, keeps windows and writes (the modules beside this one).
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from bench.engines.order import ORDER_VARIABLE
from bench.window_topic import END_SEPARATOR
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.frame_layout import FrameReader
from plantwire.schemas.records import QUALITY_GOOD
from plantwire.schemas.windows import WindowValues, pack_windows

Accumulated = dict[str, list[float]]
"""Metric → [total, smallest, largest, samples]."""


class WindowsOrder(msgspec.Struct, frozen=True):
    """Topics and group of one run."""

    bootstrap: str
    frames_topic: str
    windows_topic: str
    group: str
    state_folder: str
    checkpoint_interval_s: float
    by_layout: bool
    """Whether peers read frames by their layout first, or decode each one whole."""


def read_order() -> WindowsOrder:
    """The order of this process; raises SystemExit where there is none."""
    path = os.environ.get(ORDER_VARIABLE)
    if path is None:
        raise SystemExit(f"{ORDER_VARIABLE} is not set; engines are started by bench.aggregation")
    return msgspec.json.decode(Path(path).read_bytes(), type=WindowsOrder)


class SampleReader:
    """Opens frames."""

    def __init__(self, *, by_layout: bool) -> None:
        self._reader = FrameReader() if by_layout else None

    def open(self, body: bytes) -> tuple[int, list[tuple[str, float]]] | None:
        """Event time in ms and (metric, number) of a live frame's good numbers; None for a historical one."""
        reading = self._reader.read(body) if self._reader is not None else None
        if reading is not None:
            if reading.layout.historical:
                return None
            return reading.event_time_ms, list(zip(reading.layout.names, reading.numbers, strict=True))
        fields = FRAME_CODEC.decode_fields(body)
        if self._reader is not None:
            self._reader.learn(body, fields)
        if fields["historical"]:
            return None
        return fields["event_time_ms"], [
            (metric["name"], metric["number"])
            for metric in fields["metrics"]
            if metric["number"] is not None and metric["quality"] == QUALITY_GOOD
        ]


def add(accumulated: Accumulated, samples: list[tuple[str, float]]) -> Accumulated:
    """Take a frame's samples into its window."""
    for metric, number in samples:
        values = accumulated.get(metric)
        if values is None:
            accumulated[metric] = [number, number, number, 1]
            continue
        values[0] += number
        if number < values[1]:
            values[1] = number
        if number > values[2]:
            values[2] = number
        values[3] += 1
    return accumulated


def window_message(device_id: str, end_ms: int, accumulated: Accumulated) -> bytes:
    """A device's window as it goes to the windows topic."""
    metrics = {
        metric: WindowValues(total, smallest, largest, int(samples))
        for metric, (total, smallest, largest, samples) in accumulated.items()
    }
    return f"{end_ms // 1000}{END_SEPARATOR}{pack_windows({device_id: metrics})}".encode()

"""How far an engine has come, read from the mark alarms that it puts out. Pure.

In: (partition, frames done) and the moment it was seen. Out: frames done at moments, rates between.
Guarantees: progress of a partition never goes back, so a repeated alarm changes nothing.
Not here: reading the alarms (`bench.alarm_topic`).
"""

from __future__ import annotations

from itertools import pairwise

import msgspec


class Point(msgspec.Struct, frozen=True):
    """`frames` were done at `at_s`."""

    at_s: float
    frames: int


class Progress:
    """The sum over partitions of what their latest mark says."""

    def __init__(self, partitions: int, frames: int) -> None:
        self._done = [0] * partitions
        self._frames = frames
        self.points: list[Point] = []

    def note(self, partition: int, frames_done: int, at_s: float) -> None:
        """A mark was seen: `frames_done` frames of `partition` are through."""
        if frames_done <= self._done[partition]:
            return
        self._done[partition] = frames_done
        self.points.append(Point(at_s, sum(self._done)))

    @property
    def frames(self) -> int:
        """Frames known to be through."""
        return sum(self._done)

    @property
    def complete(self) -> bool:
        """Whether all are."""
        return self.frames >= self._frames

    def reached(self, fraction: float) -> bool:
        """Whether `fraction` of all frames are through."""
        return self.frames >= fraction * self._frames

    def rates_per_s(self, parts: int) -> list[float]:
        """Frames per second within each of `parts` equal parts of the work, to show whether it is steady."""
        edges = [self._first_at_or_after(part * self._frames / parts) for part in range(1, parts + 1)]
        if self.points:
            edges.insert(0, self.points[0])
        return [
            round((after.frames - before.frames) / (after.at_s - before.at_s), 1)
            for before, after in pairwise([edge for edge in edges if edge is not None])
            if after.at_s > before.at_s
        ]

    def _first_at_or_after(self, frames: float) -> Point | None:
        return next((point for point in self.points if point.frames >= frames), None)

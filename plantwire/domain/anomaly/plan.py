"""Which metrics are scored.

In: entries with globs on device and metric. Out: for a device, the memory of each of its metrics.
Guarantees: the first entry that matches both counts; what no entry matches is not scored, and neither is
ever a score.
Not here: the file that people write (`schemas.scoring_files`).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from plantwire.schemas.scoring_files import ScoringEntry

PREFIX: Final = "anomaly/"
"""Begins the names of all scores."""
_NAMES_REMEMBERED: Final = 1_000

MemoryOf = Callable[[str], int | None]
"""The memory, in values, of a metric by its name; None where it is not scored."""


class ScoringPlan:
    """All entries, in their order."""

    def __init__(self, entries: Iterable[ScoringEntry]) -> None:
        self._entries = tuple(
            (re.compile(fnmatch.translate(entry.devices)), re.compile(fnmatch.translate(entry.metric)), entry)
            for entry in entries
        )

    def for_device(self, device_id: str) -> MemoryOf | None:
        """What is scored of a device; None where nothing is."""
        found = [
            (metrics, entry.memory) for devices, metrics, entry in self._entries if devices.match(device_id)
        ]
        if not found:
            return None

        def memory_of(metric: str) -> int | None:
            if metric.startswith(PREFIX):
                return None
            return next((memory for metrics, memory in found if metrics.match(metric)), None)

        return lru_cache(maxsize=_NAMES_REMEMBERED)(memory_of)

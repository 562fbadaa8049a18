"""Where records come from, watched beside what they are written to.

In: the source, what each part reports. Out: gauges, the health, log lines where a part comes or goes.
Guarantees: while something is away nothing is fetched; Kafka is asked at most every `LOOK_EVERY_S` while
it is well.
Not here: what is written, and when it is settled (`ingest`, `influx`).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog
from prometheus_client import Gauge

from plantwire.platform.backoff import jittered_backoff_s
from plantwire.platform.health import Health
from plantwire.storage.batch import Record

KAFKA: Final = "kafka"
BACKOFF_FIRST_S: Final = 0.2
LOOK_EVERY_S: Final = 5.0
LOOK_TIMEOUT_S: Final = 1.0
IDLE_PING_S: Final = 2.0
"""After so long without anything to write, what is written to is asked whether it is there."""

log = structlog.get_logger()


class Source(Protocol):
    """What `source.FrameSource` offers."""

    @property
    def obstacle(self) -> str | None:
        """Why nothing can come."""

    def take(self, timeout_s: float) -> list[Record]:
        """Some records."""

    def settle(self, records: list[Record]) -> None:
        """They are done."""

    def pause(self) -> None:
        """Fetch nothing."""

    def resume(self) -> None:
        """Fetch again."""

    def wait(self, timeout_s: float) -> None:
        """Let time pass."""

    def look(self, timeout_s: float) -> int | None:
        """How many wait."""


class Supply:
    """`up` holds a gauge for every part of `health`; `lag` is that of the source."""

    def __init__(
        self,
        source: Source,
        health: Health,
        up: Mapping[str, Gauge],
        lag: Gauge,
        stopping: threading.Event,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._health = health
        self._up = up
        self._lag = lag
        self._stopping = stopping
        self._clock = clock
        self._looked_s = -LOOK_EVERY_S

    def look(self) -> None:
        """Ask Kafka how it is and how much waits, if it is time."""
        if self._clock() - self._looked_s < LOOK_EVERY_S and self._source.obstacle is None:
            return
        lag = self._source.look(LOOK_TIMEOUT_S)
        self._looked_s = self._clock()
        if lag is not None:
            self._lag.set(lag)
        self.report(KAFKA, self._source.obstacle)

    def report(self, part: str, obstacle: str | None) -> None:
        """Note what stands in a part's way, None for nothing."""
        self._up[part].set(obstacle is None)
        if self._health.report(part, obstacle):
            if obstacle is None:
                log.info("part_reached", part=part)
            else:
                log.warning("part_away", part=part, reason=obstacle)

    def wait(self, failures: int, longest_s: float, at_least_s: float = 0.0) -> bool:
        """Fetch nothing and let time pass after `failures` in a row; False when told to stop."""
        self._source.pause()
        chance = random.random()  # noqa: S311 - spreads processes that lost one server
        wait_s = jittered_backoff_s(failures, BACKOFF_FIRST_S, longest_s, chance)
        deadline_s = self._clock() + max(wait_s, at_least_s)
        while not self._stopping.is_set() and (left_s := deadline_s - self._clock()) > 0:
            self._source.wait(min(left_s, 0.2))
        return not self._stopping.is_set()

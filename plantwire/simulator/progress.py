"""What a person sees of a run: one line on a terminal, a log line a minute elsewhere.

In: a `Tally`. Out: text on stderr. Not here: what the log says of single events (`simulator.run`).
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Self

import structlog
from rich.console import Console
from rich.status import Status

from plantwire.simulator.outlet import Tally

TERMINAL_INTERVAL_S: Final = 0.5
LOG_INTERVAL_S: Final = 60.0

_log = structlog.get_logger(__name__)


class Progress:
    """Shows a run's counts until its context ends."""

    def __init__(self, tally: Tally, devices: int) -> None:
        self._tally = tally
        self._devices = devices
        self._started_s = time.monotonic()
        console = Console(stderr=True)
        self._status: Status | None = None
        if console.is_terminal:
            self._status = Status("waiting for the gateway", console=console)

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    async def run(self) -> None:
        """Keep it up to date, until cancelled."""
        while True:
            if self._status is not None:
                self._status.update(self.line(time.monotonic()))
            else:
                _log.info("plant-running", **self._tally.as_dict())
            await asyncio.sleep(LOG_INTERVAL_S if self._status is None else TERMINAL_INTERVAL_S)

    def line(self, now_s: float) -> str:
        """The counts in one line."""
        tally = self._tally
        minutes, seconds = divmod(int(now_s - self._started_s), 60)
        parts = [f"{self._devices} devices", f"{minutes}:{seconds:02d}"]
        parts += [f"{name} {count:,}" for name, count in sorted(tally.accepted.items())]
        parts += [f"unchanged {tally.unchanged:,}"] if tally.unchanged else []
        parts += [f"rejected {tally.rejected.total():,}"] if tally.rejected else []
        for reason, _ in tally.dropped.most_common(1):
            parts.append(f"not through {tally.dropped.total():,} ({reason})")
        parts += [f"skipped {tally.skipped:,}"] if tally.skipped else []
        return " · ".join(parts)

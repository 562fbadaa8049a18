"""The steps of a stop, each taken whatever became of the ones before.

In: steps, one after the other. Out: their results; whether all of them went well.
Guarantees: a step that fails, or does not end in time, is logged and keeps no later one from being taken:
what is in hand is stored even where a broker, or a disk, fails during the stop.
Not here: which steps there are (`parts`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import structlog

T = TypeVar("T")

log = structlog.get_logger()


class StopSteps:
    """`take` each step; each has `timeout_s` at most."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.in_order = True
        """Whether every step so far ended well and in time."""

    async def take(self, name: str, step: Awaitable[T], otherwise: T) -> T:
        """What `step` returns; `otherwise` where it failed or did not end."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await step
        except TimeoutError:
            log.error("stop_step_unfinished", step=name, timeout_s=self._timeout_s)
        except Exception as error:  # whatever it is, the later steps are worth taking
            log.error("stop_step_failed", step=name, exc_info=error)
        self.in_order = False
        return otherwise

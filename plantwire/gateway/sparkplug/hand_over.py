"""Sparkplug's frames and dead letters on their way to the intake, in turns.

In: frames, dead letters. Out: the same, to the intake.
Guarantees: frames go on in the order of the calls. Few of them go at once; many in slices, one in each turn
of the event loop, so that a large birth holds nothing else up. Up to `QUEUE_COST_MAX` wait so; what comes on
top of it makes all of them go at once. No sender can be told that there is no room: frames and dead letters
that find none are counted as dropped (`no-room`). Values that say that others are stale are tried again,
since without them those stay good for ever: up to `OWED_COST_MAX` of them, until `stop_trying`. These alone
may come after what followed them; their time says what they are newer than.
Not here: what is stale (`session`), counts of frames (the ledger).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import structlog
from prometheus_client import Counter

from plantwire.gateway.buffer.entry import DropReason
from plantwire.gateway.forwarder import DeadLetter, UnavailableError
from plantwire.gateway.slices import cost_of, slices
from plantwire.platform.backoff import jittered_backoff_s
from plantwire.schemas.records import QUALITY_STALE, TelemetryFrame

TRANSPORT: Final = "sparkplug"
QUEUE_COST_MAX: Final = 200_000
OWED_COST_MAX: Final = 200_000
_RETRY_FIRST_S: Final = 0.1
_RETRY_LONGEST_S: Final = 5.0

log = structlog.get_logger()


class SparkplugIntake(Protocol):
    """Where frames and dead letters go."""

    def put(
        self, frames: Sequence[TelemetryFrame], refusal: DropReason = DropReason.RETURNED
    ) -> asyncio.Future[None]:
        """See `intake.Intake.put`."""

    def put_or_drop(self, frames: Sequence[TelemetryFrame]) -> None:
        """Take frames; those that find no room are counted as dropped."""

    def put_dead_letter(
        self, letter: DeadLetter, refusal: DropReason = DropReason.RETURNED
    ) -> asyncio.Future[None]:
        """See `intake.Intake.put_dead_letter`."""


class HandOver:
    """Used from the event loop's thread; `unavailable` counts attempts by transport and obstacle."""

    def __init__(self, intake: SparkplugIntake, unavailable: Counter) -> None:
        self._intake = intake
        self._unavailable = unavailable
        self._queue: deque[Sequence[TelemetryFrame]] = deque()
        self._queued_cost = 0
        self._next: asyncio.Handle | None = None
        self._owed_cost = 0
        self._retries: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def take(self, frames: Sequence[TelemetryFrame]) -> None:
        """Hand frames over: at once where they are few and none wait."""
        parts = list(slices(frames))
        if not self._queue and len(parts) == 1:
            self._put(frames)
            return
        self._queue.extend(parts)
        self._queued_cost += sum(cost_of(frame) for frame in frames)
        if self._queued_cost > QUEUE_COST_MAX:
            self._flush()
        elif self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._turn)

    async def tell_stale(self, frames: Sequence[TelemetryFrame]) -> None:
        """Hand over what says that values are stale, each slice once the one before is durable; where that
        fails, the rest without waiting.
        """
        self._flush()
        waits = True
        for part in slices(frames):
            attempt = self._put(part)
            if attempt is not None and waits:
                await asyncio.wait([attempt])
                waits = not attempt.cancelled() and attempt.exception() is None
            else:
                await asyncio.sleep(0)

    def put_dead_letter(self, letter: DeadLetter) -> asyncio.Future[None]:
        """See `Forwarder.put_dead_letter`; one that finds no room is counted as dropped."""
        return self._intake.put_dead_letter(letter, DropReason.NO_ROOM)

    def stop_trying(self) -> None:
        """From now on each attempt is the last."""
        self._closing.set()

    async def close(self) -> None:
        """Hand over what waits, and wait for what becomes of it."""
        self.stop_trying()
        self._flush()
        if self._retries:
            await asyncio.wait(self._retries)

    def _turn(self) -> None:
        self._next = None
        self._put_next()
        if self._queue:
            self._next = asyncio.get_running_loop().call_soon(self._turn)

    def _flush(self) -> None:
        while self._queue:
            self._put_next()

    def _put_next(self) -> None:
        if self._queue:
            part = self._queue.popleft()
            self._queued_cost -= sum(cost_of(frame) for frame in part)
            self._put(part)

    def _put(self, frames: Sequence[TelemetryFrame]) -> asyncio.Future[None] | None:
        """The first attempt at what is tried again, where it was not refused at once."""
        cost = sum(cost_of(frame) for frame in frames)
        if not any(_is_stale(frame) for frame in frames) or self._owed_cost + cost > OWED_COST_MAX:
            self._intake.put_or_drop(frames)
            return None
        # At the stop the last attempt is the first, and the task's.
        attempt = None if self._closing.is_set() else self._attempt(frames, DropReason.RETURNED)
        self._owed_cost += cost
        task = asyncio.get_running_loop().create_task(self._until_kept(frames, attempt))
        self._retries.add(task)
        task.add_done_callback(lambda done: self._handle_kept(done, cost))
        return attempt

    def _handle_kept(self, task: asyncio.Task[None], cost: int) -> None:
        self._retries.discard(task)
        self._owed_cost -= cost
        if not task.cancelled():
            task.result()

    async def _until_kept(
        self, frames: Sequence[TelemetryFrame], attempt: asyncio.Future[None] | None
    ) -> None:
        """Await the first attempt, if it is under way, and make further ones, with pauses."""
        failures, is_last = 0, False
        while True:
            try:
                if attempt is not None:
                    await attempt
                    return
            except UnavailableError as unavailable:
                self._note_unavailable(unavailable)
            if is_last:
                log.warning("sparkplug_stale_not_told", frames=len(frames))
                return
            failures += 1
            await self._pause(failures)
            is_last = self._closing.is_set()
            attempt = self._attempt(frames, DropReason.NO_ROOM if is_last else DropReason.RETURNED)

    def _attempt(self, frames: Sequence[TelemetryFrame], refusal: DropReason) -> asyncio.Future[None] | None:
        try:
            return self._intake.put(frames, refusal)
        except UnavailableError as unavailable:
            self._note_unavailable(unavailable)
            return None

    async def _pause(self, failures: int) -> None:
        chance = random.random()  # noqa: S311 - spreading attempts needs no secrecy
        try:
            async with asyncio.timeout(
                jittered_backoff_s(failures, _RETRY_FIRST_S, _RETRY_LONGEST_S, chance)
            ):
                await self._closing.wait()
        except TimeoutError:
            return

    def _note_unavailable(self, unavailable: UnavailableError) -> None:
        self._unavailable.labels(TRANSPORT, unavailable.obstacle.value).inc()


def _is_stale(frame: TelemetryFrame) -> bool:
    return frame.metrics[0].quality == QUALITY_STALE and all(
        metric.quality == QUALITY_STALE for metric in frame.metrics
    )

"""The edge buffer → Kafka, when Kafka is back: in order, at a settable rate, marked historical.

In: the buffer's entries, alarms first; whether Kafka takes live records. Out: records on Kafka's topics;
entries forgotten once Kafka acknowledged them.
Guarantees: a device's historical frames arrive in the order in which they came in; after a failure the rest
is sent again from the first that was not acknowledged, so some arrive twice, none is overtaken. It runs only
while live records go to Kafka at once, on a producer of its own, and sends no faster than the set rate, so
live records do not wait for it. What is in doubt (`durability`) is left alone. A record that Kafka refuses
for good counts as dropped, and goes to the dead-letter topic where Kafka takes it there. A disk that fails
ends nothing: it is asked again, less and less often.
Not here: when to buffer (`durability`), the sending of a batch (`drain_producer`).
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import structlog

from plantwire.gateway.buffer.buffer_metrics import BufferMetrics
from plantwire.gateway.buffer.drain_producer import DrainProducer, Fate
from plantwire.gateway.buffer.durability import Mode
from plantwire.gateway.buffer.entry import (
    BufferRefusedError,
    DropReason,
    EdgeBuffer,
    Entry,
    EntryKind,
    StoredEntry,
)
from plantwire.gateway.buffer.ledger import Ledger
from plantwire.gateway.kafka_record import undeliverable_entry
from plantwire.gateway.settings import GatewaySettings
from plantwire.platform.backoff import jittered_backoff_s

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_LONGEST_S: Final = 15.0

log = structlog.get_logger()


class LiveTraffic(Protocol):
    """What the drain asks of `buffered_forwarder`."""

    @property
    def mode(self) -> Mode:
        """The drain works in DIRECT only."""

    @property
    def moved(self) -> asyncio.Event:
        """Set when there may be something to do."""

    def drain_below(self) -> int | None:
        """Only entries with a smaller id may be sent; None where all may."""


class Drain:
    """`run` it as a task; `close` it to end in order."""

    def __init__(
        self,
        settings: GatewaySettings,
        metrics: BufferMetrics,
        ledger: Ledger,
        buffer: EdgeBuffer,
        live: LiveTraffic,
        producer: DrainProducer | None = None,
    ) -> None:
        self._batch = settings.gateway_drain_batch
        self._metrics = metrics
        self._ledger = ledger
        self._buffer = buffer
        self._live = live
        self._stopping = threading.Event()
        self._producer = producer or DrainProducer(settings, self._may_go_on)
        # Delivered, and the buffer could not be told so yet.
        self._delivered: dict[int, Entry] = {}

    async def run(self) -> None:
        """Drain whenever there is something to drain, until `close`."""
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, "drain")
        failures = 0
        try:
            while not self._stopping.is_set():
                await self._live.moved.wait()
                self._live.moved.clear()
                while self._may_go_on():
                    entries = await self._next(first_try=failures == 0)
                    if entries == []:
                        break
                    if entries and await self._send(entries):
                        failures = 0
                        continue
                    failures += 1
                    await self._pause(failures)
        finally:
            await self._loop.run_in_executor(self._worker, self._producer.close)
            self._worker.shutdown(wait=False)
            self._stopped.set()

    async def close(self, timeout_s: float) -> bool:
        """Give up what is being sent and wait for the end of `run`; what was acknowledged is forgotten.

        False where the buffer's disk did not let it within `timeout_s`: `run` is then for the caller to
        cancel, and what was acknowledged and not forgotten arrives twice.
        """
        self._stopping.set()
        self._live.moved.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._stopped.wait()
        except TimeoutError:
            log.warning("drain_not_ended", entries_to_forget=len(self._delivered))
            return False
        return True

    async def _next(self, first_try: bool) -> list[StoredEntry] | None:
        """What to send now; None where the buffer's disk does not tell."""
        if not await self._forget():
            return None
        try:
            entries = await self._buffer.peek(self._batch, self._live.drain_below())
        except BufferRefusedError as refused:
            self._metrics.drain_refusals.inc()
            if first_try:
                log.warning("buffer_cannot_be_read", detail=str(refused))
            return None
        # Again: what was committed while we waited may be in doubt.
        below = self._live.drain_below()
        return entries if below is None else [stored for stored in entries if stored.entry_id < below]

    async def _send(self, entries: Sequence[StoredEntry]) -> bool:
        """Whether all of them are settled."""
        started_s = time.monotonic()
        fates = await self._loop.run_in_executor(
            self._worker, self._producer.send, [stored.entry for stored in entries]
        )
        by_fate: dict[Fate, list[StoredEntry]] = {fate: [] for fate in Fate}
        for stored, fate in zip(entries, fates, strict=True):
            by_fate[fate].append(stored)
        delivered = by_fate[Fate.DELIVERED]
        self._delivered.update((stored.entry_id, stored.entry) for stored in delivered)
        self._metrics.drained.inc(len(delivered))
        if by_fate[Fate.NOT_NOW]:
            self._metrics.drain_failures.inc()
        well = await self._forget() and not by_fate[Fate.NOT_NOW]
        well = await self._drop(by_fate[Fate.CORRUPT], DropReason.CORRUPT) and well
        well = await self._bury(by_fate[Fate.REFUSED]) and well
        log.debug("drained", entries=len(delivered), of=len(entries), took_s=time.monotonic() - started_s)
        return well

    async def _forget(self) -> bool:
        """Have the buffer forget what was delivered; whether it could."""
        if not self._delivered:
            return True
        delivered = dict(self._delivered)
        try:
            gone = set(await self._buffer.acknowledge(list(delivered)))
        except BufferRefusedError as refused:
            self._metrics.drain_refusals.inc()
            log.warning("buffer_cannot_forget", detail=str(refused), entries=len(delivered))
            return False
        for entry_id, entry in delivered.items():
            del self._delivered[entry_id]
            if entry_id not in gone:
                self._ledger.account(entry.source).drain()
        return True

    async def _drop(self, entries: Sequence[StoredEntry], reason: DropReason) -> bool:
        if not entries:
            return True
        log.error("buffered_entries_dropped", reason=reason.value, entries=len(entries))
        try:
            await self._buffer.drop([stored.entry_id for stored in entries], reason)
        except BufferRefusedError as refused:
            self._metrics.drain_refusals.inc()
            log.warning("buffer_cannot_forget", detail=str(refused), entries=len(entries))
            return False
        return True

    async def _bury(self, refused: Sequence[StoredEntry]) -> bool:
        """Write what Kafka refuses for good to the dead-letter topic, where it takes that, and drop it."""
        for stored in refused:
            # Alone: Kafka refuses a whole batch for the size that it had together.
            fate = await self._send_one(stored.entry)
            if fate is Fate.REFUSED and stored.entry.kind is not EntryKind.DEAD_LETTER:
                letter = undeliverable_entry(stored.entry, int(time.time() * 1000))
                if await self._send_one(letter) is Fate.NOT_NOW:
                    return False
            if fate is Fate.NOT_NOW:
                return False
            if fate is Fate.DELIVERED:
                self._delivered[stored.entry_id] = stored.entry
                self._metrics.drained.inc()
            elif not await self._drop([stored], DropReason.UNDELIVERABLE):
                return False
        return await self._forget()

    async def _send_one(self, entry: Entry) -> Fate:
        (fate,) = await self._loop.run_in_executor(self._worker, self._producer.send, [entry])
        return fate

    async def _pause(self, failures: int) -> None:
        chance = random.random()  # noqa: S311 - spreads gateways that lost one broker
        delay_s = jittered_backoff_s(failures, BACKOFF_FIRST_S, BACKOFF_LONGEST_S, chance)
        deadline_s = self._loop.time() + delay_s
        while not self._stopping.is_set() and (left_s := deadline_s - self._loop.time()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._live.moved.wait()
                self._live.moved.clear()
            except TimeoutError:
                return

    def _may_go_on(self) -> bool:
        """Also asked by the sending thread."""
        return not self._stopping.is_set() and self._live.mode is Mode.DIRECT

"""Makes what was received durable: in Kafka at once, or in the edge buffer when Kafka is slow or away.

In: frames with their alarms, dead letters; answers of the live producer and of the buffer; the clock. Out:
records to Kafka, entries to the buffer, and a future per put that resolves once all of it is durable.
Guarantees: those of `durability`. While Kafka answers nothing is written to disk on a put's way, but for the
ledger's counts once a second. What both Kafka and the buffer refuse is refused with `UnavailableError`.
Not here: the decisions (`durability`), what is in the buffer already (`drain`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

import msgspec
import structlog

from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.durability import Durability, Mode, Policy
from plantwire.gateway.buffer.entry import BufferRefusedError, DropReason, EdgeBuffer
from plantwire.gateway.buffer.ledger import SAVED_KEY, Ledger
from plantwire.gateway.buffer.ledger_report import LedgerReport, ledger_report
from plantwire.gateway.buffer.record import Alarm, Put, Record
from plantwire.gateway.forwarder import DeadLetter, Obstacle, UnavailableError
from plantwire.gateway.kafka_record import alarm_entry, dead_letter_entry, frame_entry, record_size_bytes
from plantwire.gateway.live_producer import Answers, LiveProducer
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.settings import GatewaySettings
from plantwire.schemas.records import AlarmEvent, TelemetryFrame

TICK_S: Final = 0.1
SAVE_INTERVAL_S: Final = 1.0
COMMIT_MAX_BYTES: Final = 16 * 1024 * 1024
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"

log = structlog.get_logger()


class EdgeWatch(Protocol):
    """Who wants to know what the cloud heard of a device: `intake.EdgeDetection`, report by exception."""

    def on_spilled(self, device_id: str, order: int) -> None:
        """See there."""

    def on_delivered_with_state(self, device_id: str, order: int) -> None:
        """See there."""


class BufferedForwarder:
    """The `intake.DurableForwarder`. `start` it inside the running loop, with an open buffer; `close` it."""

    def __init__(
        self,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
        ledger: Ledger,
        producer: LiveProducer,
        buffer: EdgeBuffer,
    ) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._producer = producer
        self._buffer = buffer
        put_max_bytes = BufferBounds(size_max_bytes=settings.gateway_buffer_max_bytes).put_max_bytes
        self._core = Durability(
            self,
            Policy(
                spill_after_ms=settings.gateway_spill_after_ms,
                commit_max_bytes=min(COMMIT_MAX_BYTES, put_max_bytes),
            ),
        )
        self._watches: list[EdgeWatch] = []
        self._order = 0
        self._closing = False
        self._forgets: list[Record] = []
        self._commits: set[asyncio.Future[list[int]]] = set()
        self._probe: asyncio.Task[None] | None = None
        self._mode_since = datetime.now(UTC)
        self._saved = b""
        self._saving: asyncio.Future[None] | None = None
        self._save_due_s = 0.0

    def watch(self, watch: EdgeWatch) -> None:
        """Tell edge detection, or another, what becomes of frames; before `start`."""
        self._watches.append(watch)

    def start(self, buffer_fault: str | None = None) -> None:
        """Take over the ledger, start the live producer, and look at the clock from now on.

        `buffer_fault`: why the buffer could not be opened; frames then have Kafka alone.
        """
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()
        if buffer_fault is not None:
            self._core.lost_buffer(buffer_fault)
        self._restore_ledger()
        self._metrics.in_flight.set_function(lambda: self._producer.in_flight)
        self._producer.start(self._handle_answers, self._handle_replaced)
        self._timer = self._loop.call_later(TICK_S, self._tick)

    @property
    def mode(self) -> Mode:
        """Whether Kafka is waited for, or the buffer."""
        return self._core.mode

    @property
    def moved(self) -> asyncio.Event:
        """Set whenever there may be something to drain, or no longer; whoever drains clears it."""
        return self._moved

    def drain_below(self) -> int | None:
        """See `Durability.drain_below`."""
        return self._core.drain_below()

    def note(self) -> str | None:
        """None while all is well; else since when Kafka is slow, and why the buffer takes nothing."""
        slow = None if self.mode is Mode.DIRECT else f"buffering since {self._mode_since:{_TIME}}"
        alone = self._core.refusal and f"without the edge buffer: {self._core.refusal}"
        return "; ".join(filter(None, (slow, alone))) or None

    def report(self) -> LedgerReport:
        """The ledger, with what the buffer holds."""
        return ledger_report(
            self._ledger.counts(),
            self._buffer.stats(),
            self.mode.value,
            f"{self._mode_since:{_TIME}}",
            int(time.time() * 1000),
        )

    def put(
        self,
        frames: Sequence[TelemetryFrame],
        alarms: Sequence[Sequence[AlarmEvent]] = (),
        refusal: DropReason = DropReason.RETURNED,
    ) -> asyncio.Future[None]:
        """See `intake.DurableForwarder.put`. Stamps each frame's `gateway_out_us`."""
        put = Put(self._loop.create_future(), len(frames), self._now_ms(), refusal)
        records: list[Record] = []
        for number, frame in enumerate(frames):
            self._order += 1
            entry = frame_entry(frame, time.time_ns() // 1000)
            record = Record(entry, self._ledger.account(entry.source), put, self._order)
            record.observed = not frame.historical
            record.stateful = bool(frame.edge_state)
            if alarms and alarms[number]:
                record.alarms = tuple(self._alarm(event, record) for event in alarms[number])
            records.append(record)
        future = self._take(put, records)
        # One observation for a request of many: the first frame has waited longest for its hand-over.
        self._metrics.normalisation.observe((time.time_ns() // 1000 - frames[0].gateway_in_us) / 1e6)
        return future

    def put_alarms(self, events: Sequence[AlarmEvent]) -> None:
        """See `intake.DurableForwarder.put_alarms`."""
        self._core.take_alarms([self._alarm(event, None) for event in events], self._now_ms())

    def put_dead_letter(
        self, letter: DeadLetter, refusal: DropReason = DropReason.RETURNED
    ) -> asyncio.Future[None]:
        """See `intake.DurableForwarder.put_dead_letter`."""
        put = Put(self._loop.create_future(), 1, self._now_ms(), refusal)
        entry = dead_letter_entry(letter)
        self._order += 1
        return self._take(put, [Record(entry, self._ledger.account(entry.source), put, self._order)])

    async def ready(self) -> str | None:
        """See `Forwarder.ready`: frames can be stored while Kafka or the buffer takes them."""
        if self._closing:
            return "the gateway is stopping"
        if self._core.refusal is None:
            return None
        finding = await self._producer.ask()
        return finding and f"{finding}; the buffer: {self._core.refusal}"

    async def close(self, timeout_s: float) -> int:
        """Take no more. Wait up to `timeout_s` for Kafka, then for the buffer to have the rest.

        Returns how many records in hand neither of them has.
        """
        self._closing = True
        await self._producer.wait_idle(timeout_s)
        if self._core.undecided:
            self._core.spill(self._now_ms())
        await self._producer.close()
        try:
            async with asyncio.timeout(timeout_s):
                while self._core.busy:
                    # Without a commit under way the buffer refused: the tick offers it again after a pause.
                    await asyncio.wait(self._commits or {asyncio.ensure_future(asyncio.sleep(TICK_S))})
        except TimeoutError:
            log.warning("not_all_stored", detail=self._core.refusal)
        self._timer.cancel()
        if self._probe is not None:
            self._probe.cancel()
        left = sum(counts.in_hand for counts in self._ledger.counts().values())
        await self._save_last(timeout_s)
        return left

    def commit(self, records: Sequence[Record]) -> None:
        """See `durability.Actions`."""
        started_s = time.perf_counter()
        future = self._buffer.put([record.entry for record in records])
        self._commits.add(future)
        future.add_done_callback(partial(self._handle_commit, records, started_s))

    def forget(self, record: Record) -> None:
        """See `durability.Actions`. Gathered, and sent by `_send_forgets`."""
        self._forgets.append(record)

    def settle(self, put: Put, failure: str | None) -> None:
        """See `durability.Actions`."""
        future = put.promise
        if failure is None and not put.stored:
            self._metrics.acknowledgement.observe((self._now_ms() - put.started_ms) / 1000)
        if future.done():  # the request was cancelled at a forced stop
            return
        if failure is None:
            future.set_result(None)
        else:
            detail = f"Kafka did not acknowledge, and the buffer took nothing: {failure}."
            future.set_exception(UnavailableError(Obstacle.NOT_ACKNOWLEDGED, detail))

    def spilled(self, record: Record) -> None:
        """See `durability.Actions`."""
        for watch in self._watches:
            watch.on_spilled(record.entry.device_id, record.order)

    def delivered_with_state(self, record: Record) -> None:
        """See `durability.Actions`."""
        for watch in self._watches:
            watch.on_delivered_with_state(record.entry.device_id, record.order)

    def probe(self) -> None:
        """See `durability.Actions`."""
        if self._probe is None or self._probe.done():
            self._probe = self._loop.create_task(self._ask_kafka())

    def mode_changed(self) -> None:
        """See `durability.Actions`."""
        self._mode_since = datetime.now(UTC)
        self._moved.set()
        if self.mode is Mode.DIRECT:
            log.info("kafka_back", buffered=self._buffer.stats().entries)
        else:
            log.warning("kafka_slow_or_away", in_flight=self._core.undecided)

    def _take(self, put: Put, records: list[Record]) -> asyncio.Future[None]:
        for record in records:
            record.account.receive()
        if self._closing:
            self._refuse(records, put.refusal)
            raise UnavailableError(Obstacle.CLOSING, "The gateway is stopping.")
        size_bytes = sum(record_size_bytes(record.entry) for record in records)
        live = self._producer.has_room(len(records), size_bytes)
        try:
            self._core.take(records, live, put.started_ms)
        except BufferRefusedError as refused:
            self._refuse(records, put.refusal)
            raise UnavailableError(
                Obstacle.IN_FLIGHT_FULL,
                f"Too much is waiting for Kafka's acknowledgement, and the buffer took nothing: {refused}.",
            ) from None
        if live:
            for record in records:
                self._producer.send(record)
        return put.promise

    def _refuse(self, records: Sequence[Record], refusal: DropReason) -> None:
        for record in records:
            record.account.drop(refusal)

    def _alarm(self, event: AlarmEvent, frame: Record | None) -> Alarm:
        entry = alarm_entry(event)
        return Alarm(entry, self._ledger.account(entry.source), frame)

    def _handle_answers(self, batch: Answers) -> None:
        self._core.answered(((record, error is None) for record, error in batch), self._now_ms())
        self._send_forgets()

    def _handle_replaced(self) -> None:
        # Everything that the failed producer held will be answered as failed.
        self._core.spill(self._now_ms())

    def _handle_commit(
        self, records: Sequence[Record], started_s: float, future: asyncio.Future[list[int]]
    ) -> None:
        self._commits.discard(future)
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or isinstance(error, BufferRefusedError):
            self._core.refused(records, str(error or "the buffer was closed"), self._now_ms())
        elif error is not None:
            raise error
        else:
            self._metrics.buffer.commit.observe(time.perf_counter() - started_s)
            self._core.committed(records, future.result(), self._now_ms())
        self._send_forgets()

    def _send_forgets(self) -> None:
        if not self._forgets:
            return
        records, self._forgets = self._forgets, []
        try:
            future = self._buffer.acknowledge([record.entry_id for record in records])
        except BufferRefusedError as refused:
            log.warning("buffer_cannot_forget", detail=str(refused), entries=len(records))
            return  # the entries are there still: they are drained, and arrive twice
        future.add_done_callback(partial(self._handle_forgotten, records))

    def _handle_forgotten(self, records: Sequence[Record], future: asyncio.Future[list[int]]) -> None:
        if future.cancelled() or future.exception() is not None:
            return  # as above
        gone = set(future.result())
        for record in records:
            self._core.forgotten(record, record.entry_id not in gone)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._core.tick(self._now_ms())
        stats = self._buffer.stats()
        self._metrics.buffer.show(stats, self.mode, self._core.refusal is not None, time.time())
        if stats.entries and self.mode is Mode.DIRECT:
            self._moved.set()
        if self._loop.time() >= self._save_due_s:
            self._save()

    def _save(self) -> None:
        """Save the counts where they changed. A buffer that refused is asked by this too."""
        self._save_due_s = self._loop.time() + SAVE_INTERVAL_S
        if self._saving is not None and not self._saving.done():
            return
        counts = self._ledger.save()
        if counts == self._saved and self._core.refusal is None:
            return
        try:
            self._saving = self._buffer.save(SAVED_KEY, counts)
        except BufferRefusedError:
            return
        self._saved = counts
        self._saving.add_done_callback(self._handle_saved)

    def _handle_saved(self, future: asyncio.Future[None]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._saved = b""  # again at the next opportunity
        else:
            self._core.found_buffer(self._now_ms())

    async def _save_last(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._buffer.save(SAVED_KEY, self._ledger.save())
        except TimeoutError:
            log.warning("ledger_not_saved", detail="the buffer's disk does not answer")
        except BufferRefusedError as refused:
            log.warning("ledger_not_saved", detail=str(refused))

    def _restore_ledger(self) -> None:
        saved = self._buffer.saved(SAVED_KEY).get(SAVED_KEY)
        try:
            stats = self._buffer.stats()
            self._ledger.restore(saved, stats.by_source, stats.dropped)
        except msgspec.MsgspecError as error:
            log.error("ledger_unreadable", detail=str(error))

    async def _ask_kafka(self) -> None:
        if await self._producer.ask() is None:
            self._core.found_kafka(self._now_ms())

    def _now_ms(self) -> float:
        return self._loop.time() * 1000

"""Frames and dead letters → Kafka, each with a promise that resolves when Kafka acknowledged it.

In: decoded frames (`put`), refused bytes (`put_dead_letter`). Out: records on `device.telemetry.raw` (key:
device id; timestamp: event time; header: the writer schema's fingerprint) and `device.telemetry.dlq`.
Guarantees: a resolved promise means that every in-sync replica has the record (acks=all); a failed one
means that it may or may not be there, so the sender tries again: at least once. The producer is
idempotent, so its own retries neither double nor reorder. What is in flight is bounded in records and in
bytes; beyond the bound `put` refuses at once and produces nothing.
Not here: the edge buffer, which will implement the same `Forwarder`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.rejected import Rejected
from plantwire.gateway.settings import GatewaySettings
from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import TelemetryFrame

HEADER_ORIGINAL_BYTES: Final = "original.bytes"
"""Size of a refused message, on dead letters that hold only its beginning."""
DEAD_LETTER_MAX_BYTES: Final = 900_000
_SOURCE_MAX_CHARACTERS: Final = 1024
_RECORD_OVERHEAD_BYTES: Final = 128
_POLL_TIMEOUT_S: Final = 0.2
_PROBE_TIMEOUT_S: Final = 1.0
_PROBE_KEPT_S: Final = 1.0


class Obstacle(StrEnum):
    """Why Kafka cannot have a record now."""

    IN_FLIGHT_FULL = "in-flight-full"
    NOT_ACKNOWLEDGED = "not-acknowledged"
    CLOSING = "closing"


class UnavailableError(Exception):
    """Not stored for now; the sender tries again. It may have been stored all the same."""

    def __init__(self, obstacle: Obstacle, detail: str) -> None:
        super().__init__(detail)
        self.obstacle = obstacle
        self.detail = detail


class DeadLetter(msgspec.Struct, frozen=True):
    """Refused bytes as they came, and where they came from (such as ``mqtt:devices/press-1/telemetry``)."""

    payload: bytes
    rejected: Rejected
    source: str
    received_time_ms: int
    protocol: str = ""
    """What the ledger counts it under, as a frame's; where empty, `source` up to its colon."""


class Forwarder(Protocol):
    """What a transport hands its input to."""

    def put(self, frames: Sequence[TelemetryFrame]) -> asyncio.Future[None]:
        """Take frames; the future resolves once all are durable, or fails with `UnavailableError`.

        Raises `UnavailableError` at once, with none taken, where there is no room.
        """

    def put_dead_letter(self, letter: DeadLetter) -> asyncio.Future[None]:
        """Take a dead letter; as `put`."""

    async def ready(self) -> str | None:
        """None where frames can be stored now, else what is amiss."""


class _Pending:
    """The records of one `put` that Kafka has not settled yet."""

    __slots__ = ("_owner", "error", "future", "records", "remaining", "size_bytes", "started_s")

    def __init__(self, owner: KafkaForwarder, future: asyncio.Future[None], records: int, size_bytes: int):
        self._owner = owner
        self.future = future
        self.records = self.remaining = records
        self.size_bytes = size_bytes
        self.started_s = time.perf_counter()
        self.error: KafkaError | None = None

    def on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        """Runs in the polling thread."""
        self._owner.note_delivered(self, error)


class KafkaForwarder:
    """The `Forwarder` that writes to Kafka at once. `start` it inside the running loop; `close` it."""

    def __init__(self, settings: GatewaySettings, metrics: GatewayMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._in_flight_max = settings.gateway_in_flight_max
        self._in_flight_bytes_max = settings.gateway_in_flight_bytes_max
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._closing = False
        self._stopped = threading.Event()
        self._delivered: list[tuple[_Pending, KafkaError | None]] = []
        self._headers = [(topics.HEADER_FINGERPRINT, FRAME_CODEC.fingerprint.encode())]
        self._probe: asyncio.Task[str | None] | None = None
        self._probed_at_s = -_PROBE_KEPT_S

    def start(self) -> None:
        """Create the producer (which connects by itself) and the thread that serves its callbacks."""
        self._loop = asyncio.get_running_loop()
        self._drained = asyncio.Event()
        self._drained.set()
        self.failed: asyncio.Future[str] = self._loop.create_future()
        self._producer = Producer(self._configuration(), logger=logging.getLogger("plantwire.gateway.kafka"))
        self._thread = threading.Thread(target=self._serve, name="kafka-delivery", daemon=True)
        self._thread.start()

    def put(self, frames: Sequence[TelemetryFrame]) -> asyncio.Future[None]:
        """See `Forwarder.put`. Stamps each frame's `gateway_out_us`."""
        self._reserve(len(frames), 0)
        records: list[tuple[str, bytes, int]] = []
        size_bytes = 0
        for frame in frames:
            out_us = time.time_ns() // 1000
            body = FRAME_CODEC.encode(msgspec.structs.replace(frame, gateway_out_us=out_us))
            size_bytes += len(body) + _RECORD_OVERHEAD_BYTES
            records.append((frame.device_id, body, frame.event_time_ms))
        self._reserve(len(frames), size_bytes)
        pending = self._pending(len(records), size_bytes)
        for device_id, body, event_time_ms in records:
            self._produce(
                pending,
                {
                    "topic": topics.TELEMETRY_RAW,
                    "value": body,
                    "key": device_id,
                    "timestamp": event_time_ms,
                    "headers": self._headers,
                },
            )
        # One observation for a request of many: the first frame has waited longest for its hand-over.
        self._metrics.normalisation.observe((time.time_ns() // 1000 - frames[0].gateway_in_us) / 1e6)
        return pending.future

    def put_dead_letter(self, letter: DeadLetter) -> asyncio.Future[None]:
        """See `Forwarder.put_dead_letter`. Keeps the first `DEAD_LETTER_MAX_BYTES` of a larger one."""
        payload = letter.payload[:DEAD_LETTER_MAX_BYTES]
        headers: list[tuple[str, str | bytes | None]] = [
            (topics.HEADER_REASON, letter.rejected.reason.value.encode()),
            (topics.HEADER_SOURCE, letter.source[:_SOURCE_MAX_CHARACTERS].encode(errors="replace")),
            (topics.HEADER_RECEIVED_TIME, str(letter.received_time_ms).encode()),
        ]
        if len(payload) < len(letter.payload):
            headers.append((HEADER_ORIGINAL_BYTES, str(len(letter.payload)).encode()))
        size_bytes = len(payload) + _RECORD_OVERHEAD_BYTES
        self._reserve(1, size_bytes)
        pending = self._pending(1, size_bytes)
        self._produce(
            pending,
            {
                "topic": topics.TELEMETRY_DLQ,
                "value": payload,
                "timestamp": letter.received_time_ms,
                "headers": headers,
            },
        )
        return pending.future

    async def ready(self) -> str | None:
        """See `Forwarder.ready`. Asks Kafka at most once a second, however often it is called."""
        if self._closing:
            return "the gateway is stopping"
        if self._probe is None or (
            self._probe.done() and time.monotonic() - self._probed_at_s >= _PROBE_KEPT_S
        ):
            self._probe = asyncio.create_task(self._ask_kafka())
        return await asyncio.shield(self._probe)

    async def close(self, timeout_s: float) -> int:
        """Take no more, wait up to `timeout_s` for what is in flight; returns how many records were left."""
        self._closing = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._drained.wait()
        except TimeoutError:
            # Whoever waits for these must hear that they are not stored.
            self._producer.purge()
            self._producer.flush(_POLL_TIMEOUT_S)
        left = self._in_flight
        self._stopped.set()
        await self._loop.run_in_executor(None, self._thread.join)
        return left

    def note_delivered(self, pending: _Pending, error: KafkaError | None) -> None:
        """Runs in the polling thread; the loop hears of it once per batch."""
        self._delivered.append((pending, error))

    def _configuration(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self._settings.kafka,
            "client.id": "plantwire-gateway",
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": self._settings.gateway_linger_ms,
            "message.timeout.ms": self._settings.gateway_ack_timeout_ms,
            # Above this class's own bounds, so that these and not the library's decide.
            "queue.buffering.max.messages": 2 * self._in_flight_max,
            "queue.buffering.max.kbytes": 2 * self._in_flight_bytes_max // 1024,
            # Kafka's Java clients place keys by murmur2; other producers must find the same partition.
            "partitioner": "murmur2_random",
            "reconnect.backoff.max.ms": 1000,
            "error_cb": self._on_error,
        }

    def _reserve(self, records: int, size_bytes: int) -> None:
        if self._closing:
            raise UnavailableError(Obstacle.CLOSING, "The gateway is stopping.")
        if (
            self._in_flight + records > self._in_flight_max
            or self._in_flight_bytes + size_bytes > self._in_flight_bytes_max
        ):
            raise UnavailableError(
                Obstacle.IN_FLIGHT_FULL, "Too much is waiting for Kafka's acknowledgement; try again."
            )

    def _pending(self, records: int, size_bytes: int) -> _Pending:
        self._in_flight += records
        self._in_flight_bytes += size_bytes
        self._metrics.in_flight.set(self._in_flight)
        self._drained.clear()
        return _Pending(self, self._loop.create_future(), records, size_bytes)

    def _produce(self, pending: _Pending, record: dict[str, Any]) -> None:
        """Hand one record over. One that is refused counts as delivered with that error."""
        try:
            self._producer.produce(**record, on_delivery=pending.on_delivery)
        except BufferError:
            self._refuse_here(pending, KafkaError(KafkaError._QUEUE_FULL))
        except KafkaException as refused:
            self._refuse_here(pending, refused.args[0])

    def _refuse_here(self, pending: _Pending, error: KafkaError) -> None:
        # Later, not now: the caller must have its future first, and the other records their turn.
        settled: list[tuple[_Pending, KafkaError | None]] = [(pending, error)]
        self._loop.call_soon(self._settle, settled)

    def _serve(self) -> None:
        """The polling thread: blocks in librdkafka, which needs no GIL, until there are deliveries."""
        while not self._stopped.is_set():
            self._producer.poll(_POLL_TIMEOUT_S)
            if self._delivered:
                batch, self._delivered = self._delivered, []
                self._loop.call_soon_threadsafe(self._settle, batch)

    def _settle(self, batch: list[tuple[_Pending, KafkaError | None]]) -> None:
        now_s = time.perf_counter()
        for pending, error in batch:
            self._in_flight -= 1
            pending.remaining -= 1
            if error is not None:
                pending.error = error
            if pending.remaining:
                continue
            self._in_flight_bytes -= pending.size_bytes
            if pending.error is None:
                self._metrics.acknowledgement.observe(now_s - pending.started_s)
            if pending.future.done():  # the request was cancelled at a forced stop
                continue
            if pending.error is None:
                pending.future.set_result(None)
            else:
                pending.future.set_exception(
                    UnavailableError(
                        Obstacle.NOT_ACKNOWLEDGED, f"Kafka did not acknowledge: {pending.error.str()}."
                    )
                )
        self._metrics.in_flight.set(self._in_flight)
        if self._in_flight == 0:
            self._drained.set()

    def _on_error(self, error: KafkaError) -> None:
        """Runs in the polling thread. Only a fatal error needs an answer: a new producer, by a restart."""
        if error.fatal():
            self._loop.call_soon_threadsafe(self._fail, error.str())

    def _fail(self, detail: str) -> None:
        if not self.failed.done():
            self.failed.set_result(detail)

    async def _ask_kafka(self) -> str | None:
        try:
            metadata = await self._loop.run_in_executor(
                None, lambda: self._producer.list_topics(timeout=_PROBE_TIMEOUT_S)
            )
        except KafkaException as error:
            return f"Kafka does not answer: {error.args[0].str()}"
        finally:
            self._probed_at_s = time.monotonic()
        for topic in (topics.TELEMETRY_RAW, topics.TELEMETRY_DLQ):
            if topic not in metadata.topics or not metadata.topics[topic].partitions:
                return f"Kafka has no topic {topic}"
        return None

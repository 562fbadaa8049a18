"""Records → Kafka at once, each with an answer: acknowledged, or not in time.

In: records (`send`), within a bound that the caller asks for first (`has_room`). Out: records on Kafka's
topics; batches of answers in the event loop's thread.
Guarantees: acknowledged means that every in-sync replica has the record (acks=all); failed means that it may
or may not be there. The producer is idempotent, so its own retries neither double nor reorder. Every record
is answered once. A producer that fails for good is replaced: what it had in hand is answered as failed.
Not here: what an answer means (`buffer.durability`).
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from plantwire.gateway.buffer.record import Record
from plantwire.gateway.kafka_record import producer_arguments, record_size_bytes
from plantwire.gateway.settings import GatewaySettings
from plantwire.schemas import topics

_POLL_TIMEOUT_S: Final = 0.2
_FLUSH_TIMEOUT_S: Final = 1.0
_PROBE_TIMEOUT_S: Final = 1.0
_PROBE_KEPT_S: Final = 1.0
_NUMBERS: Final = re.compile(r"\d+")
_HOUR_MS: Final = 3_600_000

Answers = list[tuple[Record, KafkaError | None]]

log = structlog.get_logger()
kafka_log: Final = logging.getLogger("plantwire.gateway.kafka")
_SAID_AGAIN_AFTER_S: Final = 60.0
_SAID_MAX: Final = 256


class _OnceAMinute(logging.Filter):
    """librdkafka reports every attempt to connect, for as long as an outage lasts: once a minute will do."""

    def __init__(self) -> None:
        super().__init__()
        self._said_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this was not said within the last minute; numbers (of attempts, of ms) do not count."""
        text = _NUMBERS.sub("#", record.getMessage())
        if record.created - self._said_s.get(text, 0.0) < _SAID_AGAIN_AFTER_S:
            return False
        if len(self._said_s) >= _SAID_MAX:
            self._said_s.clear()
        self._said_s[text] = record.created
        return True


kafka_log.addFilter(_OnceAMinute())


def producer_configuration(settings: GatewaySettings) -> dict[str, Any]:
    """What the live producer and the draining one have in common."""
    return {
        "bootstrap.servers": settings.kafka,
        "enable.idempotence": True,
        "acks": "all",
        # Kafka's Java clients place keys by murmur2; other producers must find the same partition.
        "partitioner": "murmur2_random",
        "reconnect.backoff.max.ms": 1000,
    }


class LiveProducer:
    """`start` it inside the running loop; `close` it."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._in_flight_max = settings.gateway_in_flight_max
        self._in_flight_bytes_max = settings.gateway_in_flight_bytes_max
        self._record_age_max_ms = round(settings.gateway_record_age_max_h * _HOUR_MS)
        self.in_flight = 0
        self._in_flight_bytes = 0
        self._stopped = threading.Event()
        self._purge = threading.Event()
        self._answers: Answers = []
        self._retired: list[Producer] = []
        self._generation = 0
        self._probe: asyncio.Task[str | None] | None = None
        self._probed_at_s = -_PROBE_KEPT_S

    def start(
        self, on_answers: Callable[[Answers], None], on_replaced: Callable[[], None] = lambda: None
    ) -> None:
        """Create the producer (which connects by itself) and the thread that serves its callbacks.

        `on_replaced` is called where a producer failed for good, before its records are answered as failed.
        """
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._on_answers = on_answers
        self._on_replaced = on_replaced
        self._producer = self._make()
        self._thread = threading.Thread(target=self._serve, name="kafka-delivery", daemon=True)
        self._thread.start()

    def has_room(self, records: int, size_bytes: int) -> bool:
        """Whether so much more may be in flight."""
        return (
            self.in_flight + records <= self._in_flight_max
            and self._in_flight_bytes + size_bytes <= self._in_flight_bytes_max
        )

    def send(self, record: Record) -> None:
        """Hand one record over. One that is refused here is answered with that error, later."""
        self.in_flight += 1
        self._in_flight_bytes += record_size_bytes(record.entry)
        self._idle.clear()
        oldest_ms = int(time.time() * 1000) - self._record_age_max_ms
        try:
            self._producer.produce(
                **producer_arguments(record.entry, oldest_ms), on_delivery=partial(self._note, record)
            )
        except BufferError:
            self._refuse(record, KafkaError(KafkaError._QUEUE_FULL))
        except KafkaException as refused:
            self._refuse(record, refused.args[0])

    async def ask(self) -> str | None:
        """None where Kafka answers and has the topics, else what is amiss. Asks at most once a second."""
        if self._probe is None or (
            self._probe.done() and time.monotonic() - self._probed_at_s >= _PROBE_KEPT_S
        ):
            self._probe = asyncio.create_task(self._ask_kafka())
        return await asyncio.shield(self._probe)

    async def wait_idle(self, timeout_s: float) -> None:
        """Returns once nothing is in flight, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return

    async def close(self) -> int:
        """End; what is still in flight is answered as failed. Returns how many records that were."""
        left = self.in_flight
        self._purge.set()
        self._stopped.set()
        await self._loop.run_in_executor(None, self._thread.join)
        # The thread's last answers are on the loop's list of calls: they come before this returns.
        await asyncio.sleep(0)
        return left

    def _make(self) -> Producer:
        self._generation += 1
        configuration = {
            **producer_configuration(self._settings),
            "client.id": "plantwire-gateway",
            "linger.ms": self._settings.gateway_linger_ms,
            "message.timeout.ms": self._settings.gateway_ack_timeout_ms,
            # Above this class's own bounds, so that these and not the library's decide.
            "queue.buffering.max.messages": 2 * self._in_flight_max,
            "queue.buffering.max.kbytes": 2 * self._in_flight_bytes_max // 1024,
            "error_cb": partial(self._note_error, self._generation),
        }
        return Producer(configuration, logger=kafka_log)

    def _note(self, record: Record, error: KafkaError | None, _message: Message) -> None:
        """Runs in the polling thread; the loop hears of it once per batch."""
        self._answers.append((record, error))

    def _note_error(self, generation: int, error: KafkaError) -> None:
        """Runs in the polling thread. Only a fatal error needs an answer: a new producer."""
        if error.fatal():
            self._loop.call_soon_threadsafe(self._replace, generation, error.str())

    def _replace(self, generation: int, detail: str) -> None:
        if generation != self._generation or self._stopped.is_set():
            return  # told twice
        log.error("kafka_producer_replaced", detail=detail, in_flight=self.in_flight)
        failed, self._producer = self._producer, self._make()
        self._on_replaced()
        self._retired.append(failed)

    def _refuse(self, record: Record, error: KafkaError) -> None:
        # Later, not now: the caller has other records to hand over.
        answers: Answers = [(record, error)]
        self._loop.call_soon(self._settle, answers)

    def _serve(self) -> None:
        """The polling thread: blocks in librdkafka, which needs no GIL, until there are answers."""
        while not self._stopped.is_set():
            self._producer.poll(_POLL_TIMEOUT_S)
            while self._retired:
                _end(self._retired.pop())
            self._pass_on()
        if self._purge.is_set():
            _end(self._producer)
            self._pass_on()

    def _pass_on(self) -> None:
        if self._answers:
            batch, self._answers = self._answers, []
            self._loop.call_soon_threadsafe(self._settle, batch)

    def _settle(self, batch: Answers) -> None:
        for record, _ in batch:
            self.in_flight -= 1
            self._in_flight_bytes -= record_size_bytes(record.entry)
        if self.in_flight == 0:
            self._idle.set()
        self._on_answers(batch)

    async def _ask_kafka(self) -> str | None:
        producer = self._producer
        try:
            metadata = await self._loop.run_in_executor(
                None, lambda: producer.list_topics(timeout=_PROBE_TIMEOUT_S)
            )
        except KafkaException as error:
            return f"Kafka does not answer: {error.args[0].str()}"
        finally:
            self._probed_at_s = time.monotonic()
        for topic in (topics.TELEMETRY_RAW, topics.TELEMETRY_DLQ):
            if topic not in metadata.topics or not metadata.topics[topic].partitions:
                return f"Kafka has no topic {topic}"
        return None


def _end(producer: Producer) -> None:
    """Have whatever a producer holds answered as failed."""
    producer.purge()
    producer.flush(_FLUSH_TIMEOUT_S)

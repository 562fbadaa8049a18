"""Sends entries of the buffer to Kafka, a batch at a time, at a steady pace, in order.

In: entries. Out: for each what became of it.
Guarantees: of what is sent in one batch, a record counts as delivered only if all before it of the same
partition are. For that no record times out by itself: when there is no progress, or the caller says stop,
the producer is given up with everything that it holds, and the next batch gets a new one.
Not here: which entries, and what follows (`drain`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from plantwire.gateway.buffer.entry import Entry
from plantwire.gateway.kafka_record import historical_entry, producer_arguments
from plantwire.gateway.live_producer import kafka_log, producer_configuration
from plantwire.gateway.settings import GatewaySettings
from plantwire.schemas.codec import UndecodableError

STALLED_AFTER_S: Final = 10.0
"""Without any acknowledgement for so long a batch is given up."""
_POLL_S: Final = 0.05
_FLUSH_TIMEOUT_S: Final = 1.0
_LINGER_MS: Final = 10
_SLICES_PER_S: Final = 100
_SLICE_MAX: Final = 20
"""Entries made ready in one go: they take the interpreter from live frames for as long."""
_HOUR_MS: Final = 3_600_000
# About the record itself; every other error may be gone next time.
_REFUSED_FOR_GOOD: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError._INVALID_ARG,
    }
)


class Fate(Enum):
    """What became of an entry."""

    DELIVERED = "delivered"
    CORRUPT = "corrupt"
    """It is no frame any more."""
    REFUSED = "refused"
    """Kafka will never take it."""
    NOT_NOW = "not-now"
    """Not sent, or not acknowledged."""


class Pace:
    """Spreads entries evenly over time."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._next_s = 0.0

    @property
    def slice_size(self) -> int:
        """How many at a time."""
        return max(1, min(_SLICE_MAX, int(self._per_s / _SLICES_PER_S)))

    def take(self, count: int, now_s: float) -> float:
        """How long to wait before `count` more may go; what was not used is not saved up."""
        wait_s = max(0.0, self._next_s - now_s)
        self._next_s = max(self._next_s, now_s) + count / self._per_s
        return wait_s


class DrainProducer:
    """Blocking; used by one thread at a time. `close` it."""

    def __init__(
        self,
        settings: GatewaySettings,
        may_go_on: Callable[[], bool],
        make: Callable[[dict[str, Any]], Any] = partial(Producer, logger=kafka_log),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._record_age_max_ms = round(settings.gateway_record_age_max_h * _HOUR_MS)
        self._pace = Pace(settings.gateway_drain_frames_per_s)
        self._may_go_on = may_go_on
        self._make = make
        self._clock = clock
        self._producer: Any = None
        self._failed = False
        self._progress_s = 0.0

    def send(self, entries: Sequence[Entry]) -> list[Fate]:
        """Send them in order; returns when each is settled, or when there is no use in waiting."""
        if self._producer is None:
            self._producer = self._make(self._configuration())
        self._failed = False
        fates: list[Fate | None] = [None] * len(entries)
        self._produce(entries, fates)
        self._progress_s = self._clock()
        while None in fates and not self._should_stop():
            self._producer.poll(_POLL_S)
        if None in fates or self._failed:
            self.close()
        return [fate or Fate.NOT_NOW for fate in fates]

    def close(self) -> None:
        """Give the producer up, with everything that it holds."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(_FLUSH_TIMEOUT_S)

    def _produce(self, entries: Sequence[Entry], fates: list[Fate | None]) -> None:
        for start in range(0, len(entries), self._pace.slice_size):
            part = entries[start : start + self._pace.slice_size]
            due_s = self._clock()
            due_s += self._pace.take(len(part), due_s)
            self._progress_s = self._clock()
            self._producer.poll(0)
            while (left_s := due_s - self._clock()) > 0 and not self._failed and self._may_go_on():
                self._producer.poll(min(left_s, _POLL_S))
            if self._failed or not self._may_go_on():
                return
            for number, entry in enumerate(part, start):
                fates[number] = self._produce_one(entry, partial(self._note, fates, number))

    def _produce_one(self, entry: Entry, note: Callable[[KafkaError | None, Message], None]) -> Fate | None:
        now_us = time.time_ns() // 1000
        try:
            arguments = producer_arguments(
                historical_entry(entry, now_us), now_us // 1000 - self._record_age_max_ms
            )
        except UndecodableError:
            return Fate.CORRUPT
        try:
            self._producer.produce(**arguments, on_delivery=note)
        except BufferError:
            self._failed = True
            return Fate.NOT_NOW
        except KafkaException as refused:
            return self._fate_of(refused.args[0])
        return None

    def _note(
        self, fates: list[Fate | None], number: int, error: KafkaError | None, _message: Message
    ) -> None:
        fates[number] = Fate.DELIVERED if error is None else self._fate_of(error)
        self._progress_s = self._clock()

    def _fate_of(self, error: KafkaError) -> Fate:
        if error.code() in _REFUSED_FOR_GOOD:
            return Fate.REFUSED
        self._failed = True
        return Fate.NOT_NOW

    def _should_stop(self) -> bool:
        return self._failed or not self._may_go_on() or self._clock() - self._progress_s >= STALLED_AFTER_S

    def _configuration(self) -> dict[str, Any]:
        return {
            **producer_configuration(self._settings),
            "client.id": "plantwire-gateway-drain",
            "linger.ms": _LINGER_MS,
            "compression.type": "lz4",
            # Never by itself: see the guarantees.
            "message.timeout.ms": 0,
        }

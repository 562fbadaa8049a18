"""Records of `device.telemetry.raw` for one consumer group, and how far they are stored.

In: Kafka. Out: records, in order within each partition.
Guarantees: an offset is committed only after `settle` was called for its record; what was not settled comes
again after a restart or when Kafka moves the partition to another process. While paused nothing is fetched,
and the group does not take the process for dead. Records that Kafka's retention took before they were read
are counted and told.
Not here: what is in the records (`reading`).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from plantwire.schemas.topics import TELEMETRY_RAW
from plantwire.storage.batch import Record
from plantwire.storage.settings import StorageSettings

_CONSUME_MAX: Final = 500
_QUEUE_KIB: Final = 65_536
_SESSION_TIMEOUT_MS: Final = 10_000
_ASK_TIMEOUT_S: Final = 5.0

log = structlog.get_logger()
kafka_log: Final = logging.getLogger("plantwire.storage.kafka")
# librdkafka reports every attempt to connect, for as long as an outage lasts; `obstacle` says it once.
kafka_log.addHandler(logging.NullHandler())
kafka_log.propagate = False


class SourceError(Exception):
    """The consumer cannot go on; a new process may."""


class FrameSource:
    """One thread. `start` it, `close` it.

    `instance` names the process among those of its group: stable over restarts, and no other's. `on_lost` is
    told how many records Kafka deleted before they were read.
    """

    def __init__(
        self,
        settings: StorageSettings,
        instance: str,
        make: Callable[[dict[str, Any]], Any] = partial(Consumer, logger=kafka_log),
        on_lost: Callable[[int], object] = lambda _count: None,
    ) -> None:
        self._settings = settings
        self._instance = instance
        self._on_lost = on_lost
        # The offset that follows the last record read, by partition; none where nothing was ever read.
        self._next: dict[int, int] = {}
        self._make = make
        self._consumer: Any = None
        self._paused = False
        self._held: deque[Record] = deque()
        self._away: str | None = None
        self._heard = False

    @property
    def obstacle(self) -> str | None:
        """Why nothing can come from Kafka; None when it can."""
        return self._away

    def start(self) -> None:
        """Join the group; Kafka need not be there yet."""
        self._consumer = self._make(
            {
                "bootstrap.servers": self._settings.kafka,
                "group.id": self._settings.storage_group,
                "client.id": "plantwire-storage",
                # Its place in the group waits for it: a killed process that is back goes on at once.
                "group.instance.id": self._instance,
                "session.timeout.ms": _SESSION_TIMEOUT_MS,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": True,
                "auto.commit.interval.ms": 1000,
                # Only what `settle` names: never what was merely read.
                "enable.auto.offset.store": False,
                "partition.assignment.strategy": "cooperative-sticky",
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": _QUEUE_KIB,
                "reconnect.backoff.max.ms": 1000,
                "error_cb": self._note_error,
            }
        )
        self._consumer.subscribe([TELEMETRY_RAW], on_assign=self._on_assign)

    def take(self, timeout_s: float) -> list[Record]:
        """Up to some hundred records; returns early only with as many. Raises SourceError."""
        if self._held:
            held, self._held = list(self._held), deque()
            return held
        return self._records(self._consumer.consume(_CONSUME_MAX, timeout_s))

    def settle(self, records: Iterable[Record]) -> None:
        """They are stored: their offsets may be committed (soon, by the client itself)."""
        newest: dict[int, int] = {}
        for record in records:
            newest[record.partition] = max(record.offset, newest.get(record.partition, -1))
        assigned = {partition.partition for partition in self._consumer.assignment()}
        # What Kafka has given to another process meanwhile is read there again, and found stored.
        offsets = [TopicPartition(TELEMETRY_RAW, p, o + 1) for p, o in newest.items() if p in assigned]
        if offsets:
            self._consumer.store_offsets(offsets=offsets)

    def pause(self) -> None:
        """Fetch nothing more."""
        if not self._paused:
            self._paused = True
            self._consumer.pause(self._consumer.assignment())

    def resume(self) -> None:
        """Fetch again."""
        if self._paused:
            self._paused = False
            self._consumer.resume(self._consumer.assignment())

    def wait(self, timeout_s: float) -> None:
        """Let time pass as a living member of the group; use it while paused. Raises SourceError."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            message = self._consumer.poll(left_s)
            if message is not None:
                self._held.extend(self._records([message]))

    def look(self, timeout_s: float) -> int | None:
        """Whether Kafka answers, and how many records wait; None where it does not.

        While records come it asks nothing: each question would wait behind a fetch, and records behind it.
        """
        try:
            if not self._heard:
                topic = self._consumer.list_topics(TELEMETRY_RAW, timeout=timeout_s).topics[TELEMETRY_RAW]
                if topic.error is not None:
                    raise KafkaException(topic.error)
            lag = sum(self._waiting(partition, timeout_s) for partition in self._consumer.assignment())
        except KafkaException as error:
            self._away = error.args[0].str()
            return None
        self._heard = False
        self._away = None
        return lag

    def close(self) -> None:
        """Offsets that were settled are committed. The place in the group is kept for a while."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _waiting(self, partition: TopicPartition, timeout_s: float) -> int:
        """Records of one partition that are not read yet."""
        low, high = self._consumer.get_watermark_offsets(partition, cached=True)
        if high < 0:  # nothing was fetched yet
            low, high = self._consumer.get_watermark_offsets(partition, timeout=timeout_s)
        (read,) = self._consumer.position([partition])
        if read.offset < 0:  # there is no position before the first record
            (read,) = self._consumer.committed([partition], timeout=timeout_s)
        return int(high - max(low, read.offset))

    def _records(self, messages: Iterable[Any]) -> list[Record]:
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                key, body = message.key(), message.value()
                partition, offset = message.partition(), message.offset()
                if offset > self._next.get(partition, offset):
                    self._note_gap(partition, self._next[partition], offset)
                self._next[partition] = offset + 1
                records.append(Record(partition, offset, key, body or b"", message.headers()))
            elif error.fatal():
                raise SourceError(error.str())
            elif not error.retriable():
                self._away = error.str()
        if records:
            self._heard = True
            self._away = None
        return records

    def _note_gap(self, partition: int, expected: int, offset: int) -> None:
        """Offsets are missing before `offset`: those below Kafka's first one were deleted unread. The others
        never were records (marks of transactions)."""
        try:
            low, _ = self._consumer.get_watermark_offsets(
                TopicPartition(TELEMETRY_RAW, partition), timeout=_ASK_TIMEOUT_S
            )
        except KafkaException:
            low = offset
        lost = min(low, offset) - expected
        if lost > 0:
            self._on_lost(lost)
            log.error(
                "records_lost",
                partition=partition,
                records=lost,
                detail="Kafka's retention deleted them before they were read; a longer one keeps them.",
            )

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        try:
            committed = consumer.committed(partitions, timeout=_ASK_TIMEOUT_S)
        except KafkaException:
            committed = []
        for one in partitions:
            self._next.pop(one.partition, None)
        self._next |= {one.partition: one.offset for one in committed if one.offset >= 0}
        if self._paused:
            consumer.incremental_assign(partitions)
            consumer.pause(partitions)

    def _note_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._away = error.str()

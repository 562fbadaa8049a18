"""Records of a few topics, each partition from where it was left, and the news that one is read to its end.

In: Kafka. Out: `Record`s, in order within each partition, and `ReadUp`s between them.
Guarantees: partitions are assigned by hand, so none is ever taken away; those that a topic gains later are
read from their beginning. Positions committed in Kafka are for those who look on; what counts is in the state
file.
Not here: what is in the records.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from plantwire.light.state_file import Positions

_BATCH_MAX: Final = 500
_QUEUE_KIB: Final = 16_384
_ANSWER_S: Final = 2.0

# librdkafka reports every attempt to connect, for as long as an outage lasts; `obstacle` says it once.
kafka_log: Final = logging.getLogger("plantwire.light.kafka")
kafka_log.addHandler(logging.NullHandler())
kafka_log.propagate = False

_log = structlog.get_logger(__name__)


class SourceError(Exception):
    """The consumer cannot go on; a new process may."""


class Record(NamedTuple):
    """One record."""

    topic: str
    partition: int
    offset: int
    key: str | None
    body: bytes | None


class ReadUp(NamedTuple):
    """There is nothing more in a partition for now."""

    topic: str
    partition: int


class Cluster(NamedTuple):
    """A Kafka that answered."""

    id: str
    partitions: Mapping[str, frozenset[int]]
    """By topic; those that are missing are not there."""


class KafkaSource:
    """`connect`, `begin`, `take`, `close`: one thread; `look` and `commit` may be another's."""

    def __init__(self, bootstrap: str, group: str, topics: Iterable[str], stopping: threading.Event) -> None:
        self._topics = tuple(topics)
        self._stopping = stopping
        self._away: str | None = None
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "client.id": "plantwire-light",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                # Where what is asked for is gone, by age or because the topic was made anew.
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 100,
                "queued.max.messages.kbytes": _QUEUE_KIB,
                "reconnect.backoff.max.ms": 1000,
                "error_cb": self._note_error,
            },
            logger=kafka_log,
        )
        self._begun: dict[str, set[int]] = {}

    def connect(self) -> Cluster | None:
        """Wait for Kafka and every topic; None when told to stop."""
        while not self._stopping.is_set():
            cluster = self.look()
            if cluster is not None and all(cluster.partitions.get(topic) for topic in self._topics):
                return cluster
            self._stopping.wait(0.2)
        return None

    def look(self) -> Cluster | None:
        """Ask Kafka; None where it does not answer. `obstacle` tells."""
        try:
            found = self._consumer.list_topics(timeout=_ANSWER_S)
        except KafkaException as error:
            self._away = error.args[0].str()
            return None
        partitions = {
            topic: frozenset(found.topics[topic].partitions)
            for topic in self._topics
            if topic in found.topics and found.topics[topic].error is None
        }
        missing = [topic for topic in self._topics if not partitions.get(topic)]
        self._away = f"topics missing: {', '.join(missing)}" if missing else None
        return Cluster(str(found.cluster_id), partitions)

    @property
    def obstacle(self) -> str | None:
        """Why nothing can come from Kafka; None when it can."""
        return self._away

    def begin(self, topic: str, partitions: Iterable[int], positions: Positions | None = None) -> None:
        """Read these partitions too, from `positions`, else from where the group was; without `positions`
        from the beginning.
        """
        begun = self._begun.setdefault(topic, set())
        added = sorted(set(partitions) - begun)
        begun.update(added)
        starts: dict[int, int] = {}
        if positions is not None:
            known = {n: positions[topic, n] for n in added if (topic, n) in positions}
            left = [TopicPartition(topic, n) for n in added if n not in known]
            told = {found.partition: found.offset for found in self._committed(left) if found.offset >= 0}
            starts = {**told, **known}
        self._consumer.incremental_assign(
            [TopicPartition(topic, n, starts.get(n, OFFSET_BEGINNING)) for n in added]
        )

    def unread(self, topic: str, partitions: Iterable[int]) -> frozenset[int]:
        """Those of `partitions` that are not read yet."""
        return frozenset(partitions) - self._begun.get(topic, set())

    def take(self, timeout_s: float) -> Iterator[Record | ReadUp]:
        """What came, as soon as anything did. Raises SourceError."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return
        yield from self._of(first)
        for message in self._consumer.consume(_BATCH_MAX, 0):
            yield from self._of(message)

    def commit(self, positions: Positions) -> None:
        """Tell Kafka how far frames are taken, for those who look on; nobody waits for it."""
        offsets = [TopicPartition(topic, partition, n) for (topic, partition), n in positions.items()]
        if offsets:
            try:
                self._consumer.commit(offsets=offsets, asynchronous=True)
            except KafkaException as error:
                _log.debug("positions-not-told", reason=str(error))

    def lag(self, positions: Positions) -> int:
        """How many records wait, as far as it is known."""
        waiting = 0
        for (topic, partition), next_offset in positions.items():
            with contextlib.suppress(KafkaException):  # nothing was fetched of it yet
                _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
                waiting += max(0, high - next_offset)
        return waiting

    def close(self) -> None:
        """Let Kafka go."""
        self._consumer.close()

    def _committed(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        while partitions and not self._stopping.is_set():
            try:
                return list(self._consumer.committed(partitions, timeout=_ANSWER_S))
            except KafkaException as error:
                self._away = error.args[0].str()
                self._stopping.wait(0.2)
        return []

    def _of(self, message: Any) -> Iterator[Record | ReadUp]:
        error = message.error()
        if error is None:
            key = message.key()
            self._away = None
            yield Record(
                message.topic(),
                message.partition(),
                message.offset(),
                None if key is None else key.decode(errors="replace"),
                message.value(),
            )
        elif error.code() == KafkaError._PARTITION_EOF:
            yield ReadUp(message.topic(), message.partition())
        elif error.fatal():
            raise SourceError(error.str())
        elif not error.retriable():
            self._away = error.str()

    def _note_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._away = error.str()

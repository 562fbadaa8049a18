"""Following a topic of a real broker: its end, what comes later, and its going away."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from plantwire.platform.topic_follower import END, End, follow
from plantwire.platform.topic_reader import TopicError, TopicRecord
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka

Said = TopicRecord | End | TopicError


class Following:
    """`follow` in a thread, as it is meant to be used."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.said: queue.Queue[Said] = queue.Queue()
        self._stopping = threading.Event()
        self._bootstrap, self._topic = bootstrap, topic
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for step in follow(self._bootstrap, self._topic, self._stopping, 5.0):
                self.said.put(step)
        except TopicError as error:
            self.said.put(error)

    def next(self) -> Said:
        return self.said.get(timeout=20)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


def create(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)


def say(bootstrap: str, topic: str, *bodies: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for body in bodies:
        producer.produce(topic, key=b"k", value=body)
    assert producer.flush(10) == 0


def test_what_is_there_then_the_end_then_what_comes(kafka_bootstrap: str) -> None:
    create(kafka_bootstrap, "followed")
    say(kafka_bootstrap, "followed", b"1", b"2")
    following = Following(kafka_bootstrap, "followed")
    try:
        first, second, end = following.next(), following.next(), following.next()
        assert isinstance(first, TopicRecord)
        assert isinstance(second, TopicRecord)
        assert (first.body, second.body, end) == (b"1", b"2", END)
        say(kafka_bootstrap, "followed", b"3")
        third = following.next()
        while third is END:  # the other partition's
            third = following.next()
        assert isinstance(third, TopicRecord)
        assert (third.key, third.body) == (b"k", b"3")
    finally:
        following.stop()


def test_an_empty_topic_has_an_end_and_a_missing_one_is_told(kafka_bootstrap: str) -> None:
    create(kafka_bootstrap, "followed-empty")
    following = Following(kafka_bootstrap, "followed-empty")
    try:
        assert following.next() is END
    finally:
        following.stop()
    missing = Following(kafka_bootstrap, "followed-missing")
    assert "no topic followed-missing" in str(missing.next())
    missing.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Kafka]:
    kafka = Kafka(tmp_path / "kafka", *free_ports(2), tmp_path / "kafka.log")
    kafka.prepare()
    kafka.start()
    try:
        kafka.wait_ready(60)
        yield kafka
    finally:
        kafka.stop()


def test_a_broker_that_goes_away_is_told(broker: Kafka) -> None:
    create(broker.bootstrap, "followed")
    following = Following(broker.bootstrap, "followed")
    try:
        assert following.next() is END
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        assert "went away" in str(following.next())
    finally:
        following.stop()

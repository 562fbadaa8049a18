"""Following the rules: a topic in memory that can go away; the thread and the event loop are real."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from plantwire.gateway.edge_alarms import rule_follower
from plantwire.gateway.edge_alarms.metrics import EdgeAlarmMetrics
from plantwire.gateway.edge_alarms.rule_copy import read_copy, write_copy
from plantwire.gateway.edge_alarms.rule_follower import RuleFollower
from plantwire.platform.topic_follower import END, End
from plantwire.platform.topic_reader import TopicError, TopicRecord
from plantwire.schemas.codec import RULE_CODEC
from plantwire.schemas.records import AlarmRule, Limit

HOT = AlarmRule("hot", 1, "*", "temperature", (Limit(0, above=100),))
COLD = AlarmRule("cold", 1, "*", "temperature", (Limit(1, below=0),))


class FakeTopic:
    """What `follow` gives: each connection gets what `connect` queued for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._steps: queue.Queue[TopicRecord | End | TopicError] = queue.Queue()
        self._offset = 0
        self.taken = 0
        """How many records were dealt with: the follower asked for the next."""
        monkeypatch.setattr(rule_follower, "follow", self._follow)
        monkeypatch.setattr(rule_follower, "RETRY_FIRST_S", 0.001)
        monkeypatch.setattr(rule_follower, "RETRY_LONGEST_S", 0.002)

    def say(self, *steps: TopicRecord | End | TopicError) -> None:
        for step in steps:
            self._steps.put(step)

    def rule(self, rule: AlarmRule, key: str | None = None) -> TopicRecord:
        self._offset += 1
        return TopicRecord(
            self._offset, (key or rule.rule_id).encode(), RULE_CODEC.encode(rule), RULE_CODEC.fingerprint
        )

    def _follow(
        self, bootstrap: str, topic: str, stopping: threading.Event, timeout_s: float
    ) -> Iterator[TopicRecord | End]:
        assert (bootstrap, topic) == ("kafka:1", "alarms.rules")
        while not stopping.is_set():
            try:
                step = self._steps.get(timeout=0.02)
            except queue.Empty:
                continue
            if isinstance(step, TopicError):
                raise step
            yield step
            self.taken += 1


AWAY = TopicError("no Kafka answers")


class Following:
    def __init__(self, topic: FakeTopic, copy_file: Path) -> None:
        self.registry = CollectorRegistry()
        self.topic = topic
        self.follower = RuleFollower("kafka:1", copy_file, EdgeAlarmMetrics(self.registry))

    def rules(self, metric: str = "temperature") -> list[tuple[str, int]] | None:
        """(id, version) of the rules in force for a metric."""
        book = self.follower.book
        if book is None:
            return None
        found = book.for_device("press-1").for_metric(metric)
        return [(compiled.rule.rule_id, compiled.rule.version) for compiled in found]

    def counted(self, name: str) -> float:
        return self.registry.get_sample_value(f"plantwire_gateway_edge_{name}") or 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - any condition
                await asyncio.sleep(0.002)


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> FakeTopic:
    return FakeTopic(monkeypatch)


async def test_rules_apply_once_the_end_is_reached_and_changes_at_once(
    topic: FakeTopic, tmp_path: Path
) -> None:
    file = tmp_path / "rules.json"
    following = Following(topic, file)
    following.follower.start()
    try:
        assert following.rules() is None
        newer = AlarmRule("hot", 2, "*", "temperature", (Limit(0, above=90),))
        topic.say(topic.rule(HOT), topic.rule(newer), topic.rule(HOT), END)
        await following.until(lambda: following.rules() == [("hot", 2)])
        assert following.counted("rules_followed") == 1
        generation = following.follower.book.generation  # type: ignore[union-attr]
        topic.say(topic.rule(COLD))  # no end yet
        await following.until(lambda: following.rules() == [("cold", 1), ("hot", 2)])
        assert following.follower.book.generation != generation  # type: ignore[union-attr]
        topic.say(TopicRecord(9, b"hot", None, None))
        await following.until(lambda: following.rules() == [("cold", 1)])
        retired = AlarmRule("cold", 2, "*", "temperature", (Limit(1, below=0),), retired=True)
        topic.say(topic.rule(retired), END)
        await following.until(lambda: following.rules() == [])
        await following.until(lambda: read_copy(file) == (retired,))
        assert following.counted("rules") == 0
    finally:
        await following.follower.close()


async def test_without_kafka_the_copy_is_in_force_and_the_topic_replaces_it(
    topic: FakeTopic, tmp_path: Path
) -> None:
    file = tmp_path / "rules.json"
    write_copy(file, [AlarmRule("hot", 7, "*", "temperature", (Limit(0, above=80),)), COLD])
    following = Following(topic, file)
    topic.say(AWAY, AWAY)
    following.follower.start()
    try:
        assert following.rules() == [("cold", 1), ("hot", 7)]
        # Kafka is back with a topic that was made anew: its rules count from 1, and one is gone.
        topic.say(topic.rule(HOT))
        await following.until(lambda: topic.taken == 1)
        await asyncio.sleep(0)  # what the thread asked of the event loop has been done
        assert following.rules() == [("cold", 1), ("hot", 7)], "half a topic must not be in force"
        topic.say(END)
        await following.until(lambda: following.rules() == [("hot", 1)])
        await following.until(lambda: read_copy(file) == (HOT,))
    finally:
        await following.follower.close()


async def test_kafka_that_goes_away_leaves_the_rules_and_is_read_anew(
    topic: FakeTopic, tmp_path: Path
) -> None:
    following = Following(topic, tmp_path / "rules.json")
    following.follower.start()
    try:
        topic.say(topic.rule(HOT), END)
        await following.until(lambda: following.rules() == [("hot", 1)])
        book = following.follower.book
        topic.say(AWAY)
        await following.until(lambda: following.counted("rules_followed") == 0)
        assert following.rules() == [("hot", 1)]
        topic.say(AWAY, topic.rule(HOT), topic.rule(COLD), END)
        await following.until(lambda: following.rules() == [("cold", 1), ("hot", 1)])
        assert following.follower.book is book
    finally:
        await following.follower.close()


async def test_what_cannot_be_evaluated_is_counted_and_the_former_rule_stays(
    topic: FakeTopic, tmp_path: Path
) -> None:
    following = Following(topic, tmp_path / "rules.json")
    following.follower.start()
    try:
        topic.say(topic.rule(HOT), END)
        await following.until(lambda: following.rules() == [("hot", 1)])
        topic.say(
            TopicRecord(5, b"hot", b"\xff\xff", None),
            topic.rule(AlarmRule("hot", 2, "*", "temperature", (Limit(77, above=1),))),
            topic.rule(COLD, key="another"),
            TopicRecord(6, None, RULE_CODEC.encode(COLD), RULE_CODEC.fingerprint),
            TopicRecord(7, None, None, None),
        )
        await following.until(lambda: following.counted("rules_rejected_total") == 4)
        assert following.rules() == [("hot", 1)]
    finally:
        await following.follower.close()


async def test_a_copy_that_cannot_be_written_keeps_no_rule_from_applying(
    topic: FakeTopic, tmp_path: Path
) -> None:
    file = tmp_path / "rules.json"
    file.mkdir()
    following = Following(topic, file)
    following.follower.start()
    try:
        topic.say(topic.rule(HOT), END)
        await following.until(lambda: following.rules() == [("hot", 1)])
    finally:
        await following.follower.close()

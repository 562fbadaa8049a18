"""The rules in force at the edge: the topic `alarms.rules` while Kafka is there, and a copy on disk.

In: records of the compacted topic; the copy that an earlier run left. Out: `book`, changed in place.
Guarantees: the last known rules are in force from the start, with or without Kafka, and stay so while it is
away; once the end of the topic is reached, exactly its rules are, tombstones heeded. What cannot be evaluated
is counted and left out; the rule's former record stays in force. Kafka is tried for ever, with back-off; the
log tells when that changes, not how often.
Not here: reading Kafka (`platform.topic_follower`), the file (`rule_copy`), evaluation (`detection`).

Kafka's client blocks, so a thread reads; `book` is changed in the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import Final

import structlog

from plantwire.domain.rule_book import RuleBook, is_sound
from plantwire.gateway.edge_alarms.metrics import EdgeAlarmMetrics
from plantwire.gateway.edge_alarms.rule_copy import read_copy, write_copy
from plantwire.platform.backoff import jittered_backoff_s
from plantwire.platform.topic_follower import End, follow
from plantwire.platform.topic_reader import TopicError, TopicRecord
from plantwire.schemas.codec import RULE_CODEC, UndecodableError
from plantwire.schemas.records import AlarmRule
from plantwire.schemas.topics import ALARMS_RULES

RULES_MAX: Final = 20_000
"""More than ten plants have; beyond, records are counted and left out."""
CONNECT_TIMEOUT_S: Final = 5.0
RETRY_FIRST_S: Final = 0.25
RETRY_LONGEST_S: Final = 5.0


log = structlog.get_logger(__name__)


class RuleFollower:
    """`start` it inside the running loop; `close` it."""

    def __init__(self, bootstrap: str, copy_file: Path, metrics: EdgeAlarmMetrics) -> None:
        self._bootstrap = bootstrap
        self._copy_file = copy_file
        self._metrics = metrics
        self._stopping = threading.Event()
        self._book: RuleBook | None = None
        # What `_book` was made of. The thread has a mapping of its own.
        self._in_force: dict[str, AlarmRule] = {}
        # The thread's alone.
        self._copied: dict[str, AlarmRule] | None = None
        self._followed = False
        self._told = ""

    @property
    def book(self) -> RuleBook | None:
        """The rules in force, always the same object; None while none were ever received."""
        return self._book

    def start(self) -> None:
        """Take up the copy, and begin to follow the topic."""
        self._loop = asyncio.get_running_loop()
        copied = read_copy(self._copy_file)
        if copied is not None:
            self._copied = {rule.rule_id: rule for rule in copied if is_sound(rule)}
            self._put_in_force(self._copied)
        self._thread = threading.Thread(target=self._run, name="edge-rules", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Stop following."""
        self._stopping.set()
        await self._loop.run_in_executor(None, self._thread.join)

    def _put_in_force(self, rules: dict[str, AlarmRule]) -> None:
        """Runs in the event loop's thread: from now on these rules apply, and no other."""
        self._book = self._book or RuleBook()
        for rule_id in self._in_force.keys() - rules.keys():
            self._change(rule_id, None)
        for rule_id, rule in rules.items():
            self._change(rule_id, rule)
        self._metrics.rules.set(len(self._book))

    def _change(self, rule_id: str, rule: AlarmRule | None) -> None:
        """Runs in the event loop's thread: a rule's new version, or its end."""
        assert self._book is not None, "the topic's end comes before its changes"  # noqa: S101
        known = self._in_force.pop(rule_id, None)
        if known is not None and (rule is None or rule.version < known.version):
            # A topic that was made anew numbers its rules from 1.
            self._book.remove(rule_id)
        if rule is not None:
            self._in_force[rule_id] = rule
            self._book.put(rule)
        self._metrics.rules.set(len(self._book))

    def _run(self) -> None:
        """The thread: follow, and begin anew when Kafka was away."""
        failures = 0
        while not self._stopping.is_set():
            try:
                self._follow()
            except TopicError as error:
                failures = 1 if self._followed else failures + 1
                self._note_followed(False, str(error))
                chance = random.random()  # noqa: S311 - spreading out needs no secrecy
                self._stopping.wait(jittered_backoff_s(failures, RETRY_FIRST_S, RETRY_LONGEST_S, chance))

    def _follow(self) -> None:
        """One connection, from the topic's beginning. Raises `TopicError` when it is lost."""
        rules: dict[str, AlarmRule] = {}
        complete = False
        for record in follow(self._bootstrap, ALARMS_RULES, self._stopping, CONNECT_TIMEOUT_S):
            if not isinstance(record, End):
                changed = self._take(rules, record)
                if complete and changed is not None:
                    self._loop.call_soon_threadsafe(self._change, changed, rules.get(changed))
                continue
            if not complete:
                complete = True
                self._loop.call_soon_threadsafe(self._put_in_force, dict(rules))
                self._note_followed(True, "")
            self._copy(rules)

    def _take(self, rules: dict[str, AlarmRule], record: TopicRecord) -> str | None:
        """Take a record into `rules`; answers the id of the rule that it changed."""
        rule_id = (record.key or b"").decode(errors="replace")
        if record.body is None:
            return rule_id if rules.pop(rule_id, None) is not None else None
        try:
            rule = RULE_CODEC.decode(record.body, record.fingerprint)
        except UndecodableError as error:
            self._reject(record.offset, rule_id, str(error))
            return None
        known = rules.get(rule_id)
        if rule.rule_id != rule_id or not is_sound(rule):
            self._reject(record.offset, rule_id, "cannot be evaluated")
            return None
        if known is None and len(rules) >= RULES_MAX:
            self._reject(record.offset, rule_id, f"more than {RULES_MAX} rules")
            return None
        if known is not None and known.version >= rule.version:
            return None
        rules[rule_id] = rule
        return rule_id

    def _reject(self, offset: int, rule_id: str, reason: str) -> None:
        self._metrics.rules_rejected.inc()
        log.warning("edge-rule-skipped", offset=offset, rule_id=rule_id[:64], reason=reason)

    def _copy(self, rules: dict[str, AlarmRule]) -> None:
        if rules == self._copied:
            return
        try:
            write_copy(self._copy_file, rules.values())
        except OSError as error:
            # They are in force all the same; the next change tries again.
            log.warning("edge-rules-not-copied", file=str(self._copy_file), reason=str(error))
            return
        self._copied = dict(rules)

    def _note_followed(self, followed: bool, reason: str) -> None:
        self._followed = followed
        self._metrics.rules_followed.set(followed)
        if followed:
            log.info("edge-rules-followed")
        elif reason != self._told:
            log.warning("edge-rules-not-followed", reason=reason)
        self._told = reason

"""The edge buffer against a model of it: any order of puts, peeks, forgetting, eviction, stops and kills."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.changes import Changes
from plantwire.gateway.buffer.entry import BufferRefusedError, DropReason, Entry, EntryKind
from plantwire.gateway.buffer.rows import to_row
from plantwire.gateway.buffer.totals import Totals
from tests.unit.gateway.buffer.buffer_rig import Clock, Rig, entry

AGE_S = 3600
# Without a disk's syncs, where there is such a place: thousands of transactions.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
BOUNDS = BufferBounds(size_max_bytes=1024 * 1024, age_max_s=AGE_S)

ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(EntryKind), st.sampled_from(["http", "mqtt-json"]), st.sampled_from([0, 90, 2500])
    ),
    min_size=1,
    max_size=6,
)


class BufferMachine(RuleBasedStateMachine):
    """Each rule does the same to the buffer and to a dictionary, and compares."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="plantwire-model-", dir=MEMORY))
        self.clock = Clock()
        self.rig = Rig(self.folder, BOUNDS, self.clock)
        self.held: dict[int, tuple[Entry, int]] = {}
        self.number = 0
        self.highest_id = 0
        self.put_counts: Counter[str] = Counter()
        self.acknowledged: Counter[str] = Counter()
        self.saved: dict[str, bytes] = {}
        self.drops: Counter[tuple[str, DropReason]] = Counter()

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            self.rig.close()
            shutil.rmtree(self.folder)

    @rule(puts=st.lists(ENTRIES, min_size=1, max_size=4), repeat=st.sampled_from([1, 1, 1, 8]))
    def put(self, puts: list[list[tuple[EntryKind, str, int]]], repeat: int) -> None:
        for _ in range(repeat):
            self._put_together(puts)
            self.rig.tidy()
        self._forget_evicted()

    def _put_together(self, puts: list[list[tuple[EntryKind, str, int]]]) -> None:
        wanted: list[list[Entry]] = []
        for one in puts:
            wanted.append([])
            for kind, source, size_bytes in one:
                self.number += 1
                wanted[-1].append(entry(self.number, kind=kind, source=source, size_bytes=size_bytes))
        for entries, ids in zip(wanted, self.rig.commit(Changes(wanted)), strict=True):
            if isinstance(ids, BufferRefusedError):
                continue
            assert len(ids) == len(entries)
            assert ids == sorted(ids)
            assert ids[0] > self.highest_id
            self.highest_id = ids[-1]
            self.put_counts.update(one.source for one in entries)
            self.held |= {i: (one, self.clock.ms) for i, one in zip(ids, entries, strict=True)}

    @rule(limit=st.integers(1, 50), below=st.none() | st.floats(0, 1))
    def peek(self, limit: int, below: float | None) -> None:
        below_id = None if below is None else 1 + int(below * self.highest_id)
        expected = [i for i in self._in_order() if below_id is None or i < below_id][:limit]
        assert [stored.entry_id for stored in self.rig.peek(limit, below_id)] == expected

    @rule(chosen=st.lists(st.integers(0, 10_000), max_size=20), drop=st.booleans())
    def forget(self, chosen: list[int], drop: bool) -> None:
        everything = list(range(1, self.highest_id + 3))
        ids = [everything[number % len(everything)] for number in dict.fromkeys(chosen)]
        ids = list(dict.fromkeys(ids))
        reason = DropReason.UNDELIVERABLE if drop else None
        outcome = self.rig.store.commit(Changes(forgotten=[(ids, reason)]))
        self.rig.note_drops()
        # What is above its age may go with any transaction.
        assert set(ids) - self.held.keys() <= set(outcome.gone[0])
        for entry_id in set(ids) - set(outcome.gone[0]):
            one, _ = self.held.pop(entry_id)
            if drop:
                self.drops[one.source, DropReason.UNDELIVERABLE] += 1
            else:
                self.acknowledged[one.source] += 1
        self._forget_evicted()

    @rule(key=st.sampled_from("abc"), value=st.none() | st.binary(max_size=30))
    def save(self, key: str, value: bytes | None) -> None:
        assert self.rig.store.commit(Changes(saved={key: value})).rest is None
        self.rig.note_drops()
        self.saved.pop(key, None)
        if value is not None:
            self.saved[key] = value
        self._forget_evicted()

    @rule(minutes=st.integers(1, 50))
    def wait(self, minutes: int) -> None:
        self.clock.ms += minutes * 60_000
        self.rig.store._age_at_s = 0.0
        self.rig.tidy()
        self._forget_evicted()
        limit_ms = self.clock.ms - AGE_S * 1000
        assert all(ms >= limit_ms or one.kind is EntryKind.ALARM for one, ms in self.held.values())

    @rule(kill=st.booleans())
    def reopen(self, kill: bool) -> None:
        if kill:
            self.rig.abandon()
        else:
            self.rig.close()
        drops = self.rig.drops
        self.rig = Rig(self.folder, BOUNDS, self.clock)
        assert not self.rig.drops
        self.rig.drops = drops

    def _in_order(self) -> list[int]:
        alarms = {i for i, (one, _) in self.held.items() if one.kind is EntryKind.ALARM}
        return sorted(alarms) + sorted(self.held.keys() - alarms)

    def _forget_evicted(self) -> None:
        """What went by itself is the oldest of what may go, and counted by source."""
        evicted: Counter[str] = Counter()
        for reason in (DropReason.EVICTED_FULL, DropReason.EVICTED_AGE):
            for source in ("http", "mqtt-json"):
                evicted[source] += self.rig.drops[source, reason] - self.drops[source, reason]
                self.drops[source, reason] = self.rig.drops[source, reason]
        records = sorted(i for i, (one, _) in self.held.items() if one.kind is not EntryKind.ALARM)
        gone = records[: evicted.total()]
        assert Counter(self.held[i][0].source for i in gone) == +evicted
        for entry_id in gone:
            del self.held[entry_id]

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        if not hasattr(self, "rig"):
            return
        stats = self.rig.store.stats()
        assert stats.entries == len(self.held)
        assert stats.by_source == dict(Counter(one.source for one, _ in self.held.values()))
        assert stats.oldest_put_ms == min((ms for _, ms in self.held.values()), default=None)
        assert [stored.entry_id for stored in self.rig.peek()] == self._in_order()
        assert self.rig.store.saved() == self.saved
        assert sum(one.stat().st_size for one in self.folder.iterdir()) <= BOUNDS.size_max_bytes
        store = self.rig.store._store
        assert store is not None
        self._totals_agree(store.totals)

    def _totals_agree(self, totals: Totals) -> None:
        for source, one in totals.by_source.items():
            assert one.put == self.put_counts[source]
            assert one.acknowledged == self.acknowledged[source]
            assert {r: n for r, n in one.dropped.items() if n} == {
                r: n for (s, r), n in self.rig.drops.items() if s == source and n
            }
            assert one.size_bytes == sum(
                len(kept.body) + headers_bytes(kept)
                for kept, _ in self.held.values()
                if kept.source == source
            )


def headers_bytes(one: Entry) -> int:
    return len(to_row(1, one, 1)[7])


BufferMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBufferMachine = BufferMachine.TestCase

"""The decision what is durable where: single steps by name, and any order of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from plantwire.gateway.buffer import durability
from plantwire.gateway.buffer.durability import Durability, Mode, Policy
from plantwire.gateway.buffer.entry import BufferRefusedError, DropReason, Entry, EntryKind
from plantwire.gateway.buffer.ledger import SOURCE_EDGE_ALARMS, Ledger
from plantwire.gateway.buffer.record import Alarm, Live, Put, Record, Row

SPILL_AFTER_MS = 1000
RETRY_MS = 1000
LARGE = 3 * 1024 * 1024
"""More than a commit holds."""


class World:
    """Kafka, the buffer and the senders, as the machine sees them; every answer is the test's to give."""

    def __init__(self) -> None:
        self.core = Durability(self, Policy(SPILL_AFTER_MS, RETRY_MS))
        self.ledger = Ledger()
        self.now_ms = 0.0
        self.refuses_at_once = False
        self.commits: list[list[Record]] = []
        self.forgets: list[Record] = []
        self.rows: dict[int, Record] = {}
        self.settled: dict[int, str | None] = {}
        self.puts: dict[int, list[Record]] = {}
        self.records: list[Record] = []
        self.spills: list[int] = []
        self.told: list[int] = []
        self.probes = 0
        self._order = self._id = 0

    def commit(self, records: Sequence[Record]) -> None:
        if self.refuses_at_once:
            raise BufferRefusedError("too much waits")
        if self.core.mode is Mode.BUFFERING:
            handed_over = {record.order for record in records}
            passed = [
                record.order
                for record in self.undecided()
                if record.row is Row.NONE
                and record.order < max(handed_over)
                and len(record.entry.body) < LARGE
            ]
            assert handed_over.issuperset(passed), "overtaken on the way to the buffer"
            frames = [record.order for record in records if record.order]
            assert frames == sorted(frames)
        self.commits.append(list(records))

    def forget(self, record: Record) -> None:
        self.forgets.append(record)

    def settle(self, put: Put, failure: str | None) -> None:
        assert id(put) not in self.settled, "settled twice"
        self.settled[id(put)] = failure

    def spilled(self, record: Record) -> None:
        self.spills.append(record.order)

    def delivered_with_state(self, record: Record) -> None:
        self.told.append(record.order)

    def probe(self) -> None:
        self.probes += 1

    def mode_changed(self) -> None:
        """Asked for by the tests when they want to know."""

    def put(self, frames: int = 1, *, live: bool = True, alarms: int = 0, stateful: bool = False) -> Put:
        """Take frames, each with alarms; raises what the machine raises."""
        put = Put(cast(Any, None), frames, self.now_ms, DropReason.RETURNED)
        records = []
        for _ in range(frames):
            self._order += 1
            record = Record(entry(EntryKind.TELEMETRY), self.ledger.account("http"), put, self._order)
            record.observed, record.stateful = True, stateful
            record.alarms = tuple(self.alarm(record) for _ in range(alarms))
            record.account.receive()
            records.append(record)
        try:
            self.core.take(records, live, self.now_ms)
        except BufferRefusedError:
            for record in records:
                record.account.drop(put.refusal)
            raise
        self.puts[id(put)] = records
        self.records += records
        return put

    def alarm(self, frame: Record | None) -> Alarm:
        alarm = Alarm(entry(EntryKind.ALARM), self.ledger.account(SOURCE_EDGE_ALARMS), frame)
        self.records.append(alarm)
        return alarm

    def answer(self, record: Record, delivered: bool) -> None:
        self.core.answered([(record, delivered)], self.now_ms)

    def commit_done(self) -> list[int]:
        """The oldest commit is on disk."""
        records = self.commits.pop(0)
        ids = []
        for record in records:
            self._id += 1
            self.rows[self._id] = record
            ids.append(self._id)
        self.core.committed(records, ids, self.now_ms)
        return ids

    def commit_refused(self) -> None:
        self.core.refused(self.commits.pop(0), "disk full", self.now_ms)

    def forget_all(self) -> None:
        forgets, self.forgets = self.forgets, []
        for record in forgets:
            self.core.forgotten(record, self.rows.pop(record.entry_id, None) is not None)

    def evict(self, entry_id: int) -> None:
        record = self.rows.pop(entry_id)
        self.ledger.handle_drop(record.entry.source, DropReason.EVICTED_FULL, 1)

    def drain_one(self) -> Record | None:
        """What the drain would send next, sent."""
        if self.core.mode is not Mode.DIRECT:
            return None
        below = self.core.drain_below()
        ids = [i for i in self.rows if below is None or i < below]
        if not ids:
            return None
        first = min(ids, key=lambda i: (self.rows[i].entry.kind is not EntryKind.ALARM, i))
        record = self.rows.pop(first)
        self.ledger.account(record.entry.source).drain()
        return record

    def advance(self, by_ms: float) -> None:
        self.now_ms += by_ms
        self.core.tick(self.now_ms)

    def undecided(self) -> list[Record]:
        return [record for record in self.records if record.live is Live.TRYING]


def entry(kind: EntryKind) -> Entry:
    source = SOURCE_EDGE_ALARMS if kind is EntryKind.ALARM else "http"
    return Entry(kind, source, "press-1", 1, b"body")


@pytest.fixture
def world() -> World:
    return World()


def test_while_kafka_answers_nothing_goes_to_disk(world: World) -> None:
    put = world.put(3, alarms=1)
    for record in world.puts[id(put)]:
        assert id(put) not in world.settled
        world.answer(record, True)
    assert world.settled == {id(put): None}
    assert world.commits == world.spills == []
    counts = world.ledger.counts()
    assert (counts["http"].received, counts["http"].delivered_live) == (3, 3)
    assert counts[SOURCE_EDGE_ALARMS].received == 0, "the cloud tells these itself"


def test_a_short_silence_costs_nothing_and_a_long_one_spills_what_is_in_hand(world: World) -> None:
    put = world.put(2, alarms=1)
    world.advance(SPILL_AFTER_MS - 1)
    assert (world.core.mode, world.commits) == (Mode.DIRECT, [])
    world.advance(1)
    assert world.core.mode is Mode.BUFFERING
    first, second = world.puts[id(put)]
    assert world.commits == [[first, *first.alarms, second, *second.alarms]]
    assert world.spills == [first.order, second.order]
    assert not world.settled
    world.commit_done()
    assert world.settled == {id(put): None}


def test_while_buffering_a_put_is_tried_live_and_committed_and_the_first_settles_it(world: World) -> None:
    world.put()
    world.advance(SPILL_AFTER_MS)
    committed_first, acknowledged_first = world.put(), world.put()
    world.answer(world.puts[id(acknowledged_first)][0], True)
    assert id(acknowledged_first) in world.settled
    world.commit_done()
    world.commit_done()
    assert id(committed_first) in world.settled


def test_what_arrives_live_after_all_is_forgotten_with_its_alarms(world: World) -> None:
    put = world.put(alarms=2)
    world.advance(SPILL_AFTER_MS)
    world.commit_done()
    (frame,) = world.puts[id(put)]
    world.answer(frame, True)
    assert world.forgets == [frame, *frame.alarms]
    world.forget_all()
    assert not world.rows
    counts = world.ledger.counts()
    assert counts["http"].delivered_live == 1
    assert counts[SOURCE_EDGE_ALARMS].delivered_live == 2


def test_what_arrives_live_before_its_commit_is_forgotten_when_that_comes(world: World) -> None:
    put = world.put(alarms=1)
    world.advance(SPILL_AFTER_MS)
    (frame,) = world.puts[id(put)]
    world.answer(frame, True)
    assert not world.forgets
    world.commit_done()
    assert world.forgets == [frame, *frame.alarms]


def test_an_entry_in_doubt_and_what_follows_it_wait(world: World) -> None:
    first, second = world.put(), world.put()
    world.advance(SPILL_AFTER_MS)
    one, two = world.commit_done()
    assert world.core.drain_below() == one
    world.answer(world.puts[id(first)][0], False)
    assert world.core.drain_below() == two
    world.answer(world.puts[id(second)][0], False)
    assert world.core.drain_below() is None
    assert set(world.rows) == {one, two}


def test_a_commit_under_way_holds_back_ids_that_are_not_known_yet(world: World) -> None:
    world.put()
    world.advance(SPILL_AFTER_MS)
    (first,) = world.commit_done()
    world.answer(world.rows[first], False)
    world.put()
    assert world.core.drain_below() == first + 1


def test_young_acknowledgements_bring_the_direct_mode_back(world: World) -> None:
    old = world.put()
    world.advance(SPILL_AFTER_MS)
    young = world.put()
    world.answer(world.puts[id(young)][0], True)
    assert world.core.mode is Mode.BUFFERING, "the old one is still out"
    world.answer(world.puts[id(old)][0], True)
    assert world.core.mode is Mode.BUFFERING, "an old one shows nothing"
    youngest = world.put()
    world.answer(world.puts[id(youngest)][0], True)
    assert world.core.mode is Mode.DIRECT


def test_without_traffic_kafka_is_asked(world: World) -> None:
    put = world.put()
    world.advance(SPILL_AFTER_MS)
    assert world.probes == 0
    world.answer(world.puts[id(put)][0], False)
    world.advance(100)
    assert world.probes == 1
    world.core.found_kafka(world.now_ms)
    assert world.core.mode is Mode.DIRECT


def test_no_room_in_flight_means_that_kafka_is_slow(world: World) -> None:
    in_flight = world.put()
    beyond = world.put(live=False)
    assert world.core.mode is Mode.BUFFERING
    assert [len(commit) for commit in world.commits] == [1, 1]
    world.commit_done()
    world.commit_done()
    assert {id(in_flight), id(beyond)} == set(world.settled)
    # Never tried, so never in doubt; behind one that is.
    assert world.core.drain_below() == 1


def test_where_neither_has_room_nothing_is_taken_but_the_alarms(world: World) -> None:
    world.refuses_at_once = True
    with pytest.raises(BufferRefusedError):
        world.put(live=False, alarms=1)
    assert world.ledger.counts()["http"].dropped == {"returned": 1}
    world.refuses_at_once = False
    world.advance(RETRY_MS)
    (alarms,) = world.commits
    assert [record.entry.kind for record in alarms] == [EntryKind.ALARM]


def test_a_refused_commit_is_offered_again_while_the_live_attempt_lasts(world: World) -> None:
    put = world.put()
    world.advance(SPILL_AFTER_MS)
    world.commit_refused()
    assert world.core.refusal == "disk full"
    during_the_pause = world.put()
    assert not world.commits
    world.advance(RETRY_MS)
    assert world.commits == [world.puts[id(put)] + world.puts[id(during_the_pause)]]
    world.commit_done()
    assert set(world.settled) == {id(put), id(during_the_pause)}
    assert world.core.refusal is None


@pytest.mark.parametrize("live", [True, False])
def test_no_frame_overtakes_those_that_the_buffer_refused(world: World, live: bool) -> None:
    first = world.put()
    world.advance(SPILL_AFTER_MS)
    world.commit_refused()
    world.now_ms += RETRY_MS / 2
    second = world.put()
    assert not world.commits
    world.now_ms += RETRY_MS  # the pause is over, and no tick has come yet
    third = world.put(live=live)
    while world.commits:
        world.commit_done()
    assert [world.rows[i] for i in sorted(world.rows)] == [
        world.puts[id(p)][0] for p in (first, second, third)
    ]
    world.advance(RETRY_MS)
    assert not world.commits


def test_what_arrives_live_and_is_refused_by_the_buffer_counts_as_delivered(world: World) -> None:
    before = world.put(alarms=1)
    world.advance(SPILL_AFTER_MS)
    world.answer(world.puts[id(before)][0], True)
    world.commit_refused()
    after = world.put(alarms=1)
    world.advance(RETRY_MS)
    world.commit_refused()
    world.answer(world.puts[id(after)][0], True)
    assert world.settled == {id(before): None, id(after): None}
    counts = world.ledger.counts()
    assert (counts["http"].delivered_live, counts["http"].dropped) == (2, {})
    assert counts[SOURCE_EDGE_ALARMS].delivered_live == counts[SOURCE_EDGE_ALARMS].received == 2
    assert not world.core.busy


def test_what_both_refuse_is_returned_and_its_alarms_are_still_owed(world: World) -> None:
    put = world.put(alarms=1)
    world.advance(SPILL_AFTER_MS)
    world.commit_refused()
    world.answer(world.puts[id(put)][0], False)
    assert world.settled == {id(put): "disk full"}
    assert world.ledger.counts()["http"].dropped == {"returned": 1}
    assert world.core.busy
    world.advance(RETRY_MS)
    world.commit_done()
    (row,) = world.rows.values()
    assert row.entry.kind is EntryKind.ALARM
    assert not world.core.busy


def test_owed_alarms_are_bounded_and_those_beyond_are_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "OWED_ALARMS_MAX", 2)
    world.refuses_at_once = True
    world.core.take_alarms([world.alarm(None) for _ in range(3)], world.now_ms)
    counts = world.ledger.counts()[SOURCE_EDGE_ALARMS]
    assert (counts.in_hand, counts.dropped) == (2, {"no-room": 1})


def test_owed_alarms_are_more_than_one_commit_and_hold_up_nothing(world: World) -> None:
    world.refuses_at_once = True
    large = world.alarm(None)
    large.entry = Entry(EntryKind.ALARM, SOURCE_EDGE_ALARMS, "press-1", 1, b"x" * LARGE)
    several = [world.alarm(None) for _ in range(3)]
    for alarm in several:
        alarm.entry = Entry(EntryKind.ALARM, SOURCE_EDGE_ALARMS, "press-1", 1, b"x" * 1024 * 1024)
    world.core.take_alarms([*several, large], world.now_ms)
    world.core.take_alarms([world.alarm(None) for _ in range(1200)], world.now_ms)
    world.refuses_at_once = False
    world.advance(RETRY_MS)
    assert [len(commit) for commit in world.commits] == [1, 1, 500, 500, 201]
    while world.commits:
        world.commit_done()
    assert not world.core.busy
    assert world.core.refusal is None
    put = world.put(live=False)
    world.commit_done()
    assert world.settled == {id(put): None}
    counts = world.ledger.counts()[SOURCE_EDGE_ALARMS]
    assert (counts.buffered, counts.in_hand, counts.dropped) == (1203, 0, {"no-room": 1})


def test_a_failed_attempt_is_buffered_even_while_kafka_answers_others(world: World) -> None:
    put = world.put()
    world.answer(world.puts[id(put)][0], False)
    assert not world.settled
    world.commit_done()
    assert world.settled == {id(put): None}
    assert world.core.mode is Mode.DIRECT
    assert world.drain_one() is world.puts[id(put)][0]


def test_an_evicted_entry_that_arrives_live_counts_once(world: World) -> None:
    put = world.put()
    world.advance(SPILL_AFTER_MS)
    (entry_id,) = world.commit_done()
    world.evict(entry_id)
    world.answer(world.puts[id(put)][0], True)
    world.forget_all()
    counts = world.ledger.counts()["http"]
    assert (counts.delivered_live, counts.dropped, counts.buffered) == (0, {"evicted-full": 1}, 0)
    assert counts.identity_holds


def test_a_frame_with_state_that_arrived_is_told(world: World) -> None:
    put = world.put(stateful=True)
    (frame,) = world.puts[id(put)]
    world.answer(frame, True)
    assert world.told == [frame.order]


def test_a_large_backlog_is_committed_in_parts_and_in_order(world: World) -> None:
    for _ in range(1200):
        world.put()
    world.advance(SPILL_AFTER_MS)
    assert [len(commit) for commit in world.commits] == [500, 500, 200]
    assert [record.order for commit in world.commits for record in commit] == list(range(1, 1201))


def test_many_late_answers_take_time_in_proportion() -> None:
    def answer_late(count: int) -> float:
        world = World()
        for _ in range(count):
            world.put()
        world.core.mode = Mode.BUFFERING
        world.now_ms = 2 * SPILL_AFTER_MS
        answers = [(record, True) for record in world.undecided()]
        started_s = time.thread_time()
        world.core.answered(answers, world.now_ms)
        assert world.core.mode is Mode.BUFFERING
        return time.thread_time() - started_s

    few_s = min(answer_late(1_000) for _ in range(3))
    assert answer_late(20_000) < 60 * few_s


def test_what_no_commit_holds_is_left_to_kafka_and_stops_nothing_else(world: World) -> None:
    small = world.put()
    large = world.put()
    (frame,) = world.puts[id(large)]
    frame.entry = Entry(EntryKind.TELEMETRY, "http", "press-1", 1, b"x" * LARGE)
    also_small = world.put()
    world.advance(SPILL_AFTER_MS)
    assert world.commits == [world.puts[id(small)] + world.puts[id(also_small)]]
    world.commit_done()
    assert set(world.settled) == {id(small), id(also_small)}
    assert world.core.refusal is None
    world.answer(frame, False)
    assert "at once" in (world.settled[id(large)] or "")


class AnyOrder(RuleBasedStateMachine):
    """Whatever Kafka, the buffer, the senders and the clock do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(frames=st.integers(1, 3), live=st.booleans(), alarms=st.integers(0, 2))
    def put(self, frames: int, live: bool, alarms: int) -> None:
        try:
            self.world.put(frames, live=live, alarms=alarms)
        except BufferRefusedError:
            assert not live

    @rule(count=st.integers(1, 2))
    def put_alarms(self, count: int) -> None:
        world = self.world
        world.core.take_alarms([world.alarm(None) for _ in range(count)], world.now_ms)

    @precondition(lambda self: self.world.undecided())
    @rule(data=st.data(), delivered=st.booleans())
    def answer(self, data: st.DataObject, delivered: bool) -> None:
        undecided = self.world.undecided()
        self.world.answer(undecided[data.draw(st.integers(0, len(undecided) - 1))], delivered)

    @precondition(lambda self: self.world.undecided())
    @rule(delivered=st.booleans())
    def answer_all(self, delivered: bool) -> None:
        answers = [(record, delivered) for record in self.world.undecided()]
        self.world.core.answered(answers, self.world.now_ms)

    @precondition(lambda self: self.world.commits)
    @rule()
    def commit_done(self) -> None:
        self.world.commit_done()

    @precondition(lambda self: self.world.commits)
    @rule()
    def commit_refused(self) -> None:
        self.world.commit_refused()

    @rule(refuses=st.booleans())
    def refuse_at_once(self, refuses: bool) -> None:
        self.world.refuses_at_once = refuses

    @rule()
    def forget(self) -> None:
        self.world.forget_all()

    @precondition(lambda self: self.world.rows)
    @rule(data=st.data())
    def evict(self, data: st.DataObject) -> None:
        self.world.evict(data.draw(st.sampled_from(sorted(self.world.rows))))

    @rule()
    def drain(self) -> None:
        undecided = {id(record) for record in self.world.undecided()}
        record = self.world.drain_one()
        if record is not None:
            assert id(record) not in undecided
            assert not (isinstance(record, Alarm) and id(record.frame) in undecided)
            overtaken = [
                other.entry_id
                for other in self.world.undecided()
                if other.row is Row.STORED and other.entry_id in self.world.rows
            ]
            assert all(record.entry_id < entry_id for entry_id in overtaken)

    @rule(by_ms=st.sampled_from([1, 100, 500, 1000, 3000]))
    def advance(self, by_ms: int) -> None:
        self.world.advance(by_ms)

    @rule()
    def kafka_is_back(self) -> None:
        self.world.core.found_kafka(self.world.now_ms)

    @invariant()
    def the_ledger_adds_up(self) -> None:
        held: dict[str, int] = {}
        for record in self.world.rows.values():
            held[record.entry.source] = held.get(record.entry.source, 0) + 1
        for source, counts in self.world.ledger.counts().items():
            assert counts.identity_holds, source
            assert counts.in_hand >= 0
            assert counts.buffered == held.get(source, 0)

    @invariant()
    def what_is_settled_is_durable(self) -> None:
        for put, failure in self.world.settled.items():
            for record in self.world.puts[put]:
                durable = record.live is Live.DELIVERED or record.row is Row.STORED
                assert durable or failure is not None

    def teardown(self) -> None:
        """In the end everything is somewhere, and every sender knows."""
        world = self.world
        world.refuses_at_once = False
        world.advance(RETRY_MS)
        world.core.answered([(record, False) for record in world.undecided()], world.now_ms)
        world.advance(RETRY_MS)
        while world.commits:
            world.commit_done()
        world.forget_all()
        assert not world.core.busy
        assert set(world.settled) == set(world.puts)
        assert all(counts.in_hand == 0 for counts in world.ledger.counts().values())
        self.the_ledger_adds_up()
        self.what_is_settled_is_durable()
        world.core.found_kafka(world.now_ms)
        while world.drain_one() is not None:
            pass
        assert not world.rows


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase

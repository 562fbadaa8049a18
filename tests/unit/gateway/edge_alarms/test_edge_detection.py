"""Edge detection around the domain: divergence, what is kept, timers, bounds."""

from __future__ import annotations

import msgspec
import pytest

from plantwire.domain.attention import HOUSEKEEPING_MS
from plantwire.domain.packed_state import unpack
from plantwire.domain.rule_book import RuleBook
from plantwire.gateway.edge_alarms.detection import HELD_MARGIN_S, SAVE_EVERY_TICKS, TICK_S
from plantwire.schemas.records import QUALITY_BAD, AlarmRule, Limit, Metric
from tests.unit.gateway.edge_alarms.edge_fakes import SPILL_AFTER_S, Edge, FakeLoop, FakeRules, frame, named

HOT = AlarmRule("hot", 1, "*", "temperature", (Limit(0, above=100, deadband=2),))
SLOW = AlarmRule("slow", 1, "*", "pressure", (Limit(1, above=5),), on_delay_ms=500)


def test_an_event_is_told_at_once_with_its_hops_and_belongs_to_its_frame() -> None:
    edge = Edge(HOT)
    hot = msgspec.structs.replace(frame(edge.loop.now_ms, temperature=101.0), gateway_in_us=7)
    observed = edge.alarms.observe(hot)
    (event,) = edge.told
    assert list(observed.events) == edge.told
    assert (event.kind, event.value, event.site) == ("RAISED", 101.0, "hall")
    now_us = int(edge.loop.now_ms * 1000)
    assert (event.device_us, event.gateway_in_us, event.detect_in_us) == (now_us, 7, now_us)
    assert observed.frame is hot
    assert edge.alarms.active == (event,)
    edge.take(frame(edge.loop.now_ms + 1, temperature=50.0))
    assert named(edge.told)[1] == (event.alarm_id, 2, "CLEARED")
    assert edge.alarms.active == ()


def test_historical_and_far_ahead_frames_and_bad_values_raise_nothing() -> None:
    edge = Edge(HOT)
    now_ms = edge.loop.now_ms
    edge.take(frame(now_ms, historical=True, temperature=101.0))
    edge.take(frame(now_ms + 121_000, temperature=101.0))
    bad = Metric("temperature", 101.0, quality=QUALITY_BAD)
    edge.take(msgspec.structs.replace(frame(now_ms), metrics=(bad, Metric("temperature", text="101"))))
    assert edge.told == []
    edge.take(frame(now_ms, temperature=101.0))
    assert len(edge.told) == 1


def test_without_rules_frames_pass_and_carry_no_state() -> None:
    rules = FakeRules()
    rules.book = None
    edge = Edge(of=rules)
    edge.take(frame(edge.loop.now_ms, temperature=101.0))
    edge.alarms.on_spilled("press-1", 1)
    assert edge.take(frame(edge.loop.now_ms + 1, temperature=101.0)).edge_state == b""
    rules.book = RuleBook((HOT,))
    edge.take(frame(edge.loop.now_ms + 2, temperature=101.0))
    assert len(edge.told) == 1


def test_a_diverged_device_tells_its_state_until_a_later_frame_with_it_arrived() -> None:
    edge = Edge(HOT)
    now_ms = edge.loop.now_ms
    assert edge.take(frame(now_ms, temperature=101.0)).edge_state == b""
    edge.alarms.on_spilled("press-1", 5)
    first = edge.take(frame(now_ms + 1, temperature=102.0))
    site, state = unpack(first.edge_state)
    assert site == "hall"
    assert state[("hot", "temperature")].alarm.alarm_id == edge.told[0].alarm_id  # type: ignore[union-attr]
    edge.alarms.on_spilled("press-1", 7)
    edge.alarms.on_delivered_with_state("press-1", 6)  # taken before the frame that was spilled last
    assert edge.take(frame(now_ms + 2, temperature=102.0)).edge_state
    edge.alarms.on_delivered_with_state("press-1", 8)
    assert edge.take(frame(now_ms + 3, temperature=102.0)).edge_state == b""
    assert edge.counted("devices_diverged") == 0


def test_the_state_of_a_frame_is_that_before_it() -> None:
    edge = Edge(HOT)
    edge.take(frame(edge.loop.now_ms, temperature=50.0))
    edge.alarms.on_spilled("press-1", 1)
    raising = edge.take(frame(edge.loop.now_ms + 1, temperature=101.0))
    assert unpack(raising.edge_state)[1] == {}
    assert len(edge.told) == 1


def test_killed_and_started_again_it_goes_on_with_the_same_alarm() -> None:
    edge = Edge(HOT, SLOW)
    edge.take(frame(edge.loop.now_ms, temperature=101.0, pressure=6.0))
    edge.alarms.on_spilled("press-1", 1)
    again = edge.restarted()
    assert named(again.alarms.active) == named(edge.told)
    edge.loop.advance(2)
    carried = again.take(frame(edge.loop.now_ms, temperature=50.0, pressure=6.0))
    assert unpack(carried.edge_state)[1].keys() == {("hot", "temperature"), ("slow", "pressure")}
    assert named(again.told) == [(edge.told[0].alarm_id, 2, "CLEARED")]
    # The delay that ran before ends by a timer of the new process, and no frame will tell the cloud.
    edge.loop.advance(1000)
    assert [event.rule_id for event in again.told] == ["hot", "slow"]
    assert again.stored == again.told[1:]


def test_a_delay_that_ended_before_its_frames_were_known_to_be_lost_is_stored() -> None:
    edge = Edge(SLOW)
    edge.take(frame(edge.loop.now_ms, pressure=6.0))
    edge.loop.advance(600)
    assert named(edge.told) == [(edge.told[0].alarm_id, 1, "RAISED")]
    assert edge.stored == []
    edge.alarms.on_spilled("press-1", 1)
    edge.loop.advance(1)
    assert edge.stored == edge.told


def test_a_delay_whose_frames_arrived_is_left_to_the_cloud() -> None:
    edge = Edge(SLOW)
    edge.take(frame(edge.loop.now_ms, pressure=6.0))
    edge.loop.advance(600 + (SPILL_AFTER_S + HELD_MARGIN_S + TICK_S) * 1000)
    edge.alarms.on_spilled("press-1", 1)
    edge.loop.advance(1)
    assert len(edge.told) == 1
    assert edge.stored == []


def test_a_retired_rule_clears_with_the_next_frame_or_in_time() -> None:
    for with_frame in (True, False):
        edge = Edge(HOT)
        edge.take(frame(edge.loop.now_ms, temperature=101.0))
        assert edge.rules.book is not None
        edge.rules.book.put(msgspec.structs.replace(HOT, version=2, retired=True))
        if with_frame:
            edge.take(frame(edge.loop.now_ms + 1, temperature=101.0))
        else:
            edge.loop.advance(HOUSEKEEPING_MS)
        assert named(edge.told)[1] == (edge.told[0].alarm_id, 2, "CLEARED")


def test_a_state_is_saved_when_it_matters_and_its_times_now_and_then() -> None:
    edge = Edge(HOT)
    for n in range(100):
        edge.take(frame(edge.loop.now_ms + n, temperature=101.0))
    assert edge.buffer.saves == 1
    edge.loop.advance(SAVE_EVERY_TICKS * TICK_S * 1000)
    assert edge.buffer.saves == 2
    edge.loop.advance(10 * SAVE_EVERY_TICKS * TICK_S * 1000)
    assert edge.buffer.saves == 2


def test_a_device_at_rest_leaves_nothing_stored() -> None:
    edge = Edge(HOT)
    edge.take(frame(edge.loop.now_ms, temperature=101.0))
    edge.alarms.on_spilled("press-1", 1)
    edge.alarms.on_delivered_with_state("press-1", 2)
    edge.loop.advance(1000)
    edge.take(frame(edge.loop.now_ms, temperature=50.0))
    assert edge.buffer.values
    edge.loop.advance(2 * HOUSEKEEPING_MS)
    assert edge.buffer.values == {}
    edge.loop.advance(HOUSEKEEPING_MS)
    assert edge.loop.running == 1  # the tick


@pytest.mark.parametrize("how", ["full", "broken"])
def test_a_state_that_the_buffer_refused_is_saved_later(how: str) -> None:
    edge = Edge(HOT)
    setattr(edge.buffer, how, True)
    edge.take(frame(edge.loop.now_ms, temperature=101.0))
    assert edge.counted("state_saves_failed_total") == 1
    assert edge.buffer.values == {}
    setattr(edge.buffer, how, False)
    edge.loop.advance(SAVE_EVERY_TICKS * TICK_S * 1000)
    assert named(edge.restarted().alarms.active) == named(edge.told)


def test_devices_are_bounded_and_only_those_at_rest_make_room() -> None:
    edge = Edge(HOT, devices_max=2)
    now_ms = edge.loop.now_ms
    edge.take(frame(now_ms, "a", temperature=101.0))
    edge.take(frame(now_ms, "b", temperature=50.0))
    edge.take(frame(now_ms, "c", temperature=101.0))  # in place of b
    edge.take(frame(now_ms, "d", temperature=101.0))  # no room
    assert [event.device_id for event in edge.told] == ["a", "c"]
    assert edge.counted("frames_unwatched_total") == 1
    assert edge.counted("devices") == 2
    edge.alarms.on_spilled("d", 1)
    assert edge.take(frame(now_ms + 1, "d", temperature=101.0)).edge_state == b""


def test_what_was_saved_and_cannot_be_read_is_passed_over() -> None:
    edge = Edge(HOT)
    edge.buffer.values |= {"edge-state/x": b"\xff", "edge-state/y": b"", "counts": b"1"}
    edge.take(frame(edge.loop.now_ms, temperature=101.0))
    assert [event.device_id for event in edge.restarted().alarms.active] == ["press-1"]


def test_timers_wait_for_rules() -> None:
    edge = Edge(HOT)
    edge.take(frame(edge.loop.now_ms, temperature=101.0))
    without = FakeRules()
    without.book = None
    again = Edge(loop=FakeLoop(), buffer=edge.buffer, of=without)
    again.loop.advance(3 * HOUSEKEEPING_MS)
    assert again.told == []
    without.book = RuleBook((HOT,))
    again.loop.advance(3 * HOUSEKEEPING_MS)
    assert again.told == []
    without.book.remove("hot")
    again.loop.advance(HOUSEKEEPING_MS)
    assert named(again.told) == [(edge.told[0].alarm_id, 2, "CLEARED")]


def test_a_device_of_ever_new_shapes_takes_no_ever_new_memory() -> None:
    edge = Edge(HOT)
    for n in range(500):
        edge.take(frame(edge.loop.now_ms + n, **{"temperature": 50.0, f"m{n}": 1.0}))
    clock = edge.alarms._watches["press-1"].detector.clock
    assert len(clock._passed) <= 16
    assert len(edge.alarms._watches["press-1"]._shapes) <= 16

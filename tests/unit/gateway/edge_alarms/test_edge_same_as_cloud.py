"""The gateway and the detection job tell the same alarms: the same frames through both, cut off or not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantwire.domain.limits import NORMAL
from plantwire.domain.packed_state import unpack
from plantwire.schemas.codec import ALARM_CODEC, FRAME_CODEC, RULE_CODEC
from plantwire.schemas.records import AlarmEvent, AlarmRule, Limit, TelemetryFrame
from plantwire.udfs import alarm_detection
from plantwire.udfs.alarm_detection import AlarmDetection
from tests.unit.gateway.edge_alarms.edge_fakes import Edge, frame
from tests.unit.udfs.flink_fakes import FakeFlink, no_rules_topic

HOT = AlarmRule("hot", 1, "*", "temperature", (Limit(0, above=100, deadband=2), Limit(1, above=90)))
SLOW = AlarmRule(
    "slow", 1, "*", "pressure", (Limit(1, above=5, below=1),), on_delay_ms=3000, off_delay_ms=1000
)

Named = tuple[str, int, str]


class Cloud:
    """The detection job's function on a fake Flink, at the edge's time."""

    def __init__(self, edge: Edge, *rules: AlarmRule) -> None:
        self._edge = edge
        self.flink = FakeFlink()
        self.function = AlarmDetection(rules, "nowhere:1", None)
        self.function.open(self.flink)
        self.told: list[AlarmEvent] = []

    def take(self, frame: TelemetryFrame) -> None:
        self._tell(self.flink.element(self.function, frame.device_id, FRAME_CODEC.encode(frame)))

    def advance(self) -> None:
        now_ms = int(self._edge.loop.now_ms)
        while any(at_ms <= now_ms for _, at_ms in self.flink.timers):
            self._tell(self.flink.fire_timers(self.function, now_ms))

    def put_rule(self, rule: AlarmRule) -> None:
        list(self.function.process_broadcast_element((rule.rule_id, RULE_CODEC.encode(rule)), self.flink))

    def _tell(self, rows: list[Any]) -> None:
        self.told += [ALARM_CODEC.decode(row[1]) for row in rows]

    def active(self) -> set[str]:
        return {
            tracked.alarm.alarm_id
            for packed in self.flink.values.values()
            for tracked in unpack(packed)[1].values()
            if tracked.alarm is not None and tracked.limit.level != NORMAL
        }


@pytest.fixture(scope="module", autouse=True)
def _clock() -> Iterator[None]:
    """The job asks the edge's clock for the time; the log of alarms is empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alarm_detection, "time", _Time)
        patch.setattr(alarm_detection, "read_rules", no_rules_topic)
        patch.setattr(alarm_detection, "recent_alarms_if_readable", lambda _bootstrap: [])
        yield


class _Time:
    edge: Edge
    monotonic = staticmethod(time.monotonic)

    @classmethod
    def time_ns(cls) -> int:
        return int(cls.edge.loop.now_ms) * 1_000_000


def named(events: list[AlarmEvent]) -> list[Named]:
    return [(event.alarm_id, event.revision, event.kind) for event in events]


STEPS = st.lists(
    st.tuples(
        st.sampled_from([1, 20, 300, 900, 2500, 20_000, 70_000]),  # ms that pass before it
        st.sampled_from([0, 0, 0, -50, -1500, 400]),  # how late its time is
        st.sampled_from([50.0, 89.0, 91.0, 99.0, 101.0]),
        st.sampled_from([0.5, 2.0, 2.0, 6.0]),
        st.integers(0, 19),  # 0: a rule changes, 1: the other does
    ),
    max_size=60,
)


def step(edge: Edge, n: int, each: Any) -> tuple[TelemetryFrame, AlarmRule | None]:
    """Let time pass; the frame that arrives then, and a rule that changed before it."""
    passes_ms, late_ms, temperature, pressure, change = each
    edge.loop.advance(passes_ms)
    rule = {0: HOT, 1: SLOW}.get(change)
    if rule is not None:
        rule = msgspec.structs.replace(rule, version=n + 2, retired=n % 3 == 0)
    arrived = frame(edge.loop.now_ms + late_ms, temperature=temperature, pressure=pressure)
    return arrived, rule


@given(STEPS)
@settings(max_examples=1000, deadline=None)
def test_the_same_frames_give_the_same_alarms(steps: list[Any]) -> None:
    edge = _Time.edge = Edge(HOT, SLOW)
    cloud = Cloud(edge, HOT, SLOW)
    for n, each in enumerate(steps):
        arrived, rule = step(edge, n, each)
        cloud.advance()
        if rule is not None:
            assert edge.rules.book is not None
            edge.rules.book.put(rule)
            cloud.put_rule(rule)
        edge.take(arrived)
        cloud.take(arrived)
        assert named(edge.told) == named(cloud.told)
    edge.loop.advance(300_000)
    cloud.advance()
    assert named(edge.told) == named(cloud.told)
    assert {event.alarm_id for event in edge.alarms.active} == cloud.active()


@given(STEPS, st.lists(st.booleans(), min_size=60, max_size=60), st.integers(0, 59))
@settings(max_examples=100, deadline=None)
def test_after_a_cut_both_go_on_with_the_same_alarms(
    steps: list[Any], cut_at: list[bool], killed_at: int
) -> None:
    """While cut, frames reach the edge alone; afterwards the first one brings its state. Once the gateway is
    killed. With every live frame both hold the same alarms. The log has all that the edge told. What the
    cloud's timers told while it was cut off, not knowing that the value had changed, is a guess.
    """
    edge = _Time.edge = Edge(HOT, SLOW)
    cloud = Cloud(edge, HOT, SLOW)
    edge_told: list[AlarmEvent] = []
    log: list[AlarmEvent] = []  # alarms.fire, but for what the cloud tells
    guessed: set[str] = set()
    cut = False
    for n, each in enumerate(steps):
        if n % 5 == 0:
            cut = cut_at[n]
        if n == killed_at:
            edge_told += edge.told
            log += edge.stored
            edge = _Time.edge = edge.restarted()
            cloud._edge = edge
        arrived, _ = step(edge, n, (*each[:4], 19))
        timed_from = len(cloud.told)
        cloud.advance()
        if cut:
            guessed |= {event.alarm_id for event in cloud.told[timed_from:]}
        told_before = len(edge.told)
        carried = edge.take(arrived)
        if cut:
            log += edge.told[told_before:]
            edge.alarms.on_spilled("press-1", n)
        else:
            cloud.take(carried)
            if carried.edge_state:
                edge.alarms.on_delivered_with_state("press-1", n)
            active = {event.alarm_id for event in edge.alarms.active}
            assert active - guessed == cloud.active() - guessed
    edge_told += edge.told
    log += edge.stored
    assert set(named(edge_told)) <= set(named(cloud.told + log))
    assert {event.alarm_id for event in cloud.told} <= {event.alarm_id for event in edge_told} | guessed


def test_what_is_late_for_the_edge_is_late_for_a_cloud_that_missed_the_newer_value() -> None:
    """A value within limits went to the buffer; the older one that comes after it starts no delay."""
    edge = _Time.edge = Edge(SLOW)
    cloud = Cloud(edge, SLOW)
    for n, (passes_ms, late_ms, pressure, cut) in enumerate(
        [(0, 0, 2.0, False), (5_000, 0, 2.0, True), (1, 1_500, 0.5, False), (2_500, 0, 0.5, False)]
    ):
        edge.loop.advance(passes_ms)
        carried = edge.take(frame(edge.loop.now_ms - late_ms, pressure=pressure))
        if cut:
            edge.alarms.on_spilled("press-1", n)
        else:
            cloud.take(carried)
            if carried.edge_state:
                edge.alarms.on_delivered_with_state("press-1", n)
    assert named(cloud.told) == named(edge.told) == []
    assert cloud.active() == set()

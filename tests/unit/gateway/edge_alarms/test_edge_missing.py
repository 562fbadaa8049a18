"""Data that stay away, at the edge: the same alarms as the cloud's, by timers, and what is kept of them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantwire.domain.alarm_events import alarm_id_of
from plantwire.domain.listening import GRACE_MS, LOOK_AGAIN_MS, SETTLE_MS
from plantwire.domain.packed_state import unpack
from plantwire.gateway.edge_alarms.detection import SAVE_EVERY_TICKS, TICK_S
from plantwire.schemas.records import AlarmEvent, AlarmRule, Limit, Metric, Missing
from plantwire.udfs import alarm_detection
from tests.unit.gateway.edge_alarms.edge_fakes import NOW_MS, Edge, frame, named
from tests.unit.gateway.edge_alarms.test_edge_same_as_cloud import Cloud, _Time
from tests.unit.udfs.flink_fakes import no_rules_topic

HOT = AlarmRule("hot", 1, "*", "temperature", (Limit(0, above=100, deadband=2),))
LOST = AlarmRule("lost", 1, "*", "pressure", (), missing=(Missing(0, 20_000), Missing(1, 5_000)))
SILENT = AlarmRule("silent", 1, "*", "", (), missing=(Missing(1, 8_000),))
RULES = (HOT, LOST, SILENT)


@pytest.fixture(scope="module", autouse=True)
def _clock() -> object:
    """The job asks the edge's clock for the time; the log of alarms is empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alarm_detection, "time", _Time)
        patch.setattr(alarm_detection, "read_rules", no_rules_topic)
        patch.setattr(alarm_detection, "recent_alarms_if_readable", lambda _bootstrap: [])
        yield


def test_a_timer_tells_that_data_stay_away_and_the_next_frame_that_they_are_back() -> None:
    edge = Edge(*RULES)
    edge.take(frame(edge.loop.now_ms, temperature=50.0, pressure=2.0))
    edge.loop.advance(5_000 + GRACE_MS)
    assert edge.told == []
    edge.loop.advance(LOOK_AGAIN_MS)
    assert named(edge.told) == [
        (alarm_id_of("press-1", "lost", "pressure", NOW_MS + 5_000), 1, "RAISED"),
    ]
    edge.loop.advance(20_000)
    assert [(e.rule_id, e.kind) for e in edge.told[1:]] == [
        ("silent", "RAISED"),
        ("lost", "SEVERITY_CHANGED"),
    ]
    edge.take(frame(edge.loop.now_ms, pressure=2.0))
    assert [(e.rule_id, e.kind) for e in edge.told[3:]] == [("lost", "CLEARED"), ("silent", "CLEARED")]
    assert edge.alarms.active == ()


def test_text_is_data_and_stale_or_historical_values_are_not() -> None:
    edge = Edge(AlarmRule("mode", 1, "*", "mode", (), missing=(Missing(1, 5_000),)))

    def send(metric: Metric, historical: bool = False) -> None:
        taken = frame(edge.loop.now_ms, historical=historical)
        edge.take(msgspec.structs.replace(taken, metrics=(metric, Metric("x", 1.0))))

    send(Metric("mode", None, "auto"))
    for _ in range(4):
        edge.loop.advance(2_000)
        send(Metric("mode", None, "auto"))
    assert edge.told == []
    for _ in range(4):
        edge.loop.advance(2_000)
        send(Metric("mode", None, "auto", quality=500))
        send(Metric("mode", None, "auto"), historical=True)
    assert [e.kind for e in edge.told] == ["RAISED"]


def test_what_is_waited_for_is_not_written_to_disk_and_an_alarm_is() -> None:
    edge = Edge(*RULES)
    for _ in range(200):
        edge.take(frame(edge.loop.now_ms, temperature=50.0, pressure=2.0))
        edge.loop.advance(1_000)
    assert edge.buffer.saves == 0
    edge.loop.advance(5_000 + GRACE_MS + LOOK_AGAIN_MS)
    assert [e.kind for e in edge.told] == ["RAISED"]
    assert edge.buffer.saves == 1
    again = edge.restarted()
    assert named(again.alarms.active) == named(edge.told)
    again.loop.advance(SAVE_EVERY_TICKS * TICK_S * 1000)
    again.take(frame(again.loop.now_ms, pressure=2.0))
    assert named(again.told) == [(edge.told[0].alarm_id, 2, "CLEARED")]


def test_what_was_not_read_while_the_gateway_was_away_is_not_missed() -> None:
    edge = Edge(*RULES)
    edge.take(frame(edge.loop.now_ms, temperature=50.0, pressure=2.0))
    edge.alarms.on_spilled("press-1", 1)
    edge.loop.now_ms += 3_600_000
    again = edge.restarted()
    again.loop.advance(2 * SETTLE_MS)
    assert again.told == []
    again.take(frame(again.loop.now_ms, temperature=50.0, pressure=2.0))
    assert again.told == []
    again.loop.advance(5_000 + GRACE_MS + LOOK_AGAIN_MS)
    assert [e.kind for e in again.told] == ["RAISED"]


def test_a_diverged_device_tells_when_it_was_last_heard_to_the_millisecond() -> None:
    edge = Edge(*RULES)
    for _ in range(10):
        edge.take(frame(edge.loop.now_ms, temperature=50.0, pressure=2.0))
        edge.loop.advance(100)
    edge.alarms.on_spilled("press-1", 1)
    carried = edge.take(frame(edge.loop.now_ms, temperature=50.0, pressure=2.0))
    _, state = unpack(carried.edge_state)
    assert {key: tracked.newest_ms for key, tracked in state.items()} == {
        ("lost", "pressure"): NOW_MS + 900,
        ("silent", ""): NOW_MS + 900,
    }


STEPS = st.lists(
    st.tuples(
        st.sampled_from([20, 900, 2500, 4999, 5000, 5001, 7000, 9000, 70_000]),  # ms that pass before it
        st.sampled_from([0, 0, 0, -50, -300, 400]),  # how late its time is
        st.sets(st.sampled_from(["temperature", "pressure", "flow"]), min_size=1),
        st.sampled_from([50.0, 50.0, 101.0]),
        st.integers(0, 30),  # 0: a rule changes
    ),
    max_size=50,
)


def told_by(events: list[AlarmEvent]) -> list[tuple[str, int, str]]:
    """In no order: both ask by timers, and not at the same moment."""
    return sorted(named(events))


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_the_same_frames_give_the_same_silences(steps: list[tuple[int, int, set[str], float, int]]) -> None:
    edge = _Time.edge = Edge(*RULES)
    cloud = Cloud(edge, *RULES)
    for n, (passes_ms, late_ms, names, value, change) in enumerate(steps):
        edge.loop.advance(passes_ms)
        cloud.advance()
        if change == 0:
            rule = msgspec.structs.replace(LOST, version=n + 2, retired=n % 3 == 0)
            assert edge.rules.book is not None
            edge.rules.book.put(rule)
            cloud.put_rule(rule)
        arrived = frame(edge.loop.now_ms + late_ms, **dict.fromkeys(sorted(names), value))
        arrived = msgspec.structs.replace(arrived, received_time_ms=int(edge.loop.now_ms))
        edge.take(arrived)
        cloud.take(arrived)
    edge.loop.advance(300_000)
    cloud.advance()
    assert told_by(edge.told) == told_by(cloud.told)
    assert {event.alarm_id for event in edge.alarms.active} == cloud.active()


@given(STEPS, st.lists(st.booleans(), min_size=50, max_size=50))
@settings(max_examples=150, deadline=None)
def test_after_a_cut_both_go_on_with_the_same_silences(
    steps: list[tuple[int, int, set[str], float, int]], cut_at: list[bool]
) -> None:
    """While cut the cloud misses what only the edge sees; the first live frame sets it right."""
    edge = _Time.edge = Edge(*RULES)
    cloud = Cloud(edge, *RULES)
    log: list[AlarmEvent] = []
    cut = False
    newest_ms = 0
    for n, (passes_ms, _, names, value, _) in enumerate(steps):
        if n % 5 == 0:
            cut = cut_at[n]
        edge.loop.advance(passes_ms)
        newest_ms = max(newest_ms + 1, int(edge.loop.now_ms))
        arrived = frame(newest_ms, **dict.fromkeys(sorted(names), value))
        cloud.advance()
        told_before = len(edge.told)
        carried = edge.take(arrived)
        if cut:
            log += edge.told[told_before:]
            edge.alarms.on_spilled("press-1", n)
            continue
        cloud.take(carried)
        if carried.edge_state:
            edge.alarms.on_delivered_with_state("press-1", n)
        assert {event.alarm_id for event in edge.alarms.active} == cloud.active()
    log += edge.stored
    assert set(named(edge.told)) <= set(named(cloud.told + log))
    # Whoever goes by revisions holds the same alarms active as the edge.
    last: dict[str, AlarmEvent] = {}
    for event in [*log, *cloud.told]:
        if event.alarm_id not in last or last[event.alarm_id].revision < event.revision:
            last[event.alarm_id] = event
    if steps and not cut:
        shown = {event.alarm_id for event in last.values() if event.kind != "CLEARED"}
        assert shown == {event.alarm_id for event in edge.alarms.active}

"""After an outage the cloud's detection goes on from the gateway's, and both tell the same."""

from __future__ import annotations

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from plantwire.domain.adoption import adopt, go_on_from
from plantwire.domain.detection import DeviceDetector
from plantwire.domain.rule_book import RuleBook
from plantwire.schemas.records import AlarmEvent, AlarmKind, AlarmRule, Limit, Missing

START_MS = 1_795_000_000_000
RULES = (
    AlarmRule(
        "hot", 1, "*", "temperature", (Limit(0, above=100, deadband=2), Limit(1, above=90, deadband=2))
    ),
    AlarmRule("slow", 1, "*", "temperature", (Limit(2, above=80),), on_delay_ms=5000, off_delay_ms=5000),
)

Series = list[tuple[int, float]]
"""(ms since the frame before, value)."""
steps = st.tuples(
    st.sampled_from([1, 500, 2000, 6000, 30_000, 61_000]),
    st.sampled_from([50.0, 79.0, 85.0, 95.0, 99.0, 105.0]),
)


def detector() -> DeviceDetector:
    return DeviceDetector("press-1", RuleBook(RULES).for_device("press-1"))


def judge(one: DeviceDetector, at_ms: int, value: float) -> list[AlarmEvent]:
    return one.take_readings([("temperature", value, at_ms)], at_ms, "hall", at_ms)


def names(events: list[AlarmEvent]) -> list[tuple[str, int, str]]:
    return [(event.alarm_id, event.revision, event.kind) for event in events]


def run(before: Series, missed: Series, after: Series) -> tuple[list[AlarmEvent], ...]:
    """The events of the edge while cut off, of the edge afterwards, and of the cloud afterwards."""
    edge, cloud = detector(), detector()
    at_ms = START_MS
    for step_ms, value in before:
        at_ms += step_ms
        assert names(judge(edge, at_ms, value)) == names(judge(cloud, at_ms, value))
    while_away: list[AlarmEvent] = []
    for step_ms, value in missed:
        at_ms += step_ms
        while_away += judge(edge, at_ms, value)
    told_by_edge: list[AlarmEvent] = []
    told_by_cloud: list[AlarmEvent] = []
    for step_ms, value in after:
        at_ms += step_ms
        state = edge.state
        told_by_edge += judge(edge, at_ms, value)
        told_by_cloud += go_on_from(cloud, state, at_ms)
        told_by_cloud += judge(cloud, at_ms, value)
        assert cloud.state == edge.state
    return while_away, told_by_edge, told_by_cloud


def active_after(events: list[AlarmEvent]) -> set[str]:
    """The alarms that a reader of the log, who goes by revisions, holds active."""
    newest: dict[str, AlarmEvent] = {}
    for event in events:
        known = newest.get(event.alarm_id)
        if known is None or event.revision > known.revision:
            newest[event.alarm_id] = event
    return {event.alarm_id for event in newest.values() if event.kind != AlarmKind.CLEARED}


@given(
    st.lists(steps, max_size=8),
    st.lists(steps, min_size=1, max_size=12),
    st.lists(steps, min_size=1, max_size=8),
)
@example([(1, 105.0)], [(1, 50.0), (61_000, 105.0)], [(1, 105.0), (1, 50.0)])
@example([], [(1, 105.0)], [(1, 105.0), (1, 50.0)])
@example([(1, 105.0)], [(1, 50.0)], [(61_000, 50.0), (1, 105.0)])
def test_the_cloud_goes_on_where_the_edge_is(before: Series, missed: Series, after: Series) -> None:
    while_away, by_edge, by_cloud = run(before, missed, after)
    known = {name[:2] for name in names(while_away)}
    # What the edge already told, an alarm's clear, is passed over by whoever has it.
    new = [event for event in by_cloud if (event.alarm_id, event.revision) not in known]
    extra = Counter(names(new)) - Counter(names(by_edge))
    assert not Counter(names(by_edge)) - Counter(names(by_cloud))
    # The rest are clears of alarms that the edge has moved past, with revisions older than its own.
    newest = {event.alarm_id: event.revision for event in while_away}
    assert all(kind == AlarmKind.CLEARED and revision < newest[alarm] for alarm, revision, kind in extra)


@given(
    st.lists(steps, max_size=8),
    st.lists(steps, min_size=1, max_size=12),
    st.lists(steps, min_size=1, max_size=8),
)
def test_in_the_log_both_hold_the_same_alarms_active(before: Series, missed: Series, after: Series) -> None:
    first: list[AlarmEvent] = []
    edge, at_ms = detector(), START_MS
    for step_ms, value in before:
        at_ms += step_ms
        first += judge(edge, at_ms, value)
    while_away, by_edge, by_cloud = run(before, missed, after)
    assert active_after(first + while_away + by_cloud) == active_after(first + while_away + by_edge)


def test_an_edge_that_knows_nothing_ends_the_clouds_alarm_and_starts_its_own() -> None:
    cloud = detector()
    raised = judge(cloud, START_MS, 105.0)
    ended = go_on_from(cloud, {}, START_MS + 1000)
    assert names(ended) == [(raised[0].alarm_id, 2, AlarmKind.CLEARED)]
    again = judge(cloud, START_MS + 1000, 105.0)
    assert [event.kind for event in again] == [AlarmKind.RAISED]
    assert again[0].alarm_id != raised[0].alarm_id


def test_a_late_frame_brings_the_newest_state_all_the_same() -> None:
    """What the device sent before, and what Kafka held up, comes after a cut as before one."""
    edge, cloud = detector(), detector()
    for d in (edge, cloud):
        judge(d, START_MS, 50.0)
    [raised] = judge(edge, START_MS + 2000, 105.0)
    late_ms = START_MS - 1000
    state = edge.state
    told = go_on_from(cloud, state, late_ms) + judge(cloud, late_ms, 95.0)
    assert judge(edge, late_ms, 95.0) == []
    assert names(told) == [(raised.alarm_id, 1, AlarmKind.RAISED)]
    assert cloud.state == edge.state


def test_an_alarm_is_told_even_if_what_the_edge_stored_of_it_is_lost() -> None:
    edge, cloud = detector(), detector()
    judge(edge, START_MS, 95.0)
    judge(cloud, START_MS, 95.0)
    [worse] = judge(edge, START_MS + 1000, 105.0)
    [told] = go_on_from(cloud, edge.state, START_MS + 2000)
    assert (told.alarm_id, told.revision, told.kind) == (worse.alarm_id, 2, AlarmKind.SEVERITY_CHANGED)
    assert told.severity == worse.severity
    assert "CRITICAL by rule hot" in told.message
    assert go_on_from(cloud, edge.state, START_MS + 3000) == []


def test_the_cloud_keeps_what_it_knows_better_of_the_same_alarm() -> None:
    cloud = detector()
    judge(cloud, START_MS, 95.0)
    stale = cloud.state
    judge(cloud, START_MS + 1000, 105.0)
    key = ("hot", "temperature")
    adopted = adopt(cloud.state, stale)
    assert adopted.state[key] == cloud.state[key] != stale[key]
    assert adopted.corrections == ()


def test_what_the_cloud_guessed_of_the_same_alarm_is_set_right() -> None:
    """Its timer ends an off-delay that a frame which it never saw had interrupted."""
    edge, cloud = detector(), detector()
    for at_ms, value in ((START_MS, 85.0), (START_MS + 6000, 85.0), (START_MS + 7000, 50.0)):
        raised = judge(edge, at_ms, value)
        judge(cloud, at_ms, value)
    assert raised == []
    judge(edge, START_MS + 8000, 85.0)
    [guessed] = cloud.run_timers(START_MS + 20_000)
    assert (guessed.kind, guessed.revision) == (AlarmKind.CLEARED, 2)
    at_ms = START_MS + 21_000
    state = edge.state
    [corrected] = go_on_from(cloud, state, at_ms)
    assert (corrected.alarm_id, corrected.revision, corrected.kind) == (guessed.alarm_id, 3, AlarmKind.RAISED)
    assert judge(cloud, at_ms, 85.0) == judge(edge, at_ms, 85.0) == []
    # From here on the cloud is one revision ahead, and of the same mind.
    [ended] = [event for d in (cloud,) for at in (1, 6000) for event in judge(d, at_ms + at, 50.0)]
    assert (ended.alarm_id, ended.revision, ended.kind) == (guessed.alarm_id, 4, AlarmKind.CLEARED)


LOST = AlarmRule("lost", 1, "*", "temperature", (), missing=(Missing(0, 600_000), Missing(1, 60_000)))


def waiting() -> DeviceDetector:
    """A device of which data were seen at START_MS."""
    device = DeviceDetector("press-1", RuleBook([LOST]).for_device("press-1"))
    judge(device, START_MS, 50.0)
    return device


def test_what_only_the_edge_has_seen_ends_what_the_cloud_missed() -> None:
    edge, cloud = waiting(), waiting()
    for at_ms in range(START_MS, START_MS + 200_000, 10_000):
        judge(edge, at_ms, 50.0)
    [missed] = cloud.run_timers(START_MS + 200_000, START_MS + 200_000)
    at_ms = START_MS + 200_000
    ended = go_on_from(cloud, edge.exact_state(), at_ms)
    assert names(ended) == [(missed.alarm_id, 2, AlarmKind.CLEARED)]
    assert judge(cloud, at_ms, 50.0) == judge(edge, at_ms, 50.0) == []
    # From here on both count from the same value.
    later_ms = at_ms + 61_000
    assert cloud.run_timers(later_ms, later_ms) == edge.run_timers(later_ms, later_ms) != []


def test_what_the_edge_does_not_know_of_is_still_waited_for() -> None:
    cloud = waiting()
    fresh = DeviceDetector("press-1", RuleBook([LOST]).for_device("press-1"))
    fresh.take_readings([("pressure", 1.0, START_MS + 1)], START_MS + 1, "", START_MS + 1)
    assert go_on_from(cloud, fresh.exact_state(), START_MS + 1) == []
    [raised] = cloud.run_timers(START_MS + 61_000, START_MS + 61_000)
    assert raised.event_time_ms == START_MS + 60_000


def test_two_revisions_of_one_number_are_told_apart_by_a_third() -> None:
    """The edge told that data are back, and the cloud, cut off, that they are missing for longer still."""
    edge, cloud = waiting(), waiting()
    at_ms = START_MS + 61_000
    assert names(edge.run_timers(at_ms, at_ms)) == names(cloud.run_timers(at_ms, at_ms)) != []
    [back] = judge(edge, START_MS + 100_000, 50.0)
    [worse] = cloud.run_timers(START_MS + 700_000, START_MS + 700_000)
    assert (back.alarm_id, back.revision) == (worse.alarm_id, worse.revision)
    judge(edge, START_MS + 140_000, 50.0)
    [told] = go_on_from(cloud, edge.exact_state(), START_MS + 150_000)
    assert (told.alarm_id, told.revision, told.kind) == (back.alarm_id, 3, AlarmKind.CLEARED)


def test_a_state_from_outside_does_not_make_its_frame_too_late() -> None:
    silent = AlarmRule("silent", 1, "*", "", (), missing=(Missing(1, 60_000),))
    cloud, other = (DeviceDetector("press-1", RuleBook([silent]).for_device("press-1")) for _ in "12")
    judge(other, START_MS + 10**9, 50.0)
    go_on_from(cloud, other.exact_state(), START_MS)
    judge(cloud, START_MS, 50.0)
    assert cloud.clock.too_late == 0

"""The detection function between Flink and the domain: timers, restores, the log."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from plantwire.domain.attention import HOUSEKEEPING_MS
from plantwire.domain.detection import DeviceDetector
from plantwire.domain.packed_state import pack
from plantwire.domain.rule_book import RuleBook
from plantwire.schemas.codec import ALARM_CODEC, FRAME_CODEC, RULE_CODEC
from plantwire.schemas.records import AlarmEvent, AlarmRule, Limit, Metric, TelemetryFrame
from plantwire.udfs import alarm_detection
from plantwire.udfs.alarm_detection import AlarmDetection
from tests.unit.udfs.flink_fakes import FakeFlink, no_rules_topic

NOW_MS = 1_795_000_000_000
HOT = AlarmRule("hot", 1, "*", "temperature", (Limit(0, above=100),))
FLAPPING = AlarmRule("flapping", 1, "*", "pressure", (Limit(1, above=5),), on_delay_ms=3000)


class Clock:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def time_ns(self) -> int:
        return self.now_ms * 1_000_000

    monotonic = staticmethod(time.monotonic)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(alarm_detection, "time", clock)
    return clock


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[AlarmEvent]:
    log: list[AlarmEvent] = []
    monkeypatch.setattr(alarm_detection, "read_rules", no_rules_topic)
    monkeypatch.setattr(alarm_detection, "recent_alarms_if_readable", lambda _bootstrap: list(log))
    return log


def started(flink: FakeFlink, *rules: AlarmRule) -> AlarmDetection:
    function = AlarmDetection(rules, "nowhere:1", None)
    function.open(flink)
    return function


def body(at_ms: int, edge_state: bytes = b"", **values: float) -> bytes:
    metrics = tuple(Metric(name, value) for name, value in values.items())
    return FRAME_CODEC.encode(
        TelemetryFrame("press-1", "", None, at_ms, at_ms, "http", False, metrics, edge_state=edge_state)
    )


def told(rows: list[Any]) -> list[tuple[str, int]]:
    return [(e.kind, e.revision) for e in (ALARM_CODEC.decode(row[1]) for row in rows)]


def test_a_timer_that_is_overdue_after_a_restore_finds_the_rules(clock: Clock, log: list[AlarmEvent]) -> None:
    flink = FakeFlink()
    function = started(flink)
    # The rule came after the job was submitted: only the broadcast state has it.
    list(function.process_broadcast_element(("hot", RULE_CODEC.encode(HOT)), flink))
    assert told(flink.element(function, "press-1", body(clock.now_ms, temperature=101.0))) == [("RAISED", 1)]
    restored = started(flink)
    clock.now_ms += 2 * HOUSEKEEPING_MS
    assert flink.fire_timers(restored, clock.now_ms) == []
    assert told(flink.element(restored, "press-1", body(clock.now_ms, temperature=50.0))) == [("CLEARED", 2)]


def test_a_rule_that_cannot_be_evaluated_is_counted_and_changes_nothing(
    clock: Clock, log: list[AlarmEvent]
) -> None:
    flink = FakeFlink()
    function = started(flink, HOT)
    unfit = msgspec.structs.replace(HOT, version=2, limits=(Limit(49, above=1),))
    for record in (RULE_CODEC.encode(unfit), b"\xff"):
        list(function.process_broadcast_element(("hot", record), flink))
    assert flink.counts["rules_rejected"] == 2
    assert told(flink.element(function, "press-1", body(clock.now_ms, temperature=50.0))) == []
    assert told(flink.element(function, "press-1", body(clock.now_ms + 1, temperature=101.0))) == [
        ("RAISED", 1)
    ]


def test_a_frame_with_the_edges_state_goes_on_from_it(clock: Clock, log: list[AlarmEvent]) -> None:
    flink = FakeFlink()
    function = started(flink, HOT)
    assert flink.element(function, "press-1", body(clock.now_ms, temperature=50.0)) == []
    edge = DeviceDetector("press-1", RuleBook([HOT]).for_device("press-1"))
    [raised] = edge.take_readings([("temperature", 101.0, clock.now_ms + 1)], clock.now_ms + 1, "", 0)
    clock.now_ms += 2
    state = pack("hall", edge.state)
    rows = flink.element(function, "press-1", body(clock.now_ms, edge_state=state, temperature=50.0))
    [told, cleared] = [ALARM_CODEC.decode(row[1]) for row in rows]
    assert (told.alarm_id, told.revision, told.kind) == (raised.alarm_id, 1, "RAISED")
    assert (cleared.alarm_id, cleared.revision, cleared.kind) == (raised.alarm_id, 2, "CLEARED")
    assert flink.counts["edge_states_adopted"] == 1


def test_an_edge_state_of_another_layout_costs_the_frame_nothing(clock: Clock, log: list[AlarmEvent]) -> None:
    flink = FakeFlink()
    function = started(flink, HOT)
    for number, state in enumerate((b"\x7f", b"\x01garbage", b"\x01")):
        clock.now_ms += 1
        rows = flink.element(
            function, "press-1", body(clock.now_ms, edge_state=state, temperature=101.0 - 60 * (number % 2))
        )
        assert len(rows) == 1
    assert flink.counts["edge_states_unreadable"] == 3


def test_timers_do_not_multiply(clock: Clock, log: list[AlarmEvent]) -> None:
    flink = FakeFlink()
    function = started(flink, HOT, FLAPPING)
    most = 0
    for second in range(600):
        clock.now_ms = NOW_MS + 1000 * second + (second * 37) % 200
        pressure = 6.0 if second % 5 < 2 else 1.0
        flink.element(function, "press-1", body(clock.now_ms, temperature=101.0, pressure=pressure))
        flink.fire_timers(function, clock.now_ms)
        most = max(most, len(flink.timers))
        if second == 300:
            function = started(flink, HOT, FLAPPING)
    assert most <= 2
    assert len(flink.timers) == 1


def test_an_announced_alarm_that_a_replay_does_not_repeat_is_cleared(
    clock: Clock, log: list[AlarmEvent]
) -> None:
    flink = FakeFlink()
    function = started(flink, FLAPPING)
    flink.element(function, "press-1", body(clock.now_ms, pressure=6.0))
    checkpoint = dict(flink.values)
    clock.now_ms += 4000
    rows = flink.fire_timers(function, clock.now_ms)
    assert told(rows) == [("RAISED", 1)]
    log.extend(ALARM_CODEC.decode(row[1]) for row in rows)
    # A frame that had been held up, measured before the delay ended: on the replay it comes first.
    flink.values = checkpoint
    restored = started(flink, FLAPPING)
    assert flink.element(restored, "press-1", body(NOW_MS + 2000, pressure=1.0)) == []
    rows = flink.element(restored, "press-1", body(NOW_MS + 5000, pressure=1.0))
    assert told(rows) == [("CLEARED", 2)]
    assert flink.counts["alarms_corrected"] == 1


def test_a_replay_that_repeats_what_was_announced_corrects_nothing(
    clock: Clock, log: list[AlarmEvent]
) -> None:
    frames = [body(NOW_MS + 1000 * n, temperature=101.0 if n % 7 < 3 else 50.0) for n in range(40)]
    flink = FakeFlink()
    clock.now_ms += 60_000
    function = started(flink, HOT)
    first = [row for frame in frames for row in flink.element(function, "press-1", frame)]
    log.extend(ALARM_CODEC.decode(row[1]) for row in first)
    again = FakeFlink()
    restored = started(again, HOT)
    second = [row for frame in frames for row in again.element(restored, "press-1", frame)]
    assert told(second) == told(first)
    assert again.counts["alarms_corrected"] == 0


def test_quiet_frames_pass_without_touching_state(clock: Clock, log: list[AlarmEvent]) -> None:
    flink = FakeFlink()
    function = started(flink, HOT, FLAPPING)
    for n in range(5):
        clock.now_ms = NOW_MS + 1000 * n
        assert flink.element(function, "press-1", body(clock.now_ms, temperature=50.0, pressure=1.0)) == []
    assert function.process_element(body(clock.now_ms, temperature=50.0, pressure=1.0), flink) is None
    assert flink.values == {}
    assert flink.timers == set()


def test_the_log_of_another_severity_is_set_right(clock: Clock, log: list[AlarmEvent]) -> None:
    flink = FakeFlink()
    function = started(flink, HOT)
    (row,) = flink.element(function, "press-1", body(clock.now_ms, temperature=101.0))
    raised = ALARM_CODEC.decode(row[1])
    log.append(msgspec.structs.replace(raised, revision=3, kind="CLEARED"))
    restored = started(flink, HOT)
    rows = flink.element(restored, "press-1", body(clock.now_ms + 1000, temperature=101.0))
    assert told(rows) == [("RAISED", 4)]


def test_rules_that_came_since_the_checkpoint_judge_the_first_frame_read_anew(
    clock: Clock, log: list[AlarmEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state and the submission know nothing of it, and its broadcast may come after the frame."""
    topic = {"hot": HOT}
    monkeypatch.setattr(alarm_detection, "read_rules", lambda _bootstrap, _timeout_s: topic)
    flink = FakeFlink()
    function = started(flink)
    told = flink.element(function, "press-1", body(NOW_MS, temperature=101.0))
    assert [ALARM_CODEC.decode(row[1]).kind for row in told] == ["RAISED"]


def test_a_rule_that_is_not_in_the_topic_any_more_is_not_brought_back(
    clock: Clock, log: list[AlarmEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarm_detection, "read_rules", lambda _bootstrap, _timeout_s: {})
    flink = FakeFlink()
    flink.broadcast["hot"] = RULE_CODEC.encode(HOT)
    function = started(flink, HOT)
    assert flink.element(function, "press-1", body(NOW_MS, temperature=101.0)) == []

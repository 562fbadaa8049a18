"""The function that holds patterns' alarms: state, timers, and what it tells."""

from __future__ import annotations

from typing import Any

import msgspec

from plantwire.domain.pattern_alarms import Match
from plantwire.domain.patterns import GRACE_MS
from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC
from plantwire.schemas.patterns import Pattern, Spikes, Stuck
from plantwire.schemas.records import AlarmEvent
from plantwire.udfs.telemetry_patterns import LoggedAlarm, PatternAlarms
from tests.builders import alarm_event
from tests.unit.udfs.flink_fakes import FakeFlink

SPIKES = Pattern("spiky", 1, "*", "*", 1, "{device}", Spikes(3, 60, above=90), 100)
STUCK = Pattern("frozen", 1, "*", "*", 2, "{device}", Stuck(60, 2), 300)


class EventTimeFlink(FakeFlink):
    """Flink with event-time timers; `pass_time` is what a watermark does."""

    def register_event_time_timer(self, at_ms: int) -> None:
        self.timers.add((self.key, at_ms))

    def pass_time(self, function: Any, watermark_ms: int) -> list[Any]:
        return self.fire_timers(function, watermark_ms)


def opened(flink: FakeFlink, *patterns: Pattern) -> PatternAlarms:
    function = PatternAlarms(patterns or (SPIKES, STUCK))
    function.open(flink)
    return function


def match(start_ms: int, end_ms: int, number: int = 0, begins: bool = True) -> bytes:
    """As `JSON_OBJECT` writes it."""
    return msgspec.json.encode(Match(number, "press-1", "t", "hall", begins, start_ms, end_ms, 95.0, 90.0))


def events(rows: list[Any]) -> list[AlarmEvent]:
    decoded = []
    for row in rows:
        assert row[2] == {topics.HEADER_FINGERPRINT: ALARM_CODEC.fingerprint.encode()}
        event = ALARM_CODEC.decode(row[1])
        assert row[0] == event.device_id
        assert 0 < event.detect_in_us <= event.detect_out_us
        decoded.append(event)
    return decoded


def told(rows: list[Any]) -> list[tuple[str, str, int, int]]:
    return [(event.rule_id, event.kind, event.revision, event.event_time_ms) for event in events(rows)]


def test_an_alarm_is_raised_counted_and_cleared_by_event_time() -> None:
    flink = EventTimeFlink()
    function = opened(flink)
    assert told(flink.element(function, "press-1", match(1_000, 5_000))) == [
        ("pattern:spiky", "RAISED", 1, 5_000)
    ]
    assert told(flink.element(function, "press-1", match(50_000, 60_000))) == [
        ("pattern:spiky", "RAISED", 2, 60_000)
    ]
    assert flink.pass_time(function, 105_000 + GRACE_MS) == []
    assert flink.pass_time(function, 160_000 + GRACE_MS - 1) == []
    assert told(flink.pass_time(function, 160_000 + GRACE_MS)) == [("pattern:spiky", "CLEARED", 3, 160_000)]
    assert flink.values == {}


def test_a_device_holds_several_alarms_and_a_restore_goes_on() -> None:
    flink = EventTimeFlink()
    flink.element(opened(flink), "press-1", match(1_000, 61_000, number=1))
    flink.element(opened(flink), "press-1", match(1_000, 5_000))
    assert told(flink.pass_time(opened(flink), 10**9)) == [("pattern:spiky", "CLEARED", 2, 105_000)]
    assert told(flink.element(opened(flink), "press-1", match(1_000, 90_000, number=1, begins=False))) == [
        ("pattern:frozen", "CLEARED", 2, 90_000)
    ]
    assert flink.values == {}


def test_an_alarm_that_only_the_log_knows_is_let_go() -> None:
    flink = EventTimeFlink()
    function = opened(flink)
    logged = alarm_event(rule_id="pattern:gone", revision=2, device_id="press-1")
    body = msgspec.json.encode(LoggedAlarm(logged))
    (event,) = events(flink.element(function, "press-1", body))
    assert (event.alarm_id, event.kind, event.revision) == (logged.alarm_id, "CLEARED", 3)
    assert flink.element(function, "", msgspec.json.encode(LoggedAlarm(None))) == []
    assert flink.values == {}


def test_an_alarm_that_is_held_stays_though_the_log_names_it() -> None:
    flink = EventTimeFlink()
    function = opened(flink)
    (raised,) = events(flink.element(function, "press-1", match(1_000, 5_000)))
    assert flink.element(function, "press-1", msgspec.json.encode(LoggedAlarm(raised))) == []
    # Unless its pattern is gone: then nothing would end it.
    other = opened(flink, Pattern("other", 1, "*", "*", 1, "", Spikes(3, 60, above=90), 100))
    assert flink.pass_time(other, 10**9) == []
    (event,) = events(flink.element(other, "press-1", msgspec.json.encode(LoggedAlarm(raised))))
    assert (event.alarm_id, event.kind) == (raised.alarm_id, "CLEARED")
    assert flink.values == {}

"""What the durable topic lacks is found."""

from __future__ import annotations

from bench.deliveries import ExpectedRaise
from bench.fire_check import check_fire
from plantwire.schemas.records import AlarmEvent, AlarmKind

EXPECTED = [ExpectedRaise("d", "m", 1_000, 4_000, True), ExpectedRaise("d", "m", 101_000, 104_000, True)]


def event(alarm_id: str, revision: int, kind: str, event_ms: int, severity: int = 0) -> AlarmEvent:
    return AlarmEvent(
        alarm_id=alarm_id,
        revision=revision,
        rule_id="r",
        rule_version=1,
        device_id="d",
        site="",
        metric="m",
        value=1.0,
        limit=0.5,
        severity=severity,
        kind=kind,
        message="",
        event_time_ms=event_ms,
        raise_time_ms=event_ms,
        count=1,
    )


COMPLETE = [
    event("a", 1, AlarmKind.RAISED, 1_000),
    event("a", 2, AlarmKind.CLEARED, 4_000),
    event("b", 1, AlarmKind.RAISED, 101_000),
    event("b", 2, AlarmKind.CLEARED, 104_000),
]


def test_a_complete_topic_lacks_nothing() -> None:
    found = check_fire(EXPECTED, COMPLETE)
    assert (found.missing_raises, found.missing_clears, found.doubled, found.events) == (0, 0, 0, 4)


def test_a_missing_raise_takes_its_clear_along() -> None:
    found = check_fire(EXPECTED, COMPLETE[1:])
    assert (found.missing_raises, found.missing_clears) == (1, 1)


def test_a_clear_of_another_alarm_does_not_help() -> None:
    found = check_fire(EXPECTED, [*COMPLETE[:3], event("c", 2, AlarmKind.CLEARED, 104_000)])
    assert (found.missing_raises, found.missing_clears) == (0, 1)


def test_a_repeated_record_is_doubled() -> None:
    assert check_fire(EXPECTED, [*COMPLETE, COMPLETE[0]]).doubled == 1


def test_a_raise_under_a_second_id_is_found_wherever_it_stands_and_both_ids_must_clear() -> None:
    again = [event("a2", 1, AlarmKind.RAISED, 1_500), event("a2", 2, AlarmKind.CLEARED, 4_000)]
    for events in ([*COMPLETE, *again], [*again, *COMPLETE]):
        found = check_fire(EXPECTED, events)
        assert (found.second_ids, found.doubled, found.missing_raises, found.missing_clears) == (1, 0, 0, 0)
    assert check_fire(EXPECTED, [*COMPLETE, again[0]]).missing_clears == 1
    assert check_fire(EXPECTED, COMPLETE).second_ids == 0


def test_a_raise_again_of_the_same_alarm_is_no_second_id() -> None:
    assert check_fire(EXPECTED, [*COMPLETE, event("a", 3, AlarmKind.RAISED, 2_000)]).second_ids == 0


def test_a_raise_of_lesser_severity_does_not_count() -> None:
    assert check_fire(EXPECTED[:1], [event("a", 1, AlarmKind.RAISED, 1_000, severity=1)]).missing_raises == 1

"""The filled topic: bytes as the codec makes them, marks that end every partition, sparse alarms."""

from __future__ import annotations

from collections import defaultdict

import pytest

from bench.frame_bodies import FrameBodies, encode_long, frame_of
from bench.frame_plan import (
    CRITICAL,
    HIGH,
    MARK_RULE,
    METRICS_PER_FRAME,
    RULES,
    FramePlan,
    Template,
    device_number,
    machine_id,
)
from plantwire.domain.detection import DeviceDetector, FrameFields
from plantwire.domain.rule_book import RuleBook
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import AlarmEvent, AlarmKind

BASE_MS = 1_750_000_000_000


def detect_all(plan: FramePlan) -> list[AlarmEvent]:
    book, bodies, special = RuleBook(RULES), FrameBodies(), plan.templates()
    detectors = [DeviceDetector(machine_id(d), book.for_device(machine_id(d))) for d in range(plan.devices)]
    events: list[AlarmEvent] = []
    for round_number in range(plan.rounds):
        for device in range(plan.devices):
            body = bodies.body(
                plan.template(special, device, round_number),
                plan.event_time_ms(BASE_MS, device, round_number),
            )
            fields: FrameFields = FRAME_CODEC.decode_fields(body)  # type: ignore[assignment]
            events += detectors[device].take_frame(fields, fields["event_time_ms"])
    return events


@pytest.mark.parametrize(
    "template",
    [Template(3, 5), Template(199, 0, mark=True), Template(7, 2, 4, HIGH), Template(7, 2, 8, CRITICAL)],
)
@pytest.mark.parametrize("event_time_ms", [BASE_MS, 1_790_000_123_456, 1])
def test_a_spliced_body_is_what_the_codec_makes(template: Template, event_time_ms: int) -> None:
    assert FrameBodies().body(template, event_time_ms) == FRAME_CODEC.encode(
        frame_of(template, event_time_ms)
    )


@pytest.mark.parametrize(
    ("number", "encoded"), [(0, "00"), (-1, "01"), (1, "02"), (64, "8001"), (-65, "8101")]
)
def test_longs_are_encoded_as_the_avro_specification_shows(number: int, encoded: str) -> None:
    assert encode_long(number).hex() == encoded


def test_a_frame_has_ten_numbers_each_with_a_rule() -> None:
    metrics = frame_of(Template(0, 0), BASE_MS).metrics
    assert len(metrics) == METRICS_PER_FRAME == 10
    assert {metric.name for metric in metrics} == {rule.metric for rule in RULES}


def test_every_partition_has_its_marks_and_ends_with_one() -> None:
    plan = FramePlan(rounds=70, devices=8, partitions=4, marks=20)
    marks = defaultdict(list)
    for round_number in range(plan.rounds):
        for device in range(plan.devices):
            if plan.is_mark(device, round_number):
                marks[plan.partition_of(device)].append(plan.frames_done(round_number))
    assert {partition: len(found) for partition, found in marks.items()} == dict.fromkeys(range(4), 20)
    assert {found[-1] for found in marks.values()} == {plan.frames // plan.partitions}


def test_each_mark_raises_one_alarm_and_alarms_are_sparse() -> None:
    plan = FramePlan(rounds=600, devices=8, partitions=4, marks=100)
    events = detect_all(plan)
    marks = [e for e in events if e.rule_id == MARK_RULE and e.kind == AlarmKind.RAISED]
    assert len(marks) == plan.partitions * plan.marks
    others = [event for event in events if event.rule_id != MARK_RULE]
    assert 0.002 < len(others) / plan.frames < 0.03
    assert {event.kind for event in others} == {
        AlarmKind.RAISED,
        AlarmKind.SEVERITY_CHANGED,
        AlarmKind.CLEARED,
    }


def test_all_is_normal_again_when_the_frames_end() -> None:
    plan = FramePlan(rounds=600, devices=8, partitions=4, marks=100)
    latest = {event.alarm_id: event.kind for event in detect_all(plan) if event.rule_id != MARK_RULE}
    assert set(latest.values()) == {AlarmKind.CLEARED}
    last_rounds = [max(rounds) for rounds in plan.templates() if rounds]
    assert max(last_rounds) < plan.rounds - 5


def test_a_mark_is_found_again_by_its_device_and_time() -> None:
    plan = FramePlan(rounds=60, devices=200, marks=10)
    for device in (0, 57, 199):
        assert device_number(machine_id(device)) == device
        assert [
            plan.round_of(BASE_MS, device, plan.event_time_ms(BASE_MS, device, n)) for n in range(60)
        ] == list(range(60))


def test_the_same_plan_twice_gives_the_same_frames() -> None:
    plan = FramePlan(rounds=60, devices=4, marks=10)
    assert plan.templates() == FramePlan(rounds=60, devices=4, marks=10).templates()


@pytest.mark.parametrize("changes", [{"devices": 7}, {"marks": 1}, {"marks": 31}, {"rounds": 0}])
def test_a_plan_that_cannot_be_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"devices|marks|at least"):
        FramePlan(**({"rounds": 60, "devices": 8, "marks": 10} | changes))

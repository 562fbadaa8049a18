"""The order of one edge node's messages: gaps, late ones, repetitions."""

from __future__ import annotations

import pytest

from plantwire.gateway.sparkplug.outcome import Note, Outcome, RebirthReason
from plantwire.schemas.records import Metric
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from tests.unit.gateway.sparkplug.edge_node_messages import (
    NOW_MS,
    Plant,
    by_name,
    metric,
    node_birth,
    only,
    payload,
    press_birth,
    rebirths,
    temperature,
    timers,
)


def voltage(value: float, seq: int | None, at_ms: int = NOW_MS) -> bytes:
    return payload([metric(alias=1, value=value, field="float_value", at_ms=at_ms)], seq, at_ms)


def test_the_numbers_run_over_the_node_and_its_devices_and_around() -> None:
    plant = Plant().born()
    for step in range(2, 600):
        message = voltage(1.0, step % 256) if step % 2 else temperature(1.0, step % 256)
        outcome = plant.take("NDATA" if step % 2 else "DDATA", message)
        assert (len(outcome.frames), outcome.notes, outcome.effects) == (1, (), ())


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-host-reordering-param",
    "tck-id-operational-behavior-host-reordering-start",
    "tck-id-operational-behavior-host-reordering-rebirth",
)
def test_a_gap_starts_the_timer_and_its_end_asks_for_a_rebirth() -> None:
    plant = Plant(reorder_timeout_ms=500).born()
    gap = plant.take("DDATA", temperature(22.0, 4))
    # The value does not wait for the two that are missing.
    assert only(gap).metrics == (Metric("temperature", 22.0),)
    assert (gap.notes, timers(gap)) == ((Note.SEQUENCE_GAP,), [plant.mono_ms + 500])
    plant.pass_ms(499)
    early = plant.expire()
    assert (rebirths(early), timers(early)) == ([], [plant.mono_ms + 1])
    plant.pass_ms(1)
    due = plant.expire()
    assert (rebirths(due), timers(due)) == ([RebirthReason.SEQUENCE_GAP], [])
    # Meanwhile data goes on.
    assert only(plant.take("DDATA", temperature(23.0, 5)))


def test_a_second_gap_does_not_put_the_end_of_the_timer_off() -> None:
    plant = Plant().born()
    plant.take("DDATA", temperature(22.0, 4))
    plant.pass_ms(1500)
    assert timers(plant.take("DDATA", temperature(23.0, 9))) == []
    plant.pass_ms(500)
    assert rebirths(plant.expire()) == [RebirthReason.SEQUENCE_GAP]


@pytest.mark.sparkplug("tck-id-operational-behavior-host-reordering-success")
def test_missing_messages_that_come_in_time_end_the_timer() -> None:
    plant = Plant().born()
    plant.take("DDATA", temperature(24.0, 4, NOW_MS + 4))
    plant.pass_ms(1000)
    first = plant.take("NDATA", voltage(12.0, 2))
    assert (first.notes, first.effects) == ((Note.SEQUENCE_FILLED,), ())
    last = plant.take("DDATA", temperature(23.0, 3, NOW_MS + 3))
    assert (last.notes, timers(last)) == ((Note.SEQUENCE_FILLED,), [None])
    # The late value, and then the newer one again: an alarm must not hang on what is past.
    assert [(frame.event_time_ms - NOW_MS, frame.metrics) for frame in last.frames] == [
        (3, (Metric("temperature", 23.0),)),
        (4, (Metric("temperature", 24.0),)),
    ]
    plant.pass_ms(10_000)
    assert plant.expire() == Outcome()
    # The late value was not the last one.
    press = plant.take("DDEATH", payload([], 5)).frames[0]
    assert by_name(press)["temperature"].number == 24.0


def test_a_message_that_comes_after_its_timeout_is_late_too() -> None:
    plant = Plant().born()
    plant.take("DDATA", temperature(24.0, 3, NOW_MS + 3))
    plant.pass_ms(2000)
    assert rebirths(plant.expire()) == [RebirthReason.SEQUENCE_GAP]
    # What is missing is given up: another gap can close.
    plant.take("NDATA", voltage(1.0, 5))
    assert timers(plant.take("NDATA", voltage(1.0, 4))) == [None]
    late = plant.take("DDATA", temperature(23.0, 2, NOW_MS + 2))
    assert late.notes == (Note.SEQUENCE_GAP,)
    assert [frame.metrics[0].number for frame in late.frames] == [23.0, 24.0]


def test_newer_texts_are_not_told_again() -> None:
    plant = Plant().born()

    def mode(text: str, seq: int) -> bytes:
        at_ms = NOW_MS + seq
        return payload([metric(alias=3, value=text, field="string_value", at_ms=at_ms)], seq, at_ms)

    plant.take("DDATA", mode("manual", 3))
    assert only(plant.take("DDATA", mode("stopped", 2))).metrics == (Metric("mode", None, "stopped"),)
    stale = plant.take("DDEATH", payload([], 4)).frames[0]
    assert by_name(stale)["mode"].text == "manual"


def test_only_a_message_that_was_missing_is_followed_by_newer_values() -> None:
    plant = Plant().born()
    plant.take("DDATA", temperature(24.0, 2, NOW_MS + 4))
    # In order, with a clock that went back: that is the sender's newest.
    assert only(plant.take("DDATA", temperature(23.0, 3, NOW_MS + 3))).metrics == (
        Metric("temperature", 23.0),
    )
    plant.take("NDATA", voltage(1.0, 5))
    mode = payload([metric(alias=3, value="manual", field="string_value", at_ms=NOW_MS + 9)], 4)
    assert only(plant.take("DDATA", mode)).metrics == (Metric("mode", None, "manual"),)


def test_the_same_message_again_is_not_forwarded_again() -> None:
    plant = Plant().born()
    message = temperature(22.0, 2)
    assert only(plant.take("DDATA", message))
    assert plant.take("DDATA", message) == Outcome(notes=(Note.SEQUENCE_REPEATED,))
    # Another message with the same number is no repetition.
    other = plant.take("DDATA", temperature(23.0, 2))
    assert (len(other.frames), other.notes) == (1, (Note.SEQUENCE_GAP,))
    # Nor is one without a number, which may well say the same twice.
    for _ in range(2):
        assert only(plant.take("DDATA", temperature(24.0, None)))


def test_a_late_message_again_is_not_forwarded_again() -> None:
    plant = Plant().born()
    plant.take("NDATA", voltage(1.0, 3))
    assert plant.take("DDATA", temperature(22.0, 2)).frames
    assert plant.take("DDATA", temperature(22.0, 2)) == Outcome(notes=(Note.SEQUENCE_REPEATED,))


def test_messages_without_a_number_are_taken() -> None:
    plant = Plant().born()
    for seq in (None, 256, 2**64 - 1):
        outcome = plant.take("DDATA", temperature(22.0, seq))
        assert (only(outcome).sequence, outcome.notes) == (None, (Note.SEQUENCE_MISSING,))
    assert not plant.take("DDATA", temperature(22.0, 2)).notes


def test_a_rebirth_ends_the_timer_and_begins_the_order_anew() -> None:
    plant = Plant().born()
    plant.take("DDATA", temperature(22.0, 9))
    plant.pass_ms(10)
    outcome = plant.take("NBIRTH", node_birth(metric("voltage", pb.Float, 12.5, alias=1)))
    assert timers(outcome) == [plant.mono_ms + 2000]  # for the birth of the device
    assert timers(plant.take("DBIRTH", press_birth())) == [None]
    assert not plant.take("DDATA", temperature(22.0, 2)).notes

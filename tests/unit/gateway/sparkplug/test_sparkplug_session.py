"""One edge node's session: births, deaths, rebirth requests."""

from __future__ import annotations

import pytest

from plantwire.gateway.rejected import Reason
from plantwire.gateway.sparkplug.outcome import Note, Outcome, RebirthReason
from plantwire.schemas.records import QUALITY_GOOD, QUALITY_STALE, Metric
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from tests.unit.gateway.sparkplug.edge_node_messages import (
    NODE,
    NODE_ID,
    NOW_MS,
    PRESS_ID,
    Plant,
    bdseq,
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


def death(bd: int | None, at_ms: int | None = None) -> bytes:
    return payload([bdseq(bd)] if bd is not None else [metric("other", pb.Int64, 1)], None, at_ms)


def refused(outcome: Outcome) -> list[Reason]:
    return [rejected.reason for rejected in outcome.rejected]


# Deaths


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-offline",
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-tags-stale",
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-offline",
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-tags-stale",
)
def test_an_ndeath_makes_the_node_and_its_devices_stale_as_of_its_receipt() -> None:
    plant = Plant().born()
    plant.take("DDATA", temperature(21.5, 2))
    plant.pass_ms(5000)
    # The time in a will is that of the connect, long ago.
    outcome = plant.take("NDEATH", death(0, NOW_MS - 3_600_000))
    assert outcome.notes == (Note.EDGE_NODE_DIED,)
    node, press = outcome.frames
    assert (node.device_id, node.event_time_ms, node.historical) == (NODE_ID, NOW_MS + 5000, False)
    assert node.metrics == (
        Metric("bdSeq", 0.0, None, QUALITY_STALE),
        Metric("voltage", 12.5, None, QUALITY_STALE),
    )
    assert (press.device_id, press.event_time_ms) == (PRESS_ID, NOW_MS + 5000)
    assert press.metrics == (
        Metric("temperature", 21.5, None, QUALITY_STALE),
        Metric("mode", None, "auto", QUALITY_STALE),
    )
    assert not plant.nodes.is_born(NODE)
    for kind in ("NDATA", "DDATA", "DBIRTH", "DDEATH"):
        assert refused(plant.take(kind, temperature(1.0, 3))) == [Reason.NOT_BORN]
    # The second of two deaths (published, then the will) says nothing new.
    assert plant.take("NDEATH", death(0)).notes == (Note.DEATH_IGNORED,)


@pytest.mark.sparkplug(
    "tck-id-payloads-ndeath-bdseq",
    "tck-id-message-flow-edge-node-birth-publish-will-message-payload-bdSeq",
    "tck-id-topics-nbirth-bdseq-matching",
)
def test_a_late_ndeath_of_an_earlier_session_is_ignored() -> None:
    plant = Plant().born()
    plant.take("NBIRTH", node_birth(metric("voltage", pb.Float, 12.5, alias=1), bd=1))
    assert plant.take("NDEATH", death(0)) == Outcome(notes=(Note.DEATH_IGNORED,))
    assert only(plant.take("NDATA", voltage(13.0, 1))).metrics[0].quality == QUALITY_GOOD
    assert Note.EDGE_NODE_DIED in plant.take("NDEATH", death(1)).notes


def test_the_bdseq_may_have_any_integer_field() -> None:
    plant = Plant().born()
    old = payload([metric("bdSeq", pb.UInt8, 0)])
    assert plant.take("NDEATH", old).notes == (Note.EDGE_NODE_DIED,)


def test_an_ndeath_without_bdseq_ends_only_a_session_without_one() -> None:
    plant = Plant().born()
    outcome = plant.take("NDEATH", death(None))
    assert (refused(outcome), rebirths(outcome)) == ([Reason.BAD_SHAPE], [RebirthReason.MALFORMED])
    assert not outcome.frames
    birth = plant.take("NBIRTH", node_birth(metric("voltage", pb.Float, 12.5), bd=None))
    assert Note.BDSEQ_MISSING in birth.notes
    assert Note.EDGE_NODE_DIED in plant.take("NDEATH", death(None)).notes


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-offline",
    "tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-tags-stale",
)
def test_a_ddeath_makes_the_device_stale_as_of_its_payloads_time() -> None:
    plant = Plant().born()
    plant.take("DDATA", temperature(21.5, 2, NOW_MS + 1000))
    plant.pass_ms(5000)
    outcome = plant.take("DDEATH", payload([], 3, NOW_MS + 3000))
    (frame,) = outcome.frames
    assert (frame.device_id, frame.event_time_ms) == (PRESS_ID, NOW_MS + 3000)
    assert {m.quality for m in frame.metrics} == {QUALITY_STALE}
    assert outcome.notes == (Note.DEVICE_DIED,)
    # The node lives on; the device comes back with its next birth only.
    assert only(plant.take("NDATA", voltage(13.0, 4))).metrics == (Metric("voltage", 13.0),)
    assert refused(plant.take("DDATA", temperature(1.0, 5))) == [Reason.NOT_BORN]
    assert plant.take("DDEATH", payload([], 6)).notes == (Note.DEATH_IGNORED,)
    (frame,) = plant.take("DBIRTH", press_birth(7, NOW_MS + 2900)).frames
    assert by_name(frame)["temperature"].quality == QUALITY_GOOD
    assert frame.event_time_ms == NOW_MS + 3001  # after the death, whatever the birth says


def test_a_ddeath_without_a_usable_time_is_as_of_its_receipt() -> None:
    for at_ms in (None, 0, NOW_MS + 86_400_000, 2**64 - 1):
        plant = Plant().born()
        plant.pass_ms(2000)
        assert plant.take("DDEATH", payload([], 2, at_ms)).frames[0].event_time_ms == NOW_MS + 2000


def test_a_birth_after_a_death_is_told_as_later_even_when_the_nodes_clock_is_behind() -> None:
    plant = Plant().born()
    plant.pass_ms(100)
    plant.take("NDEATH", death(0))
    birth = node_birth(metric("voltage", pb.Float, 13.0, alias=1, at_ms=NOW_MS + 50), bd=1, at_ms=NOW_MS + 50)
    frame = only(plant.take("NBIRTH", birth))
    assert frame.event_time_ms == NOW_MS + 101
    assert by_name(frame)["voltage"] == Metric("voltage", 13.0)
    frame = plant.take("DBIRTH", press_birth(1, NOW_MS + 60)).frames[0]
    assert frame.event_time_ms == NOW_MS + 101


def test_a_value_ahead_of_the_host_goes_stale_at_its_own_time() -> None:
    plant = Plant().born()
    plant.take("DDATA", temperature(21.5, 2, NOW_MS + 20_000))
    press = plant.take("NDEATH", death(0)).frames[1]
    assert press.event_time_ms == NOW_MS
    assert by_name(press)["temperature"].event_time_ms == NOW_MS + 20_000
    assert by_name(press)["mode"].event_time_ms is None


def test_a_long_text_goes_stale_without_its_value() -> None:
    plant = Plant()
    plant.take("NBIRTH", node_birth(metric("log", pb.String, "x" * 2000)))
    assert by_name(plant.take("NDEATH", death(0)).frames[0])["log"] == Metric(
        "log", None, None, QUALITY_STALE
    )


# Births


@pytest.mark.sparkplug("tck-id-topics-nbirth-seq-num", "tck-id-payloads-sequence-num-zero-nbirth")
@pytest.mark.parametrize("seq", [0, 17, 255])
def test_data_follows_the_births_number(seq: int) -> None:
    plant = Plant()
    assert plant.take("NBIRTH", node_birth(seq=seq)).notes == (Note.EDGE_NODE_BORN,)
    assert not plant.take(
        "NDATA", payload([metric("bdSeq", value=0, field="long_value")], (seq + 1) % 256)
    ).notes


@pytest.mark.parametrize("seq", [None, 256])
def test_a_birth_without_a_number_begins_at_0(seq: int | None) -> None:
    plant = Plant()
    assert Note.SEQUENCE_MISSING in plant.take("NBIRTH", node_birth(seq=seq)).notes
    assert not plant.take("NDATA", payload([], 1)).notes


def test_devices_that_a_rebirth_does_not_bring_back_go_stale() -> None:
    plant = Plant().born()
    plant.take("DBIRTH", payload([metric("rpm", pb.Double, 9.0)], 2), device="mixer")
    plant.pass_ms(1000)
    outcome = plant.take("NBIRTH", node_birth(metric("voltage", pb.Float, 12.5, alias=1)))
    # Within one session nothing is stale yet: the devices' births must follow at once.
    assert [frame.device_id for frame in outcome.frames] == [NODE_ID]
    assert timers(outcome) == [plant.mono_ms + 2000]
    assert plant.take("DBIRTH", press_birth(1, NOW_MS + 1000)).notes == (Note.DEVICE_BORN,)
    plant.pass_ms(2000)
    outcome = plant.expire()
    assert outcome.notes == (Note.DEVICE_DIED,)
    assert [(frame.device_id, by_name(frame)) for frame in outcome.frames] == [
        (f"{NODE_ID}:mixer", {"rpm": Metric("rpm", 9.0, None, QUALITY_STALE)})
    ]
    assert outcome.frames[0].event_time_ms == NOW_MS + 3000
    assert only(plant.take("DDATA", temperature(22.0, 2))).device_id == PRESS_ID


def test_another_session_makes_the_devices_of_the_one_before_stale_at_once() -> None:
    plant = Plant().born()
    outcome = plant.take("NBIRTH", node_birth(metric("voltage", pb.Float, 12.5, alias=1), bd=1))
    assert [frame.device_id for frame in outcome.frames] == [PRESS_ID, NODE_ID]
    assert timers(outcome) == []
    assert refused(plant.take("DDATA", temperature(1.0, 1))) == [Reason.NOT_BORN]


def test_metrics_that_a_rebirth_leaves_out_go_stale_and_are_unknown() -> None:
    plant = Plant().born()
    birth = payload([metric("temperature", pb.Double, 30.0, alias=9)], 2)
    outcome = plant.take("DBIRTH", birth)
    assert outcome.frames[0].metrics == (Metric("mode", None, "auto", QUALITY_STALE),)
    assert outcome.frames[1].metrics == (Metric("temperature", 30.0),)
    assert refused(plant.take("DDATA", temperature(1.0, 3))) == [Reason.UNKNOWN_METRIC]
    data = payload([metric(alias=9, value=31.0, field="double_value")], 4)
    assert only(plant.take("DDATA", data)).metrics == (Metric("temperature", 31.0),)


# Rebirth requests


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("NDATA", voltage(1.0, 5)),
        ("DDATA", temperature(1.0, 5)),
        ("DBIRTH", press_birth(5)),
        ("DDEATH", payload([], 5)),
    ],
)
def test_anything_before_the_nodes_birth_asks_for_it(kind: str, message: bytes) -> None:
    outcome = Plant().take(kind, message)
    assert (outcome.frames, refused(outcome)) == ((), [Reason.NOT_BORN])
    assert rebirths(outcome) == [RebirthReason.BEFORE_BIRTH]


@pytest.mark.parametrize("kind", ["DDATA", "DDEATH"])
def test_a_device_not_born_asks_for_it(kind: str) -> None:
    plant = Plant().born()
    outcome = plant.take(kind, payload([], 2), device="mixer")
    assert (refused(outcome), rebirths(outcome)) == ([Reason.NOT_BORN], [RebirthReason.BEFORE_BIRTH])
    # Its number counts all the same.
    assert not plant.take("NDATA", voltage(1.0, 3)).notes


@pytest.mark.parametrize("kind", ["NDATA", "DDATA", "NDEATH", "DDEATH"])
def test_a_malformed_payload_asks_for_a_rebirth_and_ends_nothing(kind: str) -> None:
    plant = Plant().born()
    outcome = plant.take(kind, b"\xff\xff\xff")
    assert (refused(outcome), rebirths(outcome)) == ([Reason.NOT_PROTOBUF], [RebirthReason.MALFORMED])
    assert not outcome.frames
    assert only(plant.take("DDATA", temperature(22.0, 2)))


def test_after_a_birth_that_cannot_be_read_the_one_before_means_nothing() -> None:
    plant = Plant().born()
    outcome = plant.take("DBIRTH", b"\xff\xff\xff")
    assert [frame.device_id for frame in outcome.frames] == [PRESS_ID]
    assert refused(plant.take("DDATA", temperature(22.0, 2))) == [Reason.NOT_BORN]
    outcome = plant.take("NBIRTH", b"\xff\xff\xff")
    assert [frame.device_id for frame in outcome.frames] == [NODE_ID]
    assert refused(plant.take("NDATA", voltage(22.0, 2))) == [Reason.NOT_BORN]


def test_rebirth_requests_are_limited_and_a_deferred_one_comes_in_time() -> None:
    plant = Plant(rebirth_first_ms=5000)
    assert rebirths(plant.take("NDATA", voltage(1.0, 5))) == [RebirthReason.BEFORE_BIRTH]
    plant.pass_ms(1000)
    second = plant.take("NDATA", voltage(1.0, 6))
    assert (rebirths(second), second.notes) == ([], (Note.REBIRTH_DEFERRED,))
    assert timers(second) == [plant.mono_ms + 4000]
    assert plant.take("NDATA", voltage(1.0, 7)).effects == ()
    plant.pass_ms(4000)
    assert rebirths(plant.expire()) == [RebirthReason.BEFORE_BIRTH]
    # The birth answers it.
    birth = plant.take("NBIRTH", node_birth(metric("voltage", pb.Float, 12.5, alias=1)))
    assert birth.effects == ()
    plant.pass_ms(60_000)
    assert plant.expire() == Outcome()


def test_a_birth_withdraws_what_was_asked() -> None:
    plant = Plant(rebirth_first_ms=5000).born()
    for seq in (2, 3):
        plant.take("DDATA", payload([metric(alias=77, value=1, field="int_value")], seq))
    assert timers(plant.take("NBIRTH", node_birth(metric("voltage", pb.Float, 12.5, alias=1), bd=1))) == [
        None
    ]
    plant.pass_ms(60_000)
    assert plant.expire() == Outcome()
    assert plant.take("NDATA", voltage(1.0, 1)).effects == ()


def test_a_request_that_is_not_answered_is_made_again_while_the_node_talks() -> None:
    plant = Plant(rebirth_first_ms=5000).born()
    asked = rebirths(plant.take("DDATA", payload([metric(alias=77, value=1, field="int_value")], 2)))
    seq = 2
    for _ in range(100):
        plant.pass_ms(1000)
        seq += 1
        asked += rebirths(plant.take("DDATA", temperature(22.0, seq)))
        asked += rebirths(plant.expire())
    assert asked == [RebirthReason.UNKNOWN_METRIC] * 5  # at 0, 5, 15, 35 and 75 s


def test_a_death_withdraws_what_was_asked() -> None:
    plant = Plant().born()
    plant.take("DDATA", temperature(22.0, 9))
    assert timers(plant.take("NDEATH", death(0))) == [None]
    plant.pass_ms(60_000)
    assert plant.expire() == Outcome()

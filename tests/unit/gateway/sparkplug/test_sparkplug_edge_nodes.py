"""All edge nodes together: bounds, silence, the broker's loss."""

from __future__ import annotations

from plantwire.gateway.rejected import Reason
from plantwire.gateway.sparkplug.edge_nodes import Census, MetricView
from plantwire.gateway.sparkplug.outcome import (
    EdgeNodeId,
    Note,
    Outcome,
    RebirthReason,
    RequestRebirth,
    SetTimer,
)
from plantwire.schemas.records import QUALITY_STALE
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from tests.unit.gateway.sparkplug.edge_node_messages import (
    NODE,
    NOW_MS,
    Plant,
    bdseq,
    metric,
    node_birth,
    only,
    payload,
    press_birth,
    rebirths,
    temperature,
    timers,
)


def refused(outcome: Outcome) -> list[Reason]:
    return [rejected.reason for rejected in outcome.rejected]


def node(number: int) -> EdgeNodeId:
    return EdgeNodeId("g", f"n{number}")


def birth(metrics: int = 1) -> bytes:
    return node_birth(*(metric(f"m{i}", pb.Double, 1.0, alias=i) for i in range(metrics)), bd=None)


# What is none of an edge node's


def test_commands_states_and_foreign_topics_do_nothing() -> None:
    plant = Plant().born()
    assert plant.take("NCMD", b"anything") == Outcome(notes=(Note.COMMAND_SEEN,))
    assert plant.take("DCMD", b"") == Outcome(notes=(Note.COMMAND_SEEN,))
    assert plant.nodes.take("spBv1.0/STATE/other", b"{}", 0, 0) == Outcome(notes=(Note.STATE_SEEN,))
    outcome = plant.nodes.take("spBv1.0/g/NSTUFF/n", b"", 0, 0)
    assert (refused(outcome), outcome.effects) == ([Reason.INVALID_TOPIC], ())


def test_an_empty_message_is_no_message() -> None:
    plant = Plant().born()
    for kind in ("NBIRTH", "NDEATH", "DBIRTH", "DDATA"):
        outcome = plant.take(kind, b"")
        assert (refused(outcome), outcome.frames, outcome.effects) == ([Reason.NOT_PROTOBUF], (), ())
    assert only(plant.take("DDATA", temperature(22.0, 2)))


def test_a_death_of_a_node_never_heard_of_is_not_remembered() -> None:
    plant = Plant()
    assert plant.take("NDEATH", payload([bdseq(0)])) == Outcome(notes=(Note.DEATH_IGNORED,))
    assert refused(plant.take("NDEATH", b"\xff\xff")) == [Reason.NOT_PROTOBUF]
    assert plant.nodes.census() == Census(0, 0, 0, 0)


def test_names_too_long_for_a_device_id() -> None:
    long = EdgeNodeId("g" * 100, "n" * 40)
    outcome = Plant().take("NBIRTH", birth(), long)
    assert (refused(outcome), outcome.effects) == ([Reason.INVALID_DEVICE_ID], ())
    plant = Plant().born()
    # Another birth would not help, so none is asked for.
    for seq, kind in enumerate(("DBIRTH", "DDATA", "DDEATH"), 2):
        outcome = plant.take(kind, press_birth(seq), device="d" * 120)
        assert (refused(outcome), outcome.effects) == ([Reason.INVALID_DEVICE_ID], ())


# Bounds


def test_payloads_and_messages_are_bounded() -> None:
    plant = Plant(payload_bytes_max=2000, metrics_per_device_max=20).born()
    large = payload([metric(alias=3, value="x" * 3000, field="string_value")], 2)
    assert refused(plant.take("DDATA", large)) == [Reason.BODY_TOO_LARGE]
    many = payload([metric(alias=2, is_null=True, at_ms=None)] * 21, 3)
    outcome = plant.take("DDATA", many)
    assert (refused(outcome), outcome.effects) == ([Reason.TOO_MANY_METRICS], ())
    assert only(plant.take("DDATA", payload([metric(alias=2, is_null=True)], 4)))


def test_devices_of_a_node_are_bounded() -> None:
    plant = Plant(devices_per_node_max=2).born()
    assert not plant.take("DBIRTH", payload([], 2), device="mixer").rejected
    outcome = plant.take("DBIRTH", payload([], 3), device="pump")
    assert refused(outcome) == [Reason.TOO_MANY_DEVICES]
    outcome = plant.take("DDATA", payload([], 4), device="pump")
    assert (refused(outcome), outcome.effects) == ([Reason.TOO_MANY_DEVICES], ())
    assert not plant.take("DBIRTH", press_birth(5)).rejected
    plant.take("DDEATH", payload([], 6))
    assert not plant.take("DBIRTH", payload([], 7), device="pump").rejected


def test_metrics_of_all_nodes_are_bounded_and_room_comes_back() -> None:
    plant = Plant(metrics_max=10)
    assert not plant.take("NBIRTH", birth(6), node(1)).rejected
    outcome = plant.take("NBIRTH", birth(6), node(2))
    assert (refused(outcome), outcome.effects) == ([Reason.TOO_MANY_METRICS], ())
    assert not plant.take("NBIRTH", birth(10), node(1)).rejected  # instead of its six
    assert plant.nodes.census().metrics == 10
    assert refused(plant.take("NBIRTH", birth(11), node(1))) == [Reason.TOO_MANY_METRICS]
    assert plant.nodes.census() == Census(2, 0, 0, 0)
    assert not plant.take("NBIRTH", birth(6), node(2)).rejected


def test_nodes_are_bounded_and_those_not_born_give_way() -> None:
    plant = Plant(edge_nodes_max=3)
    plant.take("NBIRTH", birth(), node(1))
    for number in range(2, 100):
        assert refused(plant.take("NDATA", payload([], 1), node(number))) == [Reason.NOT_BORN]
    assert plant.nodes.census().edge_nodes == 3
    assert plant.nodes.is_born(node(1))
    for number in (200, 201):
        assert not plant.take("NBIRTH", birth(), node(number)).rejected
    assert refused(plant.take("NBIRTH", birth(), node(202))) == [Reason.TOO_MANY_DEVICES]
    plant.take("NDEATH", payload([metric("x", pb.Int8, 1)]), node(201))
    assert not plant.take("NBIRTH", birth(), node(202)).rejected
    assert not plant.nodes.is_born(node(201))
    assert plant.expire(node(99)) == Outcome()  # long forgotten


def test_a_silent_node_is_asked_and_then_forgotten() -> None:
    plant = Plant(silent_forget_ms=3_600_000).born()
    plant.take("NDATA", payload([], 1), node(1))

    def forget() -> list[Outcome]:
        return list(plant.nodes.forget_silent(plant.wall_ms * 1000, plant.mono_ms))

    plant.pass_ms(3_599_999)
    assert forget() == []
    plant.pass_ms(1)
    (asked, _) = forget()
    assert rebirths(asked) == [RebirthReason.SILENT]
    assert plant.nodes.census().edge_nodes == 1  # the one never born is gone at once
    plant.pass_ms(59_999)
    assert forget() == []
    plant.take("DDATA", temperature(22.0, 2))  # it lives
    plant.pass_ms(60_000)
    assert forget() == []
    plant.pass_ms(3_600_000)
    assert rebirths(forget()[0]) == [RebirthReason.SILENT]
    plant.pass_ms(60_000)
    (gone,) = forget()
    assert {m.quality for frame in gone.frames for m in frame.metrics} == {QUALITY_STALE}
    assert plant.nodes.census() == Census(0, 0, 0, 0)


# The broker


def test_when_the_broker_is_lost_everything_is_stale_and_all_are_asked_once_it_is_back() -> None:
    plant = Plant().born()
    plant.take("DDATA", temperature(22.0, 9))  # a timer runs
    plant.take("NBIRTH", birth(), node(1))
    plant.take("NDATA", payload([], 1), node(2))
    plant.pass_ms(1000)
    outcomes = list(plant.nodes.lose_broker(plant.wall_ms * 1000, plant.mono_ms))
    frames = [frame for outcome in outcomes for frame in outcome.frames]
    assert {m.quality for frame in frames for m in frame.metrics} == {QUALITY_STALE}
    assert {frame.event_time_ms for frame in frames} == {NOW_MS + 1000}
    assert len({frame.device_id for frame in frames}) == 3
    assert [at_ms for outcome in outcomes for at_ms in timers(outcome)] == [None]
    assert plant.nodes.census() == Census(3, 0, 0, 0)
    asked = [ask for outcome in plant.nodes.regain_broker(plant.mono_ms) for ask in outcome.effects]
    ready = [effect.edge_node for effect in asked if isinstance(effect, RequestRebirth)]
    later = [effect.edge_node for effect in asked if isinstance(effect, SetTimer)]
    # The one that was asked a second ago has to wait.
    assert (sorted(ready), later) == (sorted([NODE, node(1)]), [node(2)])
    assert not plant.born().take("DDATA", temperature(23.0, 2)).notes


def test_what_a_birth_defined_can_be_looked_up() -> None:
    plant = Plant().born()
    lookup = plant.nodes.definition
    assert lookup(NODE, None, "voltage") == MetricView("voltage", pb.Float, 1)
    assert lookup(NODE, None, "bdSeq") == MetricView("bdSeq", pb.Int64, None)
    assert lookup(NODE, "press", "mode") == MetricView("mode", pb.String, 3)
    for edge_node, device, name in ((NODE, None, "mode"), (NODE, "mixer", "mode"), (node(1), None, "x")):
        assert lookup(edge_node, device, name) is None
    plant.take("NDEATH", payload([bdseq(0)]))
    assert lookup(NODE, None, "voltage") is None


# Whatever comes

"""Templates: their members are metrics of their own."""

from __future__ import annotations

import pytest

from plantwire.gateway.rejected import Reason
from plantwire.gateway.sparkplug.outcome import (
    Outcome,
)
from plantwire.schemas.records import QUALITY_BAD, QUALITY_STALE, Metric
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from tests.unit.gateway.sparkplug.edge_node_messages import (
    NOW_MS,
    Plant,
    metric,
    node_birth,
    only,
    payload,
)


def reasons(outcome: Outcome) -> list[Reason]:
    return [rejected.reason for rejected in outcome.rejected]


def only_names(outcome: Outcome) -> list[str]:
    return [metric.name for frame in outcome.frames for metric in frame.metrics]


def template(*members: pb.Payload.Metric, ref: str | None = "pump") -> pb.Payload.Template:
    return pb.Payload.Template(metrics=members, template_ref=ref, is_definition=ref is None)


@pytest.mark.sparkplug(
    "tck-id-payloads-template-definition-is-definition",
    "tck-id-payloads-template-instance-is-definition",
    "tck-id-payloads-template-instance-members-birth",
    "tck-id-payloads-template-instance-members-data",
)
def test_members_of_templates_are_metrics_of_their_own() -> None:
    plant = Plant()
    definition = template(metric("flow", pb.Double, 0.0), ref=None)
    motor = template(metric("rpm", pb.Int32, 1450), metric("on", pb.Boolean, True))
    pump = template(metric("flow", pb.Double, 1.5, alias=11), metric("motor", pb.Template, motor))
    birth = node_birth(metric("pump", pb.Template, definition), metric("p1", pb.Template, pump, alias=10))
    frame = only(plant.take("NBIRTH", birth))
    assert frame.metrics[1:] == (
        Metric("p1/flow", 1.5),
        Metric("p1/motor/rpm", 1450.0),
        Metric("p1/motor/on", 1.0),
    )

    # Data may hold some of the members, without datatypes, by name or alias.
    part = template(
        metric("motor", value=template(metric("rpm", value=900, field="int_value", at_ms=None)),
               field="template_value", at_ms=NOW_MS + 5),
        metric(alias=11, value=2.5, field="double_value", quality=0),
    )  # fmt: skip
    data = payload([metric(alias=10, value=part, field="template_value", quality=500)], 1, NOW_MS + 9)
    assert only(plant.take("NDATA", data)).metrics == (
        Metric("p1/motor/rpm", 900.0, None, QUALITY_STALE),
        Metric("p1/flow", 2.5, None, QUALITY_BAD, NOW_MS),
    )

    null = payload([metric(alias=10, is_null=True)], 2)
    assert [m.name for m in only(plant.take("NDATA", null)).metrics] == [
        "p1/flow",
        "p1/motor/rpm",
        "p1/motor/on",
    ]

    unknown = template(metric("pressure", value=1.0, field="double_value"))
    outcome = plant.take("NDATA", payload([metric(alias=10, value=unknown, field="template_value")], 3))
    assert reasons(outcome) == [Reason.UNKNOWN_METRIC]
    flags = payload([metric(alias=10, value=part, field="template_value", is_historical=True)], 4)
    assert {frame.historical for frame in plant.take("NDATA", flags).frames} == {True}
    no_instance = plant.take("NDATA", payload([metric(alias=10, value=1, field="int_value")], 5))
    assert reasons(no_instance) == [Reason.INVALID_VALUE]


def test_templates_are_bounded_in_depth_and_number() -> None:
    nested = template(metric("leaf", pb.Double, 1.0))
    for _ in range(20):
        nested = template(metric("in", pb.Template, nested), metric("side", pb.Double, 1.0))
    plant = Plant()
    outcome = plant.take("NBIRTH", node_birth(metric("t", pb.Template, nested)))
    assert reasons(outcome) == [Reason.INVALID_VALUE]
    assert len(only_names(outcome)) == 1 + 8  # bdSeq, and the sides of eight levels

    many = template(*(pb.Payload.Metric() for _ in range(6000)))
    outcome = plant.take("NBIRTH", node_birth(metric("t", pb.Template, many)))
    assert reasons(outcome) == [Reason.TOO_MANY_METRICS]

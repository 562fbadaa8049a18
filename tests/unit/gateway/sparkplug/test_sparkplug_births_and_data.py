"""Births define metrics; data refers to them; values become frames."""

from __future__ import annotations

from typing import Any

import pytest

from plantwire.gateway.rejected import Reason
from plantwire.gateway.sparkplug.outcome import (
    PROTOCOL,
    PROTOCOL_TRANSIENT,
    EdgeNodeId,
    Note,
    Outcome,
    RebirthReason,
)
from plantwire.schemas.records import QUALITY_BAD, QUALITY_GOOD, QUALITY_STALE, Metric, TelemetryFrame
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
)

STANDARD = EdgeNodeId("Sparkplug B Devices", "Raspberry Pi")
STANDARD_MS = 1_486_144_502_122


def reasons(outcome: Outcome) -> list[Reason]:
    return [rejected.reason for rejected in outcome.rejected]


def test_the_standards_example_of_a_session() -> None:
    plant = Plant()
    plant.wall_ms = STANDARD_MS + 5

    def at(name: str, datatype: int, value: Any) -> pb.Payload.Metric:
        return metric(name, datatype, value, at_ms=STANDARD_MS)

    birth = payload(
        [
            at("bdSeq", pb.Int64, 0),
            at("Node Control/Reboot", pb.Boolean, False),
            at("Node Control/Rebirth", pb.Boolean, False),
            at("Node Control/Next Server", pb.Boolean, False),
            at("Node Control/Scan Rate", pb.Int64, 3000),
            at("Properties/Hardware Make", pb.String, "Raspberry Pi"),
            at("Properties/OS Version", pb.String, "Jessie with PIXEL/11.01.2017"),
            at("Supply Voltage", pb.Float, 12.5),
        ],
        0,
        STANDARD_MS,
    )
    frame = only(plant.take("NBIRTH", birth, STANDARD))
    assert frame == TelemetryFrame(
        device_id="Sparkplug@20B@20Devices:Raspberry@20Pi",
        site="Sparkplug B Devices",
        sequence=0,
        event_time_ms=STANDARD_MS,
        received_time_ms=STANDARD_MS + 5,
        protocol=PROTOCOL,
        historical=False,
        metrics=(
            Metric("bdSeq", 0.0),
            Metric("Node Control/Reboot", 0.0),
            Metric("Node Control/Rebirth", 0.0),
            Metric("Node Control/Next Server", 0.0),
            Metric("Node Control/Scan Rate", 3000.0),
            Metric("Properties/Hardware Make", None, "Raspberry Pi"),
            Metric("Properties/OS Version", None, "Jessie with PIXEL/11.01.2017"),
            Metric("Supply Voltage", 12.5),
        ),
        gateway_in_us=(STANDARD_MS + 5) * 1000 + 7,
    )

    device = payload([at("Inputs/A", pb.Boolean, False), at("Outputs/LEDs/Green", pb.Boolean, True)], 1)
    frame = only(plant.take("DBIRTH", device, STANDARD, "Pibrella"))
    assert frame.device_id == "Sparkplug@20B@20Devices:Raspberry@20Pi:Pibrella"

    outcome = plant.take("NDATA", payload([at("Supply Voltage", pb.Float, 12.25)], 2), STANDARD)
    assert only(outcome).metrics == (Metric("Supply Voltage", 12.25),)
    outcome = plant.take("DDATA", payload([at("Inputs/A", pb.Boolean, True)], 3), STANDARD, "Pibrella")
    assert only(outcome).metrics == (Metric("Inputs/A", 1.0),)

    death = payload([at("bdSeq", pb.UInt64, 0)], None, STANDARD_MS)
    outcome = plant.take("NDEATH", death, STANDARD)
    assert {metric.quality for frame in outcome.frames for metric in frame.metrics} == {QUALITY_STALE}
    assert Note.EDGE_NODE_DIED in outcome.notes


@pytest.mark.sparkplug(
    "tck-id-payloads-alias-birth-requirement",
    "tck-id-payloads-alias-data-cmd-requirement",
    "tck-id-payloads-metric-datatype-not-req",
)
def test_data_by_alias_and_by_name_without_a_datatype() -> None:
    plant = Plant().born()
    frame = only(plant.take("NDATA", payload([metric(alias=1, value=13.5, field="float_value")], 2)))
    assert (frame.device_id, frame.site, frame.sequence) == (NODE_ID, NODE.group, 2)
    assert frame.metrics == (Metric("voltage", 13.5),)
    data = payload([metric("mode", value="manual", field="string_value")], 3)
    frame = only(plant.take("DDATA", data))
    assert (frame.device_id, frame.metrics) == (PRESS_ID, (Metric("mode", None, "manual"),))


def test_an_alias_of_a_device_is_none_of_its_node() -> None:
    plant = Plant().born()
    outcome = plant.take("NDATA", temperature(21.0, 2))
    assert (outcome.frames, reasons(outcome)) == ((), [Reason.UNKNOWN_METRIC])


def test_one_metric_is_refused_and_the_others_are_taken() -> None:
    plant = Plant().born()
    data = payload(
        [
            metric(alias=2, value="hot", field="string_value"),
            metric(alias=3, value="manual", field="string_value"),
            metric(alias=99, value=1.0, field="double_value"),
            metric(alias=98, value=1.0, field="double_value"),
            metric("unheard of", value=1.0, field="double_value"),
            metric(value=1.0, field="double_value"),
        ],
        2,
    )
    outcome = plant.take("DDATA", data)
    assert [frame.metrics for frame in outcome.frames] == [(Metric("mode", None, "manual"),)]
    assert reasons(outcome) == [Reason.INVALID_VALUE, Reason.UNKNOWN_METRIC]
    assert outcome.rejected[1].detail.endswith("So 4 times.")
    assert rebirths(outcome) == [RebirthReason.UNKNOWN_METRIC]


@pytest.mark.parametrize(
    "metrics",
    [
        [metric("a", pb.Double, 1.0, alias=7), metric("b", pb.Double, 1.0, alias=7)],
        [metric("a", pb.Double, 1.0, alias=7), metric("a", pb.Double, 1.0, alias=8)],
        [metric("a", pb.Double, 1.0), metric("a", pb.Int32, 1)],
    ],
)
@pytest.mark.sparkplug("tck-id-payloads-alias-uniqueness")
def test_a_birth_that_contradicts_itself_leaves_the_node_unborn(metrics: list[pb.Payload.Metric]) -> None:
    plant = Plant().born()
    outcome = plant.take("NBIRTH", node_birth(*metrics))
    assert reasons(outcome) == [Reason.INVALID_BIRTH]
    assert rebirths(outcome) == [RebirthReason.INVALID_BIRTH]
    # What was known before is not what later data means.
    assert {frame.device_id for frame in outcome.frames} == {NODE_ID, PRESS_ID}
    assert {metric.quality for frame in outcome.frames for metric in frame.metrics} == {QUALITY_STALE}
    assert reasons(plant.take("DDATA", temperature(21.0, 2))) == [Reason.NOT_BORN]
    assert plant.nodes.census().metrics == 0


@pytest.mark.sparkplug("tck-id-payloads-alias-uniqueness")
def test_a_device_cannot_have_an_alias_of_its_node_or_of_another_device() -> None:
    plant = Plant().born()
    for alias in (1, 2):
        birth = payload([metric("x", pb.Double, 1.0, alias=alias)], 2)
        outcome = plant.take("DBIRTH", birth, device="mixer")
        assert reasons(outcome) == [Reason.INVALID_BIRTH]
    plant.pass_ms(60_000)
    # Its own it may have again, and one that another device no longer uses.
    assert not plant.take("DBIRTH", press_birth(3)).rejected
    plant.take("DDEATH", payload([], 4))
    birth = payload([metric("x", pb.Double, 1.0, alias=2)], 5)
    assert not plant.take("DBIRTH", birth, device="mixer").rejected


def test_what_a_birth_gives_wrongly_is_refused_without_asking_again_and_again() -> None:
    plant = Plant()
    outcome = plant.take(
        "NBIRTH",
        node_birth(
            metric("good", pb.Double, 1.0, alias=1),
            metric("no datatype", 0, 1.0, field="double_value", alias=2),
            metric("a property set", pb.PropertySet, alias=3),
            metric("tab\there", pb.Double, 1.0, alias=4),
            metric("", pb.Double, 1.0, alias=5),
            metric("", pb.Double, 1.0),
            metric("n" * 300, pb.Double, 1.0, alias=6),
        ),
    )
    assert [name for frame in outcome.frames for name in by_name(frame)] == ["bdSeq", "good"]
    assert set(reasons(outcome)) == {Reason.INVALID_VALUE, Reason.INVALID_METRIC_NAME}
    for alias in range(2, 7):
        data = payload([metric(alias=alias, value=1.0, field="double_value")], alias - 1)
        outcome = plant.take("NDATA", data)
        assert outcome.rejected[0].reason in (Reason.INVALID_VALUE, Reason.INVALID_METRIC_NAME)
        assert not outcome.effects


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-data-publish-nbirth-values",
    "tck-id-operational-behavior-data-publish-dbirth-values",
)
def test_null_in_a_birth_and_in_data() -> None:
    plant = Plant()
    birth = node_birth(metric("a", pb.Double, alias=1, is_null=True))
    assert by_name(only(plant.take("NBIRTH", birth)))["a"] == Metric("a")
    plant.take("NDATA", payload([metric(alias=1, value=2.0, field="double_value")], 1))
    frame = only(plant.take("NDATA", payload([metric(alias=1, is_null=True)], 2)))
    assert frame.metrics == (Metric("a"),)
    # Null is null, even with a value beside it.
    both = metric(alias=1, value=2.0, field="double_value", is_null=True)
    assert only(plant.take("NDATA", payload([both], 3))).metrics == (Metric("a"),)


def test_a_births_values_are_of_the_time_of_the_birth() -> None:
    plant = Plant()
    birth = node_birth(
        metric("old", pb.Double, 1.0, at_ms=NOW_MS - 3_600_000),
        metric("twice", pb.Double, 1.0, at_ms=NOW_MS - 500),
        metric("twice", pb.Double, 2.0, at_ms=NOW_MS - 400),
        metric("past", pb.Double, 3.0, at_ms=NOW_MS - 9_000, is_historical=True),
    )
    frames = plant.take("NBIRTH", birth).frames
    assert [(frame.historical, frame.event_time_ms) for frame in frames] == [
        (True, NOW_MS - 9_000),
        (False, NOW_MS),
        (False, NOW_MS),
    ]
    assert frames[1].metrics == (
        Metric("twice", 1.0, event_time_ms=NOW_MS - 500),
        Metric("bdSeq", 0.0),
        Metric("old", 1.0),
    )
    assert frames[2].metrics == (Metric("twice", 2.0),)


def test_times_of_metrics_payload_and_receipt() -> None:
    plant = Plant()
    plant.take("NBIRTH", node_birth(*(metric(n, pb.Double, 0.0, alias=i) for i, n in enumerate("abc"))))
    plant.pass_ms(1000)

    def value(alias: int, at_ms: int | None) -> pb.Payload.Metric:
        return metric(alias=alias, value=1.0, field="double_value", at_ms=at_ms)

    # The frame is of the time of its newest value; only others carry their own.
    frame = only(plant.take("NDATA", payload([value(0, NOW_MS + 5), value(1, NOW_MS + 9)], 1, NOW_MS + 20)))
    assert frame.event_time_ms == NOW_MS + 9
    assert frame.metrics == (Metric("a", 1.0, event_time_ms=NOW_MS + 5), Metric("b", 1.0))
    # Without one of its own a value is of the payload's time, or of when it was received.
    frame = only(plant.take("NDATA", payload([value(0, None)], 2, NOW_MS + 30)))
    assert frame.event_time_ms == NOW_MS + 30
    frame = only(plant.take("NDATA", payload([value(0, None), value(1, 0)], 3, None)))
    assert frame.event_time_ms == NOW_MS + 1000
    assert [metric.event_time_ms for metric in frame.metrics] == [None, None]


@pytest.mark.parametrize(
    ("at_ms", "reason"),
    [
        (NOW_MS + 60_001, Reason.TIMESTAMP_AHEAD),
        (2**53 + 1, Reason.TIMESTAMP_OUT_OF_RANGE),
        (2**64 - 1, Reason.TIMESTAMP_OUT_OF_RANGE),
    ],
)
def test_times_too_far_ahead_are_refused(at_ms: int, reason: Reason) -> None:
    plant = Plant().born()
    mode = metric(alias=3, value="manual", field="string_value")
    data = payload([metric(alias=2, value=1.0, field="double_value", at_ms=at_ms), mode], 2)
    outcome = plant.take("DDATA", data)
    assert (reasons(outcome), len(outcome.frames[0].metrics)) == ([reason], 1)
    # The payload's time counts for metrics that have none, in births too.
    bare = metric("temperature", pb.Double, 1.0, alias=2, at_ms=None)
    outcome = plant.take("DBIRTH", payload([bare, metric("mode", pb.String, "a", alias=3)], 3, at_ms))
    assert reasons(outcome) == [reason]
    assert by_name(outcome.frames[0])["mode"].text == "a"
    assert outcome.frames[0].event_time_ms == NOW_MS


def test_a_time_just_within_the_bound_is_taken() -> None:
    plant = Plant().born()
    assert only(plant.take("DDATA", temperature(1.0, 2, NOW_MS + 60_000))).event_time_ms == NOW_MS + 60_000


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-data-publish-nbirth-order",
    "tck-id-operational-behavior-data-publish-dbirth-order",
)
def test_several_samples_of_one_metric_become_frames_in_order_of_time() -> None:
    plant = Plant().born()

    def sample(value: float, ms: int) -> pb.Payload.Metric:
        return metric(alias=2, value=value, field="double_value", at_ms=NOW_MS + ms)

    data = payload(
        [sample(1.0, 10), metric(alias=3, value="m", field="string_value"), sample(3.0, 30), sample(2.0, 20)],
        2,
        NOW_MS + 40,
    )
    frames = plant.take("DDATA", data).frames
    assert [(frame.event_time_ms - NOW_MS, by_name(frame).get("temperature")) for frame in frames] == [
        (10, Metric("temperature", 1.0)),
        (20, Metric("temperature", 2.0)),
        (30, Metric("temperature", 3.0)),
    ]
    assert by_name(frames[0])["mode"] == Metric("mode", None, "m", event_time_ms=NOW_MS)


def test_historical_values_are_grouped_by_their_time_and_are_not_the_last_ones() -> None:
    plant = Plant().born()

    def past(alias: int, value: Any, field: str, seconds: int) -> pb.Payload.Metric:
        at_ms = NOW_MS - 1000 * seconds
        return metric(alias=alias, value=value, field=field, at_ms=at_ms, is_historical=True)

    data = payload(
        [
            past(2, 1.0, "double_value", 10),
            past(3, "stopped", "string_value", 10),
            past(2, 2.0, "double_value", 20),
            metric(alias=3, value="manual", field="string_value"),
        ],
        2,
    )
    frames = plant.take("DDATA", data).frames
    assert [(frame.historical, frame.event_time_ms - NOW_MS, frame.metrics) for frame in frames] == [
        (True, -20_000, (Metric("temperature", 2.0),)),
        (True, -10_000, (Metric("temperature", 1.0), Metric("mode", None, "stopped"))),
        (False, 0, (Metric("mode", None, "manual"),)),
    ]
    stale = plant.take("DDEATH", payload([], 3)).frames[0]
    assert by_name(stale)["temperature"].number == 20.0


def test_transient_values_travel_in_frames_of_their_own() -> None:
    plant = Plant().born()
    data = payload(
        [
            metric(alias=2, value=1.0, field="double_value", is_transient=True),
            metric(alias=3, value="manual", field="string_value"),
        ],
        2,
    )
    frames = plant.take("DDATA", data).frames
    assert [(frame.protocol, frame.metrics) for frame in frames] == [
        (PROTOCOL, (Metric("mode", None, "manual"),)),
        (PROTOCOL_TRANSIENT, (Metric("temperature", 1.0),)),
    ]
    stale = plant.take("DDEATH", payload([], 3)).frames
    assert [(frame.protocol, list(by_name(frame))) for frame in stale] == [
        (PROTOCOL, ["mode"]),
        (PROTOCOL_TRANSIENT, ["temperature"]),
    ]


def test_quality_and_what_cannot_be_carried() -> None:
    plant = Plant().born()
    data = payload(
        [
            metric(alias=2, value=float("nan"), field="double_value"),
            metric(alias=3, value="manual", field="string_value", quality=500),
        ],
        2,
    )
    outcome = plant.take("DDATA", data)
    assert outcome.frames[0].metrics == (
        Metric("temperature", None, None, QUALITY_BAD),
        Metric("mode", None, "manual", QUALITY_STALE),
    )
    assert outcome.notes == (Note.VALUE_NOT_FINITE,)
    assert not outcome.rejected
    doubted = metric(alias=2, value=21.0, field="double_value", quality=0)
    frame = only(plant.take("DDATA", payload([doubted], 3)))
    assert frame.metrics == (Metric("temperature", 21.0, None, QUALITY_BAD),)
    # A quality lasts as long as the value that it came with.
    frame = only(plant.take("DDATA", payload([metric(alias=3, value="auto", field="string_value")], 4)))
    assert frame.metrics[0].quality == QUALITY_GOOD


def test_a_large_message_becomes_frames_that_fit() -> None:
    plant = Plant(metrics_per_frame_max=100)
    outcome = plant.take("NBIRTH", node_birth(*(metric(f"m{i}", pb.Double, 1.0) for i in range(250))))
    assert [len(frame.metrics) for frame in outcome.frames] == [100, 100, 51]
    texts = [metric(f"t{i}", pb.String, "ü" * 8000) for i in range(50)]
    outcome = Plant().take("NBIRTH", node_birth(*texts, bd=None))
    assert len(outcome.frames) > 1
    assert [name for frame in outcome.frames for name in by_name(frame)] == [f"t{i}" for i in range(50)]


def test_the_bdseq_of_a_birth_is_a_metric_too() -> None:
    assert only(Plant().take("NBIRTH", payload([bdseq(7)], 0))).metrics == (Metric("bdSeq", 7.0),)

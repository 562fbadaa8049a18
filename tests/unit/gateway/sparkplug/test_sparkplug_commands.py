"""NCMD and DCMD payloads."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.sparkplug.commands import (
    BYTES_MAX,
    TEXT_MAX_CHARACTERS,
    CommandMetric,
    CommandRefusedError,
    command_payload,
    command_topic,
    rebirth_request,
)
from plantwire.gateway.sparkplug.outcome import EdgeNodeId
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb

NOW_MS = 1_767_225_600_000
INTEGERS = {
    pb.Int8: (8, True),
    pb.Int16: (16, True),
    pb.Int32: (32, True),
    pb.Int64: (64, True),
    pb.UInt8: (8, False),
    pb.UInt16: (16, False),
    pb.UInt32: (32, False),
    pb.UInt64: (64, False),
    pb.DateTime: (64, False),
}


def written(datatype: int, value: Any) -> pb.Payload.Metric:
    payload = pb.Payload.FromString(command_payload((CommandMetric("Out", datatype, value),), NOW_MS))
    (metric,) = payload.metrics
    return metric


@pytest.mark.sparkplug(
    "tck-id-topics-ncmd-topic",
    "tck-id-topics-dcmd-topic",
    "tck-id-operational-behavior-data-commands-ncmd-verb",
    "tck-id-operational-behavior-data-commands-dcmd-verb",
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-verb",
    "tck-id-topic-structure-namespace-a",
    "tck-id-topic-structure-namespace-device-id-associated-message-types",
    "tck-id-topic-structure-namespace-device-id-non-associated-message-types",
)
def test_topics_of_commands() -> None:
    edge_node = EdgeNodeId("Plant 1", "Press")
    assert command_topic(edge_node, None) == "spBv1.0/Plant 1/NCMD/Press"
    assert command_topic(edge_node, "Motor") == "spBv1.0/Plant 1/DCMD/Press/Motor"


@pytest.mark.sparkplug(
    "tck-id-topics-ncmd-timestamp",
    "tck-id-payloads-ncmd-timestamp",
    "tck-id-payloads-ncmd-seq",
    "tck-id-topics-dcmd-timestamp",
    "tck-id-payloads-dcmd-timestamp",
    "tck-id-payloads-dcmd-seq",
    "tck-id-topics-ncmd-payload",
    "tck-id-topics-dcmd-payload",
    "tck-id-payloads-name-cmd-requirement",
    "tck-id-payloads-name-requirement",
    "tck-id-payloads-timestamp-in-UTC",
    "tck-id-payloads-metric-timestamp-in-UTC",
    "tck-id-payloads-metric-datatype-value-type",
    "tck-id-payloads-metric-datatype-value",
)
def test_a_command_has_a_time_and_its_metrics_but_no_sequence_number() -> None:
    payload = pb.Payload.FromString(
        command_payload(
            (CommandMetric("Valve", pb.Boolean, True), CommandMetric("Speed", pb.Int32, 5)), NOW_MS
        )
    )
    assert payload.timestamp == NOW_MS
    assert not payload.HasField("seq")
    assert [(m.name, m.timestamp, m.datatype) for m in payload.metrics] == [
        ("Valve", NOW_MS, pb.Boolean),
        ("Speed", NOW_MS, pb.Int32),
    ]


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-name",
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-value",
)
def test_a_rebirth_request() -> None:
    payload = pb.Payload.FromString(rebirth_request(NOW_MS))
    (metric,) = payload.metrics
    assert (metric.name, metric.datatype, metric.boolean_value) == ("Node Control/Rebirth", pb.Boolean, True)
    assert metric.WhichOneof("value") == "boolean_value"
    assert not metric.HasField("alias")
    assert payload.timestamp == NOW_MS
    assert not payload.HasField("seq")


@pytest.mark.sparkplug("tck-id-payloads-alias-data-cmd-requirement")
def test_a_metric_with_an_alias_goes_without_its_name() -> None:
    payload = pb.Payload.FromString(
        command_payload((CommandMetric("Speed", pb.Double, 1.5, alias=0),), NOW_MS)
    )
    (metric,) = payload.metrics
    assert metric.HasField("alias")
    assert metric.alias == 0
    assert not metric.HasField("name")


@pytest.mark.parametrize("datatype", INTEGERS)
@pytest.mark.sparkplug("tck-id-operational-behavior-data-commands-ncmd-metric-value")
def test_integers_at_their_edges(datatype: int) -> None:
    bits, signed = INTEGERS[datatype]
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    for value in (lowest, 0, 1, highest):
        metric = written(datatype, value)
        field = "long_value" if bits == 64 else "int_value"
        assert metric.WhichOneof("value") == field
        assert getattr(metric, field) == value % 2**bits
    for value in (lowest - 1, highest + 1, 1.0, True, "1"):
        with pytest.raises(CommandRefusedError, match="Out: "):
            written(datatype, value)


@pytest.mark.parametrize(
    ("datatype", "value", "field"),
    [
        (pb.Float, 1.5, "float_value"),
        (pb.Float, 3, "float_value"),
        (pb.Double, -1e300, "double_value"),
        (pb.Boolean, False, "boolean_value"),
        (pb.String, "grün", "string_value"),
        (pb.Text, "", "string_value"),
        (pb.UUID, "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "string_value"),
        (pb.Bytes, b"\x00\xff", "bytes_value"),
        (pb.File, b"", "bytes_value"),
    ],
)
@pytest.mark.sparkplug("tck-id-operational-behavior-data-commands-dcmd-metric-value")
def test_other_datatypes(datatype: int, value: Any, field: str) -> None:
    metric = written(datatype, value)
    assert metric.WhichOneof("value") == field
    assert getattr(metric, field) == value


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        (pb.Float, 1e39),
        (pb.Float, math.inf),
        (pb.Double, math.nan),
        (pb.Double, 10**400),
        (pb.Double, "1"),
        (pb.Double, True),
        (pb.Boolean, 1),
        (pb.Boolean, "true"),
        (pb.String, 1),
        (pb.String, "x" * (TEXT_MAX_CHARACTERS + 1)),
        (pb.String, "\ud800"),
        (pb.Bytes, "text"),
        (pb.Bytes, bytes(BYTES_MAX + 1)),
        (pb.Unknown, 1),
        (pb.DataSet, 1),
        (pb.Template, None),
        (pb.Int8Array, b"\x01"),
        (99, 1),
    ],
)
def test_what_does_not_fit_is_refused(datatype: int, value: Any) -> None:
    with pytest.raises(CommandRefusedError, match="Out: "):
        written(datatype, value)


def test_null() -> None:
    metric = written(pb.Int32, None)
    assert metric.is_null
    assert metric.WhichOneof("value") is None


def test_a_command_of_nothing_is_refused() -> None:
    with pytest.raises(CommandRefusedError, match="at least one"):
        command_payload((), NOW_MS)


@given(
    st.integers(0, 40),
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=20)
    ),
)
def test_any_value_is_written_or_refused(datatype: int, value: Any) -> None:
    try:
        metric = written(datatype, value)
    except CommandRefusedError:
        return
    assert metric.is_null is (value is None)
    assert metric.datatype == datatype

"""Values go into the field that their datatype has, at every edge of its range."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from plantwire.simulator.frame import Value
from plantwire.simulator.sparkplug.payload import (
    MetricSpec,
    add_birth,
    commands_in,
    new_payload,
    written_value,
)

INTEGERS = [
    (pb.Int8, 8, True),
    (pb.Int16, 16, True),
    (pb.Int32, 32, True),
    (pb.Int64, 64, True),
    (pb.UInt8, 8, False),
    (pb.UInt16, 16, False),
    (pb.UInt32, 32, False),
    (pb.UInt64, 64, False),
    (pb.DateTime, 64, False),
]


def encoded(datatype: int, value: Value | None) -> pb.Payload.Metric:
    payload = new_payload(1, 0)
    add_birth(payload, MetricSpec("m", datatype), None, value, 1)
    return pb.Payload.FromString(payload.SerializeToString()).metrics[0]


@pytest.mark.sparkplug("tck-id-payloads-metric-datatype-value-type")
@pytest.mark.parametrize(("datatype", "bits", "is_signed"), INTEGERS)
def test_integers_at_their_edges(datatype: int, bits: int, is_signed: bool) -> None:
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if is_signed else (0, (1 << bits) - 1)
    for value in {low, -1 if is_signed else 0, 0, 1, high}:
        metric = encoded(datatype, value)
        field = "int_value" if bits <= 32 else "long_value"
        assert metric.WhichOneof("value") == field
        assert getattr(metric, field) == value % (1 << (32 if bits <= 32 else 64))
        assert written_value(MetricSpec("m", datatype, True), metric) == value
    for value in (low - 1, high + 1):
        with pytest.raises(ValueError, match="does not hold"):
            encoded(datatype, value)


@pytest.mark.parametrize(
    ("datatype", "value", "field"),
    [
        (pb.Float, 1.5, "float_value"),
        (pb.Double, 3, "double_value"),
        (pb.Boolean, True, "boolean_value"),
        (pb.String, "", "string_value"),
        (pb.Text, "é", "string_value"),
    ],
)
def test_other_values(datatype: int, value: Value, field: str) -> None:
    metric = encoded(datatype, value)
    assert metric.WhichOneof("value") == field
    assert written_value(MetricSpec("m", datatype, True), metric) == value


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        (pb.Int32, 1.0),
        (pb.Int32, True),
        (pb.Boolean, 1),
        (pb.String, 1),
        (pb.Double, "1"),
        (pb.Double, math.nan),
        (pb.Double, True),
        (pb.DataSet, 1),
    ],
)
def test_a_value_of_another_kind_is_refused(datatype: int, value: Value) -> None:
    with pytest.raises(ValueError, match="does not hold"):
        encoded(datatype, value)


def test_no_value_is_null() -> None:
    metric = encoded(pb.Int8, None)
    assert metric.is_null
    assert metric.WhichOneof("value") is None
    assert written_value(MetricSpec("m", pb.Int8, True), metric) is None


@given(st.binary(max_size=100), st.integers(0, 34))
def test_reading_a_command_never_raises(payload: bytes, datatype: int) -> None:
    for command in commands_in(payload) or []:
        written_value(MetricSpec("m", datatype, True), command.metric)

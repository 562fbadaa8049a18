"""Sparkplug payloads for tests, and a host side that follows one edge node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from plantwire.gateway.sparkplug.edge_nodes import EdgeNodes
from plantwire.gateway.sparkplug.outcome import (
    EdgeNodeId,
    Outcome,
    RebirthReason,
    RequestRebirth,
    SetTimer,
    SparkplugLimits,
)
from plantwire.schemas.records import Metric, TelemetryFrame
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb

NOW_MS = 1_767_225_600_000
NODE = EdgeNodeId("Plant 1", "Line-7")
NODE_ID = "Plant@201:Line-7"
PRESS_ID = "Plant@201:Line-7:press"

_FIELDS = {
    pb.Int8: "int_value",
    pb.Int16: "int_value",
    pb.Int32: "int_value",
    pb.Int64: "long_value",
    pb.UInt8: "int_value",
    pb.UInt16: "int_value",
    pb.UInt32: "int_value",
    pb.UInt64: "long_value",
    pb.Float: "float_value",
    pb.Double: "double_value",
    pb.Boolean: "boolean_value",
    pb.String: "string_value",
    pb.DateTime: "long_value",
    pb.Text: "string_value",
    pb.UUID: "string_value",
    pb.DataSet: "dataset_value",
    pb.Template: "template_value",
}


def metric(
    name: str = "",
    datatype: int = 0,
    value: Any = None,
    *,
    field: str | None = None,
    alias: int | None = None,
    at_ms: int | None = NOW_MS,
    quality: int | None = None,
    **flags: Any,
) -> pb.Payload.Metric:
    """A metric; without a datatype the value goes into `field`."""
    built = pb.Payload.Metric(**flags)
    if name:
        built.name = name
    if alias is not None:
        built.alias = alias
    if datatype:
        built.datatype = datatype
    if at_ms is not None:
        built.timestamp = at_ms
    if quality is not None:
        built.properties.keys.append("Quality")
        built.properties.values.add(type=pb.Int32, int_value=quality)
    if value is not None:
        into = field or _FIELDS.get(datatype, "bytes_value")
        if into in ("dataset_value", "template_value"):
            getattr(built, into).CopyFrom(value)
        else:
            setattr(built, into, value)
    return built


def payload(
    metrics: Iterable[pb.Payload.Metric] = (), seq: int | None = None, at_ms: int | None = NOW_MS
) -> bytes:
    built = pb.Payload(metrics=metrics)
    if seq is not None:
        built.seq = seq
    if at_ms is not None:
        built.timestamp = at_ms
    return built.SerializeToString()


def bdseq(value: int = 0) -> pb.Payload.Metric:
    return metric("bdSeq", pb.Int64, value)


def node_birth(
    *metrics: pb.Payload.Metric, seq: int | None = 0, bd: int | None = 0, at_ms: int | None = NOW_MS
) -> bytes:
    return payload([*([bdseq(bd)] if bd is not None else []), *metrics], seq, at_ms)


class Plant:
    """`EdgeNodes` with clocks that the test moves; by default of `NODE` and its device `press`."""

    def __init__(self, **limits: int) -> None:
        self.limits = SparkplugLimits(**limits)
        self.nodes = EdgeNodes(self.limits)
        self.wall_ms = NOW_MS
        self.mono_ms = 1000

    def pass_ms(self, passed_ms: int) -> None:
        self.wall_ms += passed_ms
        self.mono_ms += passed_ms

    def take(self, kind: str, data: bytes, node: EdgeNodeId = NODE, device: str = "press") -> Outcome:
        topic = f"spBv1.0/{node.group}/{kind}/{node.node}" + (f"/{device}" if kind[0] == "D" else "")
        return self.nodes.take(topic, data, self.wall_ms * 1000 + 7, self.mono_ms)

    def expire(self, node: EdgeNodeId = NODE) -> Outcome:
        return self.nodes.expire(node, self.wall_ms * 1000 + 7, self.mono_ms)

    def born(self) -> Plant:
        """With `NODE` (voltage, alias 1) and `press` (temperature, alias 2; mode, alias 3) born; seq 0, 1."""
        node = self.take("NBIRTH", node_birth(metric("voltage", pb.Float, 12.5, alias=1)))
        device = self.take("DBIRTH", press_birth())
        assert not node.rejected
        assert not device.rejected
        return self


def press_birth(seq: int = 1, at_ms: int = NOW_MS) -> bytes:
    return payload(
        [
            metric("temperature", pb.Double, 20.0, alias=2, at_ms=at_ms),
            metric("mode", pb.String, "auto", alias=3, at_ms=at_ms),
        ],
        seq,
        at_ms,
    )


def temperature(value: float, seq: int | None, at_ms: int = NOW_MS) -> bytes:
    return payload([metric(alias=2, value=value, field="double_value", at_ms=at_ms)], seq, at_ms)


def rebirths(outcome: Outcome) -> list[RebirthReason]:
    return [effect.reason for effect in outcome.effects if isinstance(effect, RequestRebirth)]


def timers(outcome: Outcome) -> list[int | None]:
    return [effect.at_ms for effect in outcome.effects if isinstance(effect, SetTimer)]


def only(outcome: Outcome) -> TelemetryFrame:
    """The one frame of an outcome that refused nothing."""
    assert not outcome.rejected
    (frame,) = outcome.frames
    return frame


def by_name(frame: TelemetryFrame) -> dict[str, Metric]:
    return {metric.name: metric for metric in frame.metrics}

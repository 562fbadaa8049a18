"""Whatever is said to edge nodes, nothing raises, frames are sound and memory is bounded."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantwire.gateway.decode_json import FRAME_MAX_BYTES
from plantwire.gateway.sparkplug.edge_nodes import EdgeNodes
from plantwire.gateway.sparkplug.outcome import (
    EdgeNodeId,
    Outcome,
    SetTimer,
    SparkplugLimits,
)
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.identifiers import is_device_id, is_metric_name
from plantwire.schemas.records import QUALITY_STALE, TelemetryFrame
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from tests.unit.gateway.sparkplug.edge_node_messages import (
    NODE,
    NOW_MS,
    Plant,
    metric,
    node_birth,
    payload,
    press_birth,
    temperature,
)


def node(number: int) -> EdgeNodeId:
    return EdgeNodeId("g", f"n{number}")


def birth(metrics: int = 1) -> bytes:
    return node_birth(*(metric(f"m{i}", pb.Double, 1.0, alias=i) for i in range(metrics)), bd=None)


def check(outcome: Outcome) -> None:
    for frame in outcome.frames:
        check_frame(frame)
    assert len(outcome.effects) <= 2


def check_frame(frame: TelemetryFrame) -> None:
    assert is_device_id(frame.device_id)
    assert frame.metrics
    assert len(frame.metrics) == len({m.name for m in frame.metrics})
    assert all(is_metric_name(m.name) for m in frame.metrics)
    assert 0 < frame.event_time_ms <= frame.received_time_ms + 60_001
    body = FRAME_CODEC.encode(frame)
    assert len(body) <= FRAME_MAX_BYTES
    assert FRAME_CODEC.decode(body) == frame


KINDS = ["NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH", "NCMD"]
SMALL = {
    "payload_bytes_max": 4000,
    "edge_nodes_max": 3,
    "devices_per_node_max": 2,
    "metrics_per_device_max": 12,
    "metrics_max": 40,
    "metrics_per_frame_max": 5,
}


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.binary(max_size=60)), max_size=10))
def test_arbitrary_bytes_never_raise(messages: list[tuple[str, bytes]]) -> None:
    plant = Plant(**SMALL).born()
    for kind, data in messages:
        check(plant.take(kind, data))


_VALUES = st.one_of(
    st.fixed_dictionaries({"int_value": st.integers(0, 2**32 - 1)}),
    st.fixed_dictionaries({"long_value": st.integers(0, 2**64 - 1)}),
    st.fixed_dictionaries({"double_value": st.floats()}),
    st.fixed_dictionaries({"boolean_value": st.booleans()}),
    st.fixed_dictionaries({"string_value": st.text(max_size=8)}),
    st.fixed_dictionaries({"bytes_value": st.binary(max_size=12)}),
    st.just({}),
)
_METRICS = st.builds(
    lambda base, value: pb.Payload.Metric(**base, **value),
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["a", "b", "a/b", "c", "bdSeq", "", "\x07", "t"]),
            "alias": st.integers(0, 5),
            "timestamp": st.sampled_from([0, NOW_MS, NOW_MS - 5, NOW_MS + 70_000, 2**64 - 1]),
            "datatype": st.integers(0, 36),
            "is_historical": st.booleans(),
            "is_transient": st.booleans(),
            "is_null": st.booleans(),
        },
    ),
    _VALUES,
)


def _nested(metrics: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda members, definition, name: pb.Payload.Metric(
            name=name,
            datatype=pb.Template,
            timestamp=NOW_MS,
            template_value=pb.Payload.Template(metrics=members, is_definition=definition),
        ),
        st.lists(metrics, max_size=4),
        st.booleans(),
        st.sampled_from(["t", "u"]),
    )


_PAYLOADS = st.builds(
    lambda metrics, base: pb.Payload(metrics=metrics, **base).SerializeToString(),
    st.lists(st.recursive(_METRICS, _nested, max_leaves=6), max_size=8),
    st.fixed_dictionaries(
        {},
        optional={
            "seq": st.integers(0, 4) | st.integers(250, 260),
            "timestamp": st.sampled_from([0, NOW_MS, NOW_MS - 99_000, NOW_MS + 99_000, 2**64 - 1]),
        },
    ),
)
_STEPS = st.tuples(
    st.sampled_from(KINDS),
    _PAYLOADS,
    st.sampled_from([NODE, node(1), node(2), node(3), node(4)]),
    st.sampled_from(["press", "mixer", "pump"]),
    st.sampled_from([0, 1, 1999, 2000, 5000, 400_000]),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(_STEPS, max_size=25))
def test_whatever_is_said_frames_are_sound_and_memory_is_bounded(steps: list[Any]) -> None:
    plant = Plant(**SMALL)
    due: dict[EdgeNodeId, int] = {}

    def follow(outcome: Outcome) -> None:
        check(outcome)
        for effect in outcome.effects:
            if isinstance(effect, SetTimer):
                due.pop(effect.edge_node, None)
                if effect.at_ms is not None:
                    assert effect.at_ms >= plant.mono_ms
                    due[effect.edge_node] = effect.at_ms

    for kind, data, edge_node, device, passed_ms in steps:
        plant.pass_ms(passed_ms)
        for late in [late for late, at_ms in due.items() if at_ms <= plant.mono_ms]:
            del due[late]
            follow(plant.expire(late))
        follow(plant.take(kind, data, edge_node, device))
        census = plant.nodes.census()
        assert census.edge_nodes <= 3
        assert census.metrics <= 40
        assert census.devices <= 6
        assert (census.metrics > 0) <= (census.born > 0)
    for outcome in plant.nodes.lose_broker(plant.wall_ms * 1000, plant.mono_ms):
        check(outcome)
    assert plant.nodes.census().metrics == 0


def _mutations(seed: int) -> Callable[[bytes], bytes]:
    chance = random.Random(seed)

    def mutate(data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(changed))
            match chance.randrange(3):
                case 0:
                    changed[at] = chance.randrange(256)
                case 1:
                    del changed[at : at + chance.randint(1, 9)]
                case _:
                    changed[at:at] = chance.randbytes(chance.randint(1, 9))
            if not changed:
                return b"\x00"
        return bytes(changed)

    return mutate


@pytest.mark.parametrize("seed", range(6))
def test_mutated_payloads_never_raise(seed: int) -> None:
    mutate = _mutations(seed)
    text = metric("mode", pb.String, "auto", alias=3, quality=192)
    members = pb.Payload.Template(metrics=[metric("x", pb.Int8Array, b"\x01")], template_ref="t")
    rich = node_birth(metric("voltage", pb.Float, 12.5, alias=1), text, metric("t", pb.Template, members))
    plant = Plant(**SMALL)
    for step in range(80):
        plant.take("NBIRTH", rich)
        plant.take("DBIRTH", press_birth(1))
        for kind, data in (("NDATA", rich), ("NBIRTH", rich), ("DDATA", temperature(1.0, step % 256))):
            check(plant.take(kind, mutate(data)))


_UNITS = ["a", "b", "c"]


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(12)), st.data())
def test_no_order_of_messages_loses_a_value_silently(order: list[int], data: st.DataObject) -> None:
    """Births and data in any order: each value is in a frame, or its message is refused by name."""
    plant = Plant(metrics_per_frame_max=2)
    messages = [
        ("NBIRTH", node_birth(*(metric(unit, pb.Double, -1.0, alias=i) for i, unit in enumerate(_UNITS)))),
        ("DBIRTH", payload([metric("d", pb.Double, -1.0, alias=9)], 1)),
    ]
    for value in range(10):
        alias = data.draw(st.sampled_from([0, 1, 2, 9]))
        kind = "DDATA" if alias == 9 else "NDATA"
        sample = metric(alias=alias, value=float(value), field="double_value", at_ms=NOW_MS + value)
        messages.append((kind, payload([sample], value + 2, NOW_MS + value)))
    told: list[float] = []
    refusals = 0
    for index in order:
        kind, message = messages[index]
        outcome = plant.take(kind, message)
        refusals += bool(outcome.rejected) and index >= 2
        told += [
            m.number
            for frame in outcome.frames
            for m in frame.metrics
            if m.quality != QUALITY_STALE and m.name != "bdSeq" and m.number is not None and m.number >= 0
        ]
    # A newer number may be told again after one that came late.
    assert len(set(told)) == 10 - refusals


def test_following_many_messages_does_not_grow() -> None:
    nodes = EdgeNodes(SparkplugLimits())
    for number in range(20):
        nodes.take(f"spBv1.0/g/NBIRTH/n{number}", birth(50), NOW_MS * 1000, 0)

    def follow(first: int, last: int) -> int:
        for step in range(first, last):
            # Now and then one that is unknown, too late in the sequence, or of a node never heard of.
            alias, seq, name = step % 51, (step // 20 + step % 7) % 256, step % 21
            sample = metric(alias=alias, value=float(step), field="double_value", at_ms=NOW_MS + step)
            data = payload([sample], seq, NOW_MS + step)
            nodes.take(f"spBv1.0/g/NDATA/n{name}", data, (NOW_MS + step) * 1000, step)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        warm = follow(1, 3000)
        # Bytes; another thread's come in, but one kept per message would be ten times as many.
        assert follow(3000, 9000) - warm < 60_000
    finally:
        tracemalloc.stop()

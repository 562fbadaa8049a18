"""The packaging lines: usable ids, values of their datatypes, faults and stops, and the rules for them."""

from __future__ import annotations

import math

import pytest

from plantwire.schemas.identifiers import is_device_id, is_metric_name
from plantwire.schemas.records import AlarmEvent, AlarmKind
from plantwire.schemas.severity import Severity
from plantwire.simulator.sparkplug.line import (
    NODE_METRICS,
    STOP_LENGTH_S,
    EdgeNode,
    LineMachine,
    build_lines,
)
from plantwire.simulator.sparkplug.payload import add_birth, new_payload
from tests.unit.simulator.simulated_detection import Watch, rules_in


def line(seed: int = 1, machines: int = 4) -> EdgeNode:
    (node,) = build_lines(1, machines, seed, period_s=1.0, speed=1.0)
    return node


def events_of(machine: LineMachine, seconds: range) -> list[AlarmEvent]:
    watch = Watch(machine.device_id, rules_in("plant.yaml"))
    return [
        event
        for t_s in seconds
        for event in watch.see(
            t_s,
            {
                name: float(value)
                for name, value in machine.values_at(t_s, 0).items()
                if not isinstance(value, str)
            },
        )
    ]


def test_ids_are_those_that_the_gateway_gives() -> None:
    node = line()
    assert node.itself.device_id == "line-1:plc"
    assert [machine.device_id for machine in node.machines.values()] == [
        "line-1:plc:mixer-01",
        "line-1:plc:filler-01",
        "line-1:plc:mixer-02",
        "line-1:plc:filler-02",
    ]
    assert node.names()["line-1:plc:mixer-01"] == "mixer-01"
    assert node.names()["line-1:plc"] is None
    lines = build_lines(3, 2, 1, 1.0, 1.0)
    ids = [machine.device_id for node in lines for machine in node.machines.values()]
    assert len(set(ids)) == 6
    assert all(is_device_id(device_id) for device_id in ids)


@pytest.mark.parametrize("t_s", [0.0, 47.3, 170.0, 5_000.5, 1e6])
@pytest.mark.parametrize("seed", [1, 7])
def test_values_fit_their_datatypes(seed: int, t_s: float) -> None:
    node = line(seed)
    devices = [(node.itself.values_at(t_s, 0), NODE_METRICS)]
    devices += [(m.values_at(t_s, 0), m.kind.metrics) for m in node.machines.values()]
    for values, specs in devices:
        if values:
            assert list(values) == [spec.name for spec in specs]
        for spec in specs:
            assert is_metric_name(spec.name)
            if values:
                add_birth(new_payload(1, 0), spec, None, values[spec.name], 1)
    assert all(math.isfinite(v) for values, _ in devices for v in values.values() if isinstance(v, float))


def test_a_host_sets_the_speed() -> None:
    node = line()
    mixer = node.machines["mixer-01"]
    before = mixer.values_at(10.0, 0)
    node.write("mixer-01", "speed_setpoint_rpm", 60)
    node.write(None, "uptime_s", 1)
    after = mixer.values_at(10.0, 0)
    assert after["speed_setpoint_rpm"] == 60
    assert float(after["speed_rpm"]) < float(before["speed_rpm"]) - 40
    assert float(after["power_kw"]) < float(before["power_kw"])
    node.write("mixer-01", "speed_setpoint_rpm", 0)
    assert mixer.values_at(10.0, 0)["is_mixing"] is False
    assert node.machines["mixer-02"].values_at(10.0, 0)["speed_setpoint_rpm"] == 120


@pytest.mark.parametrize("seed", [1, 2])
def test_machines_stop_one_at_a_time(seed: int) -> None:
    node = line(seed)
    stopped = {
        name: {t_s for t_s in range(1_600) if not machine.values_at(t_s, 0)}
        for name, machine in node.machines.items()
    }
    assert [len(times) for times in stopped.values()] == [2 * STOP_LENGTH_S] * 4
    assert len(set().union(*stopped.values())) == 4 * 2 * STOP_LENGTH_S


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_fault_passes_high_then_critical_and_clears(seed: int) -> None:
    for turn, machine in enumerate(line(seed).machines.values()):
        first_s = 45 + 200 * turn
        assert events_of(machine, range(first_s)) == []
        events = events_of(machine, range(first_s, first_s + 90))
        assert [(event.kind, Severity(event.severity).name) for event in events] == [
            (AlarmKind.RAISED, "HIGH"),
            (AlarmKind.SEVERITY_CHANGED, "CRITICAL"),
            (AlarmKind.SEVERITY_CHANGED, "HIGH"),
            (AlarmKind.CLEARED, "HIGH"),
        ]

"""The plant and rules/plant.yaml together: alarms when a machine fails, and none when it does not."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from plantwire.schemas.identifiers import is_device_id, is_metric_name
from plantwire.schemas.records import AlarmEvent, AlarmKind
from plantwire.schemas.severity import Severity
from plantwire.simulator.machines import KINDS
from plantwire.simulator.plant import FAULT_SPACING_S, Machine, build_plant
from plantwire.simulator.signals import NO_FAULT, FaultPlan
from tests.unit.simulator.simulated_detection import EPOCH_MS, Watch, rules_in

RECOVERY_S = 20
"""Delays, deadbands and slow temperatures let an alarm outlast its fault by less than this."""


def events_of(machine: Machine, seconds: int) -> Iterator[AlarmEvent]:
    watch = Watch(machine.device_id, rules_in("plant.yaml"))
    for t_s in range(seconds):
        yield from watch.see(t_s, machine.metrics_at(t_s))


def test_forty_machines_of_eight_kinds_with_usable_names() -> None:
    plant = build_plant(40, seed=1)
    assert len({machine.device_id for machine in plant}) == 40
    assert plant[0].device_id == "press-01"
    assert plant[39].device_id == "motor-05"
    for machine in plant:
        metrics = machine.metrics_at(12.3)
        assert is_device_id(machine.device_id)
        assert len(metrics) >= 5
        assert all(is_metric_name(name) for name in metrics)
        assert metrics.keys() == machine.metrics_at(500).keys()


def test_the_seed_decides() -> None:
    first, again, other = build_plant(40, 1), build_plant(40, 1), build_plant(40, 2)
    assert [m.metrics_at(77.7) for m in first] == [m.metrics_at(77.7) for m in again]
    assert [m.metrics_at(77.7) for m in first] != [m.metrics_at(77.7) for m in other]
    assert [m.fault for m in first] != [m.fault for m in other]


def test_machines_of_a_kind_are_not_copies() -> None:
    values = [m.metrics_at(30)["force"] for m in build_plant(40, 1) if m.kind.name == "press"]
    assert len(set(values)) == 5


@pytest.mark.parametrize("machines", [0, 1, 3, 8, 100])
def test_a_plant_of_any_size(machines: int) -> None:
    plant = build_plant(machines, 1)
    assert len({machine.device_id for machine in plant}) == machines
    assert all(math.isfinite(v) for m in plant for v in m.metrics_at(1.0).values())
    assert sum(machine.fault != NO_FAULT for machine in plant) == (
        max(1, round(0.4 * machines)) if machines else 0
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_one_machine_fails_at_a_time(seed: int) -> None:
    faulty = [machine.fault for machine in build_plant(40, seed) if machine.fault != NO_FAULT]
    for t_s in range(0, int(2 * FAULT_SPACING_S * len(faulty)), 5):
        assert sum(fault.degree(t_s) > 0 for fault in faulty) <= 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_fresh_plant_has_a_critical_alarm_within_20_seconds_and_it_clears(seed: int) -> None:
    events = list(events_of(build_plant(40, seed)[0], 60))
    assert [(e.kind, Severity(e.severity).name) for e in events] == [
        (AlarmKind.RAISED, "MEDIUM"),
        (AlarmKind.SEVERITY_CHANGED, "HIGH"),
        (AlarmKind.SEVERITY_CHANGED, "CRITICAL"),
        (AlarmKind.SEVERITY_CHANGED, "HIGH"),
        (AlarmKind.SEVERITY_CHANGED, "MEDIUM"),
        (AlarmKind.CLEARED, "MEDIUM"),
    ]
    assert events[2].event_time_ms - EPOCH_MS <= 20_000


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_a_fault_passes_high_then_critical_and_clears(kind: str, seed: int) -> None:
    model = next(k for k in KINDS if k.name == kind)
    machine = Machine(f"{kind}-01", "x", model, seed * 7919, FaultPlan(first_s=150, every_s=1e9))
    events = list(events_of(machine, 260))
    ends_ms = EPOCH_MS + round((150 + machine.fault.length_s + RECOVERY_S) * 1000)
    assert all(EPOCH_MS + 150_000 <= event.event_time_ms <= ends_ms for event in events)
    by_alarm: dict[str, list[AlarmEvent]] = {}
    for event in events:
        by_alarm.setdefault(event.alarm_id, []).append(event)
    assert all(alarm[-1].kind == AlarmKind.CLEARED for alarm in by_alarm.values())
    severities = [[event.severity for event in alarm] for alarm in by_alarm.values()]
    assert any(
        Severity.HIGH in s and s.index(Severity.HIGH) < s.index(Severity.CRITICAL)
        for s in severities
        if Severity.CRITICAL in s
    )


@pytest.mark.parametrize("seed", [1, 5])
def test_a_healthy_machine_raises_nothing(seed: int) -> None:
    for machine in build_plant(8, seed):
        healthy = Machine(machine.device_id, machine.site, machine.kind, machine.seed, NO_FAULT)
        assert list(events_of(healthy, 1200)) == []

"""Kinds of machines, each as a model of its signals.

In: a `Moment`: one machine's seed, fault and time. Out: its metrics at that time, by name.
Guarantees: pure; a machine always has the same metrics; without a fault it stays within the limits of
rules/plant.yaml, and with one it passes HIGH, then CRITICAL (a test holds both together).
Not here: which machines a plant has (`simulator.plant`), the shapes (`simulator.signals`).

Temperatures in °C, pressures in bar, vibration in mm/s (RMS), power in kW, flow in m³/h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from plantwire.simulator.signals import (
    FaultPlan,
    duty_cycle,
    load_steps,
    sawtooth,
    wander,
    wave,
    white_noise,
)

Metrics = dict[str, float]


class Moment(msgspec.Struct, frozen=True):
    """One machine at one time: what its model is a function of."""

    seed: int
    t_s: float
    fault: FaultPlan

    def load(self, lag_s: float = 0.0) -> float:
        """The share of its capacity that the machine carries, about 0.45 to 1; `lag_s` ago."""
        t_s = self.t_s - lag_s
        return load_steps(self.seed, t_s, 47.0, 0.5, 0.9) + 0.015 * wander(self.seed + 1, t_s, 11.0)

    def fault_degree(self, lag_s: float = 0.0) -> float:
        """How far a fault has developed, 0 to 1; `lag_s` ago."""
        return self.fault.degree(self.t_s - lag_s)

    def drift(self, channel: int, period_s: float = 300.0) -> float:
        """Slow drift of one sensor, standard deviation about 1."""
        return wander(self.seed + 17 * channel, self.t_s, period_s)

    def noise(self, channel: int) -> float:
        """Measurement noise of one sensor, standard deviation 1."""
        return white_noise(self.seed + 31 * channel, self.t_s)


class MachineKind(msgspec.Struct, frozen=True):
    """A kind of machine; `name` begins the ids of its devices."""

    name: str
    model: Callable[[Moment], Metrics]


def press(m: Moment) -> Metrics:
    """A hydraulic press; fault: the oil cooler fails and the oil overheats."""
    stroke = duty_cycle(m.t_s + m.seed % 7, 6.0, 0.45, 0.6)
    load, fault = m.load(), m.fault_degree()
    return {
        "temperature": 52.0 + 18.0 * m.load(20.0) + 1.5 * m.drift(1) + 48.0 * fault + 0.25 * m.noise(1),
        "pressure": 12.0 + (150.0 + 90.0 * load) * stroke - 20.0 * fault * stroke + 1.2 * m.noise(2),
        "force": 20.0 + (700.0 + 550.0 * load) * stroke + 6.0 * m.noise(3),
        "vibration": 1.1 + 1.4 * stroke * load + 0.8 * fault + 0.08 * m.noise(4),
        "oil_level": 78.0 + 1.2 * m.drift(5, 900.0) - 3.0 * fault + 0.1 * m.noise(5),
    }


def pump(m: Moment) -> Metrics:
    """A centrifugal pump; fault: cavitation, vibration up and flow down."""
    load, fault = m.load(), m.fault_degree()
    flow = 120.0 * load * (1.0 - 0.35 * fault)
    return {
        "flow": flow + 0.8 * m.noise(1),
        "suction_pressure": 1.9 - 0.4 * load - 0.9 * fault + 0.02 * m.noise(2),
        "discharge_pressure": 8.6 - 2.4 * load - 1.4 * fault + 0.06 * m.noise(3),
        "vibration": 1.8 + 1.1 * load + 0.15 * m.drift(4) + 10.5 * fault + 0.12 * m.noise(4),
        "bearing_temperature": 44.0 + 12.0 * m.load(30.0) + 9.0 * m.fault_degree(8.0) + 0.2 * m.noise(5),
        "power": 9.0 + 0.17 * flow + 0.15 * m.noise(6),
    }


def compressor(m: Moment) -> Metrics:
    """A screw compressor; fault: a blocked cooler, the discharge runs hot."""
    loaded = duty_cycle(m.t_s + m.seed % 31, 40.0, 0.35 + 0.5 * m.load(), 2.0)
    fault = m.fault_degree()
    return {
        "discharge_pressure": 7.2 + 0.5 * wave(m.t_s, 40.0) + 0.03 * m.noise(1),
        "discharge_temperature": 76.0
        + 9.0 * m.load(15.0)
        + 1.2 * m.drift(2)
        + 36.0 * fault
        + 0.3 * m.noise(2),
        "oil_temperature": 61.0 + 7.0 * m.load(25.0) + 17.0 * m.fault_degree(4.0) + 0.2 * m.noise(3),
        "vibration": 2.2 + 0.9 * loaded + 0.5 * fault + 0.1 * m.noise(4),
        "power": 18.0 + 57.0 * loaded + 4.0 * fault + 0.5 * m.noise(5),
    }


def furnace(m: Moment) -> Metrics:
    """A heat-treatment furnace; fault: a sticking gas valve, over-temperature."""
    setpoint = 850.0
    fault = m.fault_degree()
    phase = m.seed % 10 / 10.0
    burner = 0.5 + 0.12 * wave(m.t_s, 24.0, phase) + 0.3 * fault
    ripple = 5.0 * wave(m.t_s - 4.0, 24.0, phase)
    return {
        "setpoint": setpoint,
        "temperature": setpoint + ripple + 78.0 * fault + 0.8 * m.noise(1),
        "gas_flow": 95.0 * burner + 0.6 * m.noise(2),
        "oxygen": 3.4 - 1.6 * (burner - 0.5) - 0.5 * fault + 0.05 * m.noise(3),
        "draught": -0.18 - 0.04 * burner + 0.004 * m.noise(4),
    }


def conveyor(m: Moment) -> Metrics:
    """A belt conveyor; fault: a jam, the current rises and the belt slows down."""
    load, fault = m.load(), m.fault_degree()
    return {
        "speed": 1.5 * (1.0 - 0.75 * fault) + 0.008 * m.noise(1),
        "motor_current": 9.0 + 11.0 * load + 26.0 * fault + 0.25 * m.noise(2),
        "motor_temperature": 41.0 + 14.0 * m.load(30.0) + 12.0 * m.fault_degree(10.0) + 0.2 * m.noise(3),
        "belt_load": 100.0 * load * (1.0 - 0.4 * fault) + 0.9 * m.noise(4),
        "belt_tension": 14.0 + 3.0 * load + 5.0 * fault + 0.1 * m.noise(5),
    }


def tank(m: Moment) -> Metrics:
    """A process tank that fills and drains; fault: the inlet valve does not close."""
    period_s, rising = 180.0, 0.6
    at_s = m.t_s + m.seed % 180
    filling = 1.0 if at_s % period_s < rising * period_s else 0.0
    fault = m.fault_degree()
    level = 28.0 + 44.0 * sawtooth(at_s, period_s, rising)
    return {
        # The fault lifts the level to the same height wherever in its cycle the tank is.
        "level": level + (99.0 - level) * fault + 0.15 * m.noise(1),
        "temperature": 38.0 + 2.0 * m.drift(2) + 0.1 * m.noise(2),
        "inflow": 6.0 + 18.0 * max(filling, fault) + 0.2 * m.noise(3),
        "outflow": 5.0 + 17.0 * (1.0 - filling) * (1.0 - fault) + 0.2 * m.noise(4),
        "ph": 7.1 + 0.12 * m.drift(5, 120.0) + 0.01 * m.noise(5),
    }


def chiller(m: Moment) -> Metrics:
    """A water chiller; fault: loss of refrigerant, the supply gets warm."""
    load, fault = m.load(), m.fault_degree()
    supply = 6.5 + 0.5 * load + 0.2 * m.drift(1) + 7.5 * fault
    return {
        "supply_temperature": supply + 0.05 * m.noise(1),
        "return_temperature": supply + 5.5 * load * (1.0 - 0.5 * fault) + 0.05 * m.noise(2),
        "refrigerant_pressure": 9.4 + 0.9 * load - 3.6 * fault + 0.05 * m.noise(3),
        "flow": 42.0 + 0.5 * m.drift(4) + 0.3 * m.noise(4),
        "power": 22.0 + 30.0 * load + 6.0 * fault + 0.4 * m.noise(5),
    }


def motor(m: Moment) -> Metrics:
    """A 4-pole drive motor; fault: a worn bearing, vibration and winding temperature up."""
    load, fault = m.load(), m.fault_degree()
    winding = 66.0 + 26.0 * m.load(40.0) + 1.5 * m.drift(3)
    return {
        "speed": 1500.0 - 24.0 * load - 6.0 * fault + 0.8 * m.noise(1),
        "current": 6.0 + 22.0 * load + 3.0 * fault + 0.3 * m.noise(2),
        "winding_temperature": winding + 21.0 * m.fault_degree(6.0) + 0.3 * m.noise(3),
        "vibration_x": 1.4 + 0.6 * load + 11.0 * fault + 0.1 * m.noise(4),
        "vibration_y": 1.2 + 0.5 * load + 8.0 * fault + 0.1 * m.noise(5),
        "power": 4.0 + 15.0 * load + 0.2 * m.noise(6),
    }


KINDS: Final = (
    MachineKind("press", press),
    MachineKind("pump", pump),
    MachineKind("compressor", compressor),
    MachineKind("furnace", furnace),
    MachineKind("conveyor", conveyor),
    MachineKind("tank", tank),
    MachineKind("chiller", chiller),
    MachineKind("motor", motor),
)

"""LoRaWAN sensors: cold stores and rooms.

In: how many, a seed. Out: the sensors; for one of them and a time, its values.
Guarantees: pure; the same seed gives the same sensors. The first cold store's door stays open now and
then; otherwise all stay within the limits of rules/plant.yaml.
Not here: radio and network server (`lorawan.chirpstack`), the payload's bytes (`lorawan.cayenne`).

Temperatures in °C, humidity in %, carbon dioxide in ppm, battery in V. A device's id is its DevEUI, as the
gateway names it; the first bytes are of the range for local use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from plantwire.simulator.frame import Value
from plantwire.simulator.machines import Moment
from plantwire.simulator.signals import NO_FAULT, FaultPlan, mix, wave

FIRST_FAULT_S: Final = 150.0
FAULT_SPACING_S: Final = 900.0
DAY_S: Final = 86_400.0


class SensorKind(msgspec.Struct, frozen=True):
    """A kind of sensor; `eui_prefix` begins its DevEUIs, `has_codec` says who decodes its payload."""

    name: str
    eui_prefix: str
    has_codec: bool
    model: Callable[[Moment], dict[str, float]]


def _cold_store(m: Moment) -> dict[str, float]:
    """A freezer; fault: its door stays open."""
    fault = m.fault_degree()
    return {
        "temperature": -19.5 + 0.8 * wave(m.t_s, 600.0) + 0.3 * m.drift(1) + 13.5 * fault,
        "humidity": 62.0 + 2.0 * m.drift(2) + 20.0 * fault,
        "door": 1.0 if fault > 0.0 else 0.0,
    }


def _room(m: Moment) -> dict[str, float]:
    """A room's climate."""
    day = wave(m.t_s, DAY_S)
    return {
        "temperature": 21.5 + 1.5 * day + 0.4 * m.drift(1),
        "humidity": 44.0 + 3.0 * m.drift(2),
        "co2": 620.0 + 90.0 * day + 40.0 * m.drift(3, 120.0),
    }


COLD_STORE: Final = SensorKind("cold-store", "02505700c01d", has_codec=False, model=_cold_store)
ROOM: Final = SensorKind("room", "025057000a12", has_codec=True, model=_room)
SENSOR_KINDS: Final = (COLD_STORE, ROOM)


class Sensor:
    """One sensor, as a device of the run."""

    def __init__(
        self, kind: SensorKind, number: int, seed: int, fault: FaultPlan, timing: tuple[float, float]
    ) -> None:
        """`timing`: (period in seconds, speed of its own time)."""
        self.device_id = f"{kind.eui_prefix}{number:04x}"
        self.name = f"{kind.name}-{number:02d}"
        self.site = "utilities"
        self.kind = kind
        self.seed = seed
        self.period_s, self._speed = timing
        self._fault = fault

    def values_at(self, t_s: float, number: int) -> Mapping[str, Value]:  # noqa: ARG002 - time decides
        """Its values."""
        values = self.kind.model(Moment(self.seed, t_s * self._speed, self._fault))
        return {name: round(value, 1) for name, value in values.items()}


def build_sensors(sensors: int, seed: int, period_s: float, speed: float) -> tuple[Sensor, ...]:
    """So many sensors, of both kinds in turn."""
    built = []
    for index in range(sensors):
        kind = SENSOR_KINDS[index % len(SENSOR_KINDS)]
        fault = FaultPlan(FIRST_FAULT_S, FAULT_SPACING_S, 60.0, 40.0, 80.0) if index == 0 else NO_FAULT
        number = index // len(SENSOR_KINDS) + 1
        built.append(Sensor(kind, number, mix(seed, 80_000 + index) >> 24, fault, (period_s, speed)))
    return tuple(built)

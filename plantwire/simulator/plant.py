"""The simulated plant: which machines it has, and when each of them fails.

In: the number of machines and a seed. Out: the machines; for one of them and a time, its metrics.
Guarantees: pure; the same seed gives the same plant. Its first fault shows 8 s after the start, on
press-01, and then one machine after the other fails, one every 90 s.
Not here: sending (`simulator.run`), the replayed machine (`simulator.nab`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from plantwire.simulator.machines import KINDS, MachineKind, Metrics, Moment
from plantwire.simulator.signals import NO_FAULT, FaultPlan, mix, uniform

SITES: Final = ("hall-a", "hall-b", "utilities")
FIRST_FAULT_S: Final = 8.0
FAULT_SPACING_S: Final = 90.0
FAULT_JITTER_S: Final = 20.0

# Two machines in five fail at all: a plant on which everything fails teaches nobody anything.
_FAULTY_SHARE: Final = 0.4
_UTILITIES: Final = frozenset({"compressor", "chiller", "pump"})


class Machine(msgspec.Struct, frozen=True):
    """One simulated machine."""

    device_id: str
    site: str
    kind: MachineKind
    seed: int
    fault: FaultPlan

    def metrics_at(self, t_s: float) -> Metrics:
        """Its metrics `t_s` seconds after the plant's start, rounded as a sensor's display would."""
        values = self.kind.model(Moment(self.seed, t_s, self.fault))
        return {name: round(value, 3) for name, value in values.items()}


def build_plant(machines: int, seed: int) -> tuple[Machine, ...]:
    """A plant of so many machines, of all kinds in turn."""
    faults = _fault_plans(machines, seed)
    return tuple(
        Machine(
            device_id=f"{kind.name}-{index // len(KINDS) + 1:02d}",
            site=_site(kind, index),
            kind=kind,
            seed=mix(seed, 1000 + index) >> 24,
            fault=faults.get(index, NO_FAULT),
        )
        for index, kind in ((index, KINDS[index % len(KINDS)]) for index in range(machines))
    )


def _fault_plans(machines: int, seed: int) -> dict[int, FaultPlan]:
    """Fault plans by machine: machine 0 first, then others in an order that the seed decides."""
    faulty = max(1, round(machines * _FAULTY_SHARE)) if machines else 0
    order = [0, *sorted(range(1, machines), key=lambda index: mix(seed, index))][:faulty]
    return {
        index: FaultPlan(first_s=_first_fault_s(turn, seed), every_s=FAULT_SPACING_S * len(order))
        for turn, index in enumerate(order)
    }


def _first_fault_s(turn: int, seed: int) -> float:
    """The first machine's fault is on time, so that a fresh plant soon has something to show."""
    jitter_s = FAULT_JITTER_S * uniform(seed, turn) if turn else 0.0
    return FIRST_FAULT_S + FAULT_SPACING_S * turn + jitter_s


def _site(kind: MachineKind, index: int) -> str:
    return SITES[2] if kind.name in _UTILITIES else SITES[index // len(KINDS) % 2]

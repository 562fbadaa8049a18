"""The packaging lines that Sparkplug edge nodes stand for: their nodes, machines and metrics.

In: how many nodes and machines, a seed. Out: for each node its session's metrics and its devices; for one
device and a time, its values.
Guarantees: pure but for what a host writes; the same seed gives the same lines. Machines fail and stop one
at a time; without a fault they stay within the limits of rules/plant.yaml.
Not here: the protocol (`sparkplug.session`, `sparkplug.outlet`).

A device's id is the one that the gateway gives it: group, node and device with colons between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from plantwire.simulator.frame import Value
from plantwire.simulator.machines import Moment
from plantwire.simulator.signals import FaultPlan, duty_cycle, mix, wander, white_noise
from plantwire.simulator.sparkplug.payload import MetricSpec

FIRST_FAULT_S: Final = 45.0
FIRST_STOP_S: Final = 145.0
SPACING_S: Final = 200.0
"""Between one machine's fault or stop and the next one's of the same node."""
STOP_LENGTH_S: Final = 20.0
_RECIPES: Final = ("citrus", "cola", "still water")
_RECIPE_S: Final = 240.0
_BATCH_S: Final = 60.0
_MIXER_RPM: Final = 120


class Settings(msgspec.Struct):
    """What a host may write to a machine."""

    speed_setpoint_rpm: int = _MIXER_RPM


Model = Callable[[Moment, Settings], dict[str, Value]]


class LineKind(msgspec.Struct, frozen=True):
    """A kind of machine on a line; `name` begins the names of its devices."""

    name: str
    metrics: tuple[MetricSpec, ...]
    model: Model


def _mixer(m: Moment, settings: Settings) -> dict[str, Value]:
    """A syrup mixer; fault: the cooling jacket fails and the bowl gets warm."""
    load, fault = m.load(), m.fault_degree()
    share = settings.speed_setpoint_rpm / _MIXER_RPM
    speed_rpm = settings.speed_setpoint_rpm * (1.0 - 0.02 * load) + 0.3 * m.noise(1)
    return {
        "bowl_temperature_c": round(54.0 + 9.0 * m.load(20.0) + 1.2 * m.drift(2) + 30.0 * fault, 1),
        "speed_rpm": max(0, round(speed_rpm)),
        "speed_setpoint_rpm": settings.speed_setpoint_rpm,
        "power_kw": round(2.0 + 9.0 * load * share + 0.1 * m.noise(3), 1),
        "vibration_mm_s": round(1.3 + 0.8 * load * share + 0.1 * m.noise(4), 2),
        "is_mixing": settings.speed_setpoint_rpm > 0 and duty_cycle(m.t_s, _BATCH_S, 0.85, 1.0) > 0.5,
        "batch": int(m.t_s // _BATCH_S) + 1,
        "recipe": _RECIPES[(m.seed + int(m.t_s // _RECIPE_S)) % len(_RECIPES)],
    }


def _filler(m: Moment, _settings: Settings) -> dict[str, Value]:
    """A bottle filler; fault: the product pressure drops."""
    load, fault = m.load(), m.fault_degree()
    per_s = 4.0 * load
    return {
        "product_pressure_bar": round(3.4 + 0.15 * m.drift(1) - 2.0 * fault + 0.02 * m.noise(1), 2),
        "speed_rpm": max(0, round(38.0 * load)),
        "motor_current_a": round(4.0 + 5.0 * load + 0.1 * m.noise(3), 1),
        "valve_temperature_c": round(8.0 + 0.8 * m.drift(4), 1),
        "bottles": int(4.0 * 0.7 * m.t_s),
        "rejects": int(0.02 * m.t_s),
        "state": "starved" if fault > 0.5 else "producing" if per_s > 0.0 else "idle",
    }


MIXER: Final = LineKind(
    "mixer",
    (
        MetricSpec("bowl_temperature_c", pb.Double),
        MetricSpec("speed_rpm", pb.Int32),
        MetricSpec("speed_setpoint_rpm", pb.Int32, is_writable=True),
        MetricSpec("power_kw", pb.Float),
        MetricSpec("vibration_mm_s", pb.Double),
        MetricSpec("is_mixing", pb.Boolean),
        MetricSpec("batch", pb.Int64),
        MetricSpec("recipe", pb.String),
    ),
    _mixer,
)
FILLER: Final = LineKind(
    "filler",
    (
        MetricSpec("product_pressure_bar", pb.Double),
        MetricSpec("speed_rpm", pb.UInt16),
        MetricSpec("motor_current_a", pb.Float),
        MetricSpec("valve_temperature_c", pb.Float),
        MetricSpec("bottles", pb.UInt64),
        MetricSpec("rejects", pb.UInt32),
        MetricSpec("state", pb.String),
    ),
    _filler,
)
LINE_KINDS: Final = (MIXER, FILLER)

NODE_METRICS: Final = (
    MetricSpec("cpu_temperature_c", pb.Float),
    MetricSpec("uptime_s", pb.UInt64),
    MetricSpec("Properties/Hardware Make", pb.String),
    MetricSpec("Properties/OS Version", pb.String),
)


class StopPlan(msgspec.Struct, frozen=True):
    """When a machine cannot be read, because somebody cleans it: at `first_s`, then every `every_s`."""

    first_s: float
    every_s: float

    def is_stopped(self, t_s: float) -> bool:
        """Whether it is stopped at `t_s`."""
        return t_s >= self.first_s and (t_s - self.first_s) % self.every_s < STOP_LENGTH_S


class LineMachine:
    """One machine of a line, as a device of the run."""

    def __init__(
        self,
        identity: tuple[str, str],
        kind: LineKind,
        seed: int,
        plans: tuple[FaultPlan, StopPlan],
        timing: tuple[float, float],
    ) -> None:
        """`identity`: (device id, site); `timing`: (period in seconds, speed of its own time)."""
        self.device_id, self.site = identity
        self.kind = kind
        self.period_s, self._speed = timing
        self._seed = seed
        self._fault, self._stop = plans
        self._settings = Settings()

    def values_at(self, t_s: float, number: int) -> Mapping[str, Value]:  # noqa: ARG002 - time decides
        """Its values; none while it is stopped."""
        own_s = t_s * self._speed
        if self._stop.is_stopped(own_s):
            return {}
        return self.kind.model(Moment(self._seed, own_s, self._fault), self._settings)

    def write(self, metric: str, value: Value) -> None:
        """A host writes one of its metrics."""
        if metric == "speed_setpoint_rpm" and isinstance(value, int):
            self._settings.speed_setpoint_rpm = value


class NodeItself:
    """The edge node's own metrics, as a device of the run."""

    def __init__(self, device_id: str, site: str, seed: int, period_s: float) -> None:
        self.device_id = device_id
        self.site = site
        self.period_s = period_s
        self._seed = seed

    def values_at(self, t_s: float, number: int) -> Mapping[str, Value]:  # noqa: ARG002 - time decides
        """Its values."""
        return {
            "cpu_temperature_c": round(
                47.0 + 3.0 * wander(self._seed, t_s, 60.0) + 0.2 * white_noise(self._seed, t_s), 1
            ),
            "uptime_s": math.floor(t_s),
            "Properties/Hardware Make": "Simulated PLC",
            "Properties/OS Version": "1.0",
        }


class EdgeNode(msgspec.Struct, frozen=True):
    """One edge node and what is attached to it."""

    group: str
    name: str
    itself: NodeItself
    machines: Mapping[str, LineMachine]
    """By the node's own name of it."""

    def device_metrics(self) -> dict[str, tuple[MetricSpec, ...]]:
        """The metrics of each device, as births declare them."""
        return {name: machine.kind.metrics for name, machine in self.machines.items()}

    def names(self) -> dict[str, str | None]:
        """The node's own names by device id; None for the node itself."""
        own: dict[str, str | None] = {machine.device_id: name for name, machine in self.machines.items()}
        return {self.itself.device_id: None, **own}

    def write(self, device: str | None, metric: str, value: Value) -> None:
        """A host writes a metric; the node itself has none that can be written."""
        if device is not None:
            self.machines[device].write(metric, value)


NODE_PERIOD_S: Final = 5.0


def build_lines(
    nodes: int, machines_per_node: int, seed: int, period_s: float, speed: float
) -> tuple[EdgeNode, ...]:
    """So many lines, each with an edge node and machines of all kinds in turn."""
    return tuple(_build_line(index, machines_per_node, seed, period_s, speed) for index in range(nodes))


def _build_line(index: int, machines: int, seed: int, period_s: float, speed: float) -> EdgeNode:
    group, name = f"line-{index + 1}", "plc"
    node_id = f"{group}:{name}"
    attached: dict[str, LineMachine] = {}
    every_s = SPACING_S * max(machines, 1)
    for turn in range(machines):
        kind = LINE_KINDS[turn % len(LINE_KINDS)]
        device = f"{kind.name}-{turn // len(LINE_KINDS) + 1:02d}"
        # The lines take turns within the spacing, so that not all fail at once.
        offset_s = SPACING_S * turn + 60.0 * (index % 3)
        attached[device] = LineMachine(
            (f"{node_id}:{device}", group),
            kind,
            mix(seed, 50_000 + 1_000 * index + turn) >> 24,
            (
                FaultPlan(first_s=FIRST_FAULT_S + offset_s, every_s=every_s),
                StopPlan(FIRST_STOP_S + offset_s, every_s),
            ),
            (period_s, speed),
        )
    node_seed = mix(seed, 49_000 + index) >> 24
    return EdgeNode(group, name, NodeItself(node_id, group, node_seed, NODE_PERIOD_S), attached)

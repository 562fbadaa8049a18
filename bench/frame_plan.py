"""The telemetry of `bench.detection` as a plan: devices, rounds, alarm episodes, progress marks. Pure.

In: how many frames, a seed. Out: which template each frame is made from, which frames are marks.
Guarantees: the same plan for the same arguments; every frame has `METRICS_PER_FRAME` numbers, each with
a rule; in every partition the last frame is a mark.
Not here: bytes (`bench.frame_bodies`), Kafka (`bench.frame_topic`).
"""

from __future__ import annotations

import random
from typing import Final

import msgspec

from plantwire.schemas.records import AlarmRule, Limit
from plantwire.schemas.severity import Severity

PHYSICAL_METRICS: Final = (
    "temperature",
    "pressure",
    "flow",
    "vibration",
    "current",
    "voltage",
    "speed",
    "torque",
    "level",
)
MARK_METRIC: Final = "progress"
METRICS_PER_FRAME: Final = len(PHYSICAL_METRICS) + 1
DELAYED_METRIC: Final = "level"
HIGH_LIMIT: Final = 90.0
CRITICAL_LIMIT: Final = 100.0
MARK_LIMIT: Final = 0.5
MARK_RULE: Final = "progress-mark"
ROUND_MS: Final = 1_000

NORMAL: Final = 0
HIGH: Final = 1
CRITICAL: Final = 2
# What one episode does to its metric, a level per round: up in two steps, back in two.
EPISODE: Final = (HIGH,) * 4 + (CRITICAL,) * 8 + (HIGH,) * 3
EPISODE_GAP_ROUNDS: Final = (200, 400)
# No delay may still run when the frames end: an engine with timers would let it pass, others could not.
QUIET_END_ROUNDS: Final = 10

RULES: Final = (
    *(
        AlarmRule(
            rule_id=f"{metric}-high",
            version=1,
            devices="machine-*",
            metric=metric,
            limits=(
                Limit(Severity.CRITICAL, above=CRITICAL_LIMIT, deadband=2.0),
                Limit(Severity.HIGH, above=HIGH_LIMIT, deadband=2.0),
            ),
            on_delay_ms=3_000 if metric == DELAYED_METRIC else 0,
        )
        for metric in PHYSICAL_METRICS
    ),
    AlarmRule(
        rule_id=MARK_RULE,
        version=1,
        devices="*",
        metric=MARK_METRIC,
        limits=(Limit(Severity.INFO, above=MARK_LIMIT),),
    ),
)


class Template(msgspec.Struct, frozen=True):
    """What a frame's bytes depend on, apart from its time."""

    device: int
    variant: int
    metric: int = 0
    level: int = NORMAL
    """Level of `metric`; the other metrics are normal."""
    mark: bool = False


class FramePlan(msgspec.Struct, frozen=True):
    """Rounds in which every device sends one frame; `marks` frames per partition raise a mark alarm."""

    rounds: int
    devices: int = 200
    partitions: int = 4
    marks: int = 100
    variants: int = 16
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.rounds, self.devices, self.partitions, self.variants) < 1:
            raise ValueError("rounds, devices, partitions and variants are at least 1")
        if self.devices % self.partitions:
            raise ValueError(f"{self.devices} devices do not divide by {self.partitions} partitions")
        if not 2 <= self.marks <= self.rounds // 2:
            raise ValueError(f"{self.rounds} rounds have room for 2 to {self.rounds // 2} marks")

    @property
    def frames(self) -> int:
        """All frames."""
        return self.rounds * self.devices

    @property
    def samples(self) -> int:
        """All numbers in all frames."""
        return self.frames * METRICS_PER_FRAME

    def partition_of(self, device: int) -> int:
        """Where a device's frames go."""
        return device % self.partitions

    def is_mark(self, device: int, round_number: int) -> bool:
        """Whether this frame raises the mark alarm: one of the last device of each partition."""
        if device < self.devices - self.partitions:
            return False
        # The rounds of the marks are spread evenly, the last one in the last round.
        passed = (round_number + 1) * self.marks // self.rounds
        return passed > round_number * self.marks // self.rounds

    def frames_done(self, round_number: int) -> int:
        """Frames of one partition up to and including the mark of `round_number`."""
        return (round_number + 1) * self.devices // self.partitions

    def event_time_ms(self, base_ms: int, device: int, round_number: int) -> int:
        """The event time of a frame; devices measure one after the other within a round."""
        return base_ms + round_number * ROUND_MS + device * ROUND_MS // self.devices

    def round_of(self, base_ms: int, device: int, event_time_ms: int) -> int:
        """The inverse of `event_time_ms`: the round in which a device measured."""
        return (event_time_ms - base_ms - device * ROUND_MS // self.devices) // ROUND_MS

    def templates(self) -> list[dict[int, Template]]:
        """Per device, the frames that are part of an episode, by round. All others are normal."""
        rng = random.Random(self.seed)
        special: list[dict[int, Template]] = []
        for device in range(self.devices):
            rounds: dict[int, Template] = {}
            begin = rng.randint(0, EPISODE_GAP_ROUNDS[1])
            while begin + len(EPISODE) + QUIET_END_ROUNDS <= self.rounds:
                metric = rng.randrange(len(PHYSICAL_METRICS))
                for step, level in enumerate(EPISODE):
                    rounds[begin + step] = Template(device, (begin + step) % self.variants, metric, level)
                begin += len(EPISODE) + rng.randint(*EPISODE_GAP_ROUNDS)
            special.append(rounds)
        return special

    def template(self, special: list[dict[int, Template]], device: int, round_number: int) -> Template:
        """The template of one frame; `special` is what `templates` gave."""
        mark = self.is_mark(device, round_number)
        found = special[device].get(round_number)
        if found is None:
            return Template(device, (round_number + device) % self.variants, mark=mark)
        return msgspec.structs.replace(found, mark=True) if mark else found


def machine_id(device: int) -> str:
    """The id of device number `device`."""
    return f"machine-{device:04d}"


def device_number(machine: str) -> int:
    """The inverse of `machine_id`; raises ValueError for another id."""
    return int(machine.removeprefix("machine-"))

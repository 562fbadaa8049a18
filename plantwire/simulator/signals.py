"""Shapes that machine signals are made of.

In: a time in seconds and a seed. Out: a number.
Guarantees: pure: the same arguments give the same number on every machine, for any time in any order.
Not here: machines (`simulator.machines`), clocks (`simulator.run`).
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

_MASK: Final = (1 << 64) - 1


def mix(seed: int, index: int) -> int:
    """64 well-mixed bits of (seed, index): the SplitMix64 finaliser of Steele, Lea and Flood (2014)."""
    z = (seed * 0x9E3779B97F4A7C15 + index * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1)."""
    return (mix(seed, index) >> 11) / (1 << 53)


def gaussian(seed: int, index: int) -> float:
    """A number of mean 0 and standard deviation 1, never beyond ±3.5: the sum of four uniform ones."""
    bits = mix(seed, index)
    total = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48)
    return (total / 65536.0 - 2.0) * math.sqrt(3.0)


def white_noise(seed: int, t_s: float, step_s: float = 0.1) -> float:
    """Measurement noise of standard deviation 1; constant for `step_s`, then independent."""
    return gaussian(seed, math.floor(t_s / step_s))


def wander(seed: int, t_s: float, period_s: float) -> float:
    """Slow drift: continuous, within ±3.5, a new direction every `period_s`."""
    position = t_s / period_s
    index = math.floor(position)
    before, after = gaussian(seed, index), gaussian(seed, index + 1)
    return before + (after - before) * smooth_step(position - index)


def load_steps(seed: int, t_s: float, period_s: float, low: float, high: float) -> float:
    """A set-point that changes every `period_s` to another level from `low` to `high`, over a tenth of it."""
    position = t_s / period_s
    index = math.floor(position)
    before, after = uniform(seed, index - 1), uniform(seed, index)
    level = before + (after - before) * smooth_step((position - index) * 10.0)
    return low + (high - low) * level


def duty_cycle(t_s: float, period_s: float, duty: float, edge_s: float) -> float:
    """A work cycle: 1 for the part `duty` of each `period_s`, 0 for the rest, with edges of `edge_s`."""
    phase_s = t_s % period_s
    busy_s = period_s * duty
    return smooth_step(phase_s / edge_s) * (1.0 - smooth_step((phase_s - busy_s) / edge_s))


def wave(t_s: float, period_s: float, phase: float = 0.0) -> float:
    """A sine of amplitude 1; `phase` in turns."""
    return math.sin(2.0 * math.pi * (t_s / period_s + phase))


def sawtooth(t_s: float, period_s: float, rising: float) -> float:
    """Fill and drain: 0 to 1 in the part `rising` of each `period_s`, back to 0 in the rest."""
    phase = t_s % period_s / period_s
    return phase / rising if phase < rising else (1.0 - phase) / (1.0 - rising)


def smooth_step(x: float) -> float:
    """0 below 0, 1 above 1, a smooth cubic between."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    return x * x * (3.0 - 2.0 * x)


class FaultPlan(msgspec.Struct, frozen=True):
    """When a machine fails: at `first_s`, then every `every_s`; it worsens, stays so, and recovers."""

    first_s: float
    every_s: float
    rise_s: float = 14.0
    hold_s: float = 12.0
    fall_s: float = 14.0

    @property
    def length_s(self) -> float:
        """From the first sign to full recovery."""
        return self.rise_s + self.hold_s + self.fall_s

    def degree(self, t_s: float) -> float:
        """How far the fault is at `t_s`: 0 healthy, 1 fully developed."""
        since_s = t_s - self.first_s
        if since_s < 0.0:
            return 0.0
        since_s %= self.every_s
        if since_s < self.rise_s + self.hold_s:
            return smooth_step(since_s / self.rise_s)
        return 1.0 - smooth_step((since_s - self.rise_s - self.hold_s) / self.fall_s)


NO_FAULT: Final = FaultPlan(first_s=math.inf, every_s=math.inf)

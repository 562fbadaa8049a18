"""Made-up metrics with faults at known places: what a single recording is too short to show.

In: nothing. Out: series of values with the windows of their faults.
Guarantees: the same on every machine. Five kinds of metrics, three of each, and in each one fault of every
kind; sizes are in standard deviations of the healthy metric.
Not here: the real recording (`simulator.nab`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from bench.anomaly_alarms import Window
from plantwire.simulator.signals import gaussian, load_steps, mix, sawtooth, uniform, wander, wave

VALUES: Final = 6_000
STEP_S: Final = 300.0
PER_KIND: Final = 3
FAULT_VALUES: Final = 72
AFTERMATH_VALUES: Final = 24
"""An alarm this long after a fault still counts as of it."""
FAULTS: Final = ("shift", "ramp", "noise", "stuck", "drop")
_FIRST: Final = 1_500
_EVERY: Final = 850
_JITTER: Final = 400


class Series(NamedTuple):
    """Values `STEP_S` apart from time 0; the windows are in the order of `FAULTS`."""

    name: str
    values: tuple[float, ...]
    windows: tuple[Window, ...]


def _steady(seed: int, at: float) -> float:
    return 50.0 + 1.5 * wander(seed + 1, at, 700.0)


def _daily(seed: int, at: float) -> float:
    return 60.0 + 6.0 * wave(at, 288.0, uniform(seed, 9)) + 1.5 * wander(seed + 1, at, 700.0)


def _steps(seed: int, at: float) -> float:
    return 70.0 + load_steps(seed + 3, at, 400.0, -8.0, 8.0)


def _cycle(seed: int, at: float) -> float:
    return 40.0 + 10.0 * sawtooth(at + seed % 97, 120.0, 0.6)


def _restless(seed: int, at: float) -> float:
    return 85.0 + 5.0 * wander(seed + 5, at, 90.0) + 3.0 * wander(seed + 6, at, 900.0)


KINDS: Final[dict[str, tuple[Callable[[int, float], float], float]]] = {
    "steady": (_steady, 1.8),
    "daily": (_daily, 4.6),
    "steps": (_steps, 5.0),
    "cycle": (_cycle, 3.2),
    "restless": (_restless, 5.5),
}
"""Each with about its standard deviation, noise of standard deviation 1 included."""


def all_series() -> tuple[Series, ...]:
    """Every kind, `PER_KIND` times."""
    return tuple(
        _series(kind, 1_000 * place + number)
        for place, kind in enumerate(KINDS)
        for number in range(PER_KIND)
    )


def _series(kind: str, seed: int) -> Series:
    shape, deviation = KINDS[kind]
    values = [shape(seed, float(n)) + gaussian(seed, n) for n in range(VALUES)]
    windows = []
    for place, fault in enumerate(FAULTS):
        start = _FIRST + _EVERY * place + int(uniform(seed + 77, place) * _JITTER)
        sign = 1.0 if mix(seed, place) & 1 else -1.0
        stuck_at = values[start]
        for n in range(FAULT_VALUES):
            at = start + n
            if fault == "shift":
                values[at] += sign * 4.0 * deviation
            elif fault == "ramp":
                values[at] += sign * 5.0 * deviation * n / FAULT_VALUES
            elif fault == "noise":
                values[at] += 3.0 * deviation * gaussian(seed + 88, at)
            elif fault == "stuck":
                values[at] = stuck_at
            elif n < 12:
                values[at] -= 8.0 * deviation
        windows.append(Window(start * STEP_S, (start + FAULT_VALUES + AFTERMATH_VALUES) * STEP_S))
    return Series(f"{kind}-{seed}", tuple(values), tuple(windows))

"""One measured run of one engine over the filled topic of `bench.aggregation`.

In: an engine, the windows that the plan gives. Out: `WindowsRun`: rates, CPU seconds.
Guarantees: start-up and the end are left out: what is measured lies between two parts of all windows, as read
from the engine's own topic (`MEASURED_PART`). Raises RuntimeError where a window differs.
Not here: comparing engines (`bench.aggregation`).
"""

from __future__ import annotations

import time
from typing import Final

import msgspec

from bench.cpu import Moment, take_moment, usage_between
from bench.engine_processes import Engine, on_cpus
from bench.window_plan import MEASURED_PART, SAMPLES_PER_WINDOW, Windows, difference
from bench.window_topic import Nudge, WindowsReader

STALL_TIMEOUT_S: Final = 60.0
QUIET_S: Final = 1.0
NUDGE_AFTER_S: Final = 0.5


class WindowsRun(msgspec.Struct, frozen=True):
    """What one run gave."""

    engine: str
    start_up_s: float
    """From the start of the processes to the first window."""
    samples: int
    """Samples of the windows within the measured part."""
    wall_s: float
    cpu_s: dict[str, float]
    cpu_total_s: float
    machine_busy_s: float
    """All processes of the machine within the measured part."""
    samples_per_s: float
    samples_per_cpu_s: float
    rss_mib: float
    windows: int
    doubled_windows: int


def run_engine(
    engine: Engine, bootstrap: str, expected: Windows, nudge: Nudge, cpus: tuple[int, ...]
) -> WindowsRun:
    """Run `engine` from start to end."""
    reader = WindowsReader(bootstrap, engine.output_topic)
    try:
        return _follow(engine, reader, expected, nudge, cpus)
    finally:
        engine.stop()
        reader.close()


def _follow(
    engine: Engine, reader: WindowsReader, expected: Windows, nudge: Nudge, cpus: tuple[int, ...]
) -> WindowsRun:
    all_records = sum(len(metrics) for metrics in expected.values())
    started_s = last_s = time.monotonic()
    with on_cpus(cpus):
        engine.start()
    first_s: float | None = None
    edges: list[tuple[Moment, float, int]] = []
    while reader.records < all_records:
        if reader.read(0.1):
            last_s = time.monotonic()
            first_s = first_s or last_s
        if len(edges) < 2 and reader.records >= MEASURED_PART[len(edges)] * all_records:
            edges.append((take_moment(engine.parts()), last_s, reader.records))
        elif edges and time.monotonic() - last_s > NUDGE_AFTER_S:
            nudge.send()
        if (death := engine.death()) is not None:
            raise RuntimeError(f"{engine.name}: {death}")
        if time.monotonic() - last_s > STALL_TIMEOUT_S:
            raise RuntimeError(f"{engine.name}: no window for {STALL_TIMEOUT_S:.0f} s after {reader.records}")
    rss_mib = sum(p.memory_info().rss for part in engine.parts().values() for p in part) / 2**20
    quiet_s = last_s
    # Windows beyond those that are asked for may have come before some that are.
    while time.monotonic() - quiet_s < QUIET_S:
        if reader.read(0.1):
            quiet_s = time.monotonic()
    (begin, begin_s, begin_records), (end, end_s, end_records) = edges
    assert first_s is not None
    found, doubled = reader.windows()
    if (different := difference(expected, found)) is not None:
        raise RuntimeError(f"{engine.name}: {different}")
    usage = usage_between(begin, end)
    if usage.ended:
        raise RuntimeError(f"{engine.name}: a process of {usage.ended} ended within the measured part")
    samples, wall_s = (end_records - begin_records) * SAMPLES_PER_WINDOW, end_s - begin_s
    cpu_total_s = sum(usage.by_part_s.values())
    return WindowsRun(
        engine=engine.name,
        start_up_s=round(first_s - started_s, 3),
        samples=samples,
        wall_s=round(wall_s, 3),
        cpu_s=usage.by_part_s,
        cpu_total_s=round(cpu_total_s, 3),
        machine_busy_s=usage.machine_busy_s,
        samples_per_s=round(samples / wall_s, 1),
        samples_per_cpu_s=round(samples / cpu_total_s, 1),
        rss_mib=round(rss_mib, 1),
        windows=all_records,
        doubled_windows=doubled,
    )

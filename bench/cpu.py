"""CPU seconds of groups of processes, and of the whole machine.

In: processes by the part that they belong to. Out: seconds used between two moments.
Guarantees: user and system time of all threads; a process that ended between the moments is named in
`ended`, its time is not guessed.
Not here: which processes there are (`bench.stack_processes`, `bench.detection`).
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import psutil


class Moment(msgspec.Struct, frozen=True):
    """CPU seconds since their start, by part and process id."""

    by_process: dict[str, dict[int, float]]
    machine_busy_s: float


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds between two moments."""

    by_part_s: dict[str, float]
    machine_busy_s: float
    """All processes of the machine together, the measured ones included."""
    ended: tuple[str, ...]
    """Parts that lost a process meanwhile: their seconds are too few."""


def take_moment(parts: Mapping[str, Iterable[psutil.Process]]) -> Moment:
    """The CPU time of every process of `parts`, now."""
    by_process: dict[str, dict[int, float]] = {}
    for part, processes in parts.items():
        times = by_process.setdefault(part, {})
        for process in processes:
            try:
                used = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            times[process.pid] = used.user + used.system
    machine = psutil.cpu_times()
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    return Moment(by_process, sum(machine) - idle - getattr(machine, "guest", 0.0))


def usage_between(begin: Moment, end: Moment) -> Usage:
    """What was used from `begin` to `end`; a process that came meanwhile counts from its start."""
    by_part: dict[str, float] = {}
    ended: list[str] = []
    for part in sorted(begin.by_process.keys() | end.by_process.keys()):
        before, after = begin.by_process.get(part, {}), end.by_process.get(part, {})
        if before.keys() - after.keys():
            ended.append(part)
        by_part[part] = round(sum(used - before.get(pid, 0.0) for pid, used in after.items()), 3)
    return Usage(by_part, round(end.machine_busy_s - begin.machine_busy_s, 3), tuple(ended))


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; empty when it is gone."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def thread_times_s(processes: Iterable[psutil.Process]) -> dict[str, float]:
    """CPU seconds by thread name, numbers left out; empty where the system does not tell (not Linux)."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    times: defaultdict[str, float] = defaultdict(float)
    for process in processes:
        for task in Path(f"/proc/{process.pid}/task").glob("*/stat"):
            try:
                stat = task.read_text("utf-8", "replace")
            except OSError:
                continue  # a thread that has just ended
            name, used = parse_thread_stat(stat)
            times[name] += used / ticks_per_s
    return dict(times)


def parse_thread_stat(stat: str) -> tuple[str, int]:
    """Name (numbers left out) and CPU ticks of a line as /proc/PID/task/TID/stat has it, see proc(5)."""
    begin, end = stat.index("("), stat.rindex(")")
    fields = stat[end + 2 :].split()
    user, system = int(fields[11]), int(fields[12])
    return re.sub(r"\d+", "", stat[begin + 1 : end]).strip("#-: ") or "unnamed", user + system


def top_differences(begin: Mapping[str, float], end: Mapping[str, float], count: int) -> dict[str, float]:
    """The `count` largest growths, largest first, rounded to ms; the rest as `other`."""
    grown = {name: used - begin.get(name, 0.0) for name, used in end.items()}
    ordered = sorted(grown.items(), key=lambda item: -item[1])
    shown = {name: round(used, 3) for name, used in ordered[:count]}
    rest = sum(used for _, used in ordered[count:])
    return {**shown, "other": round(rest, 3)} if len(ordered) > count else shown

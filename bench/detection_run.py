"""One measured run of one engine over the filled topic.

In: an engine, the plan of the topic. Out: `EngineRun`: rates, CPU seconds, the set of alarms.
Guarantees: start-up is left out: the window opens when `WINDOW_BEGIN` of all frames are through and closes
when all are, as told by the mark alarms that the engine itself put out; CPU seconds are of the same window.
Not here: comparing engines (`bench.detection`).
"""

from __future__ import annotations

import time
from typing import Final

import msgspec

from bench.alarm_topic import AlarmTopicReader
from bench.cpu import take_moment, thread_times_s, top_differences, usage_between
from bench.engine_processes import Engine, on_cpus
from bench.frame_plan import MARK_RULE, METRICS_PER_FRAME, FramePlan, device_number
from bench.progress import Progress
from plantwire.schemas.records import AlarmEvent, AlarmKind

WINDOW_BEGIN: Final = 0.2
STALL_TIMEOUT_S: Final = 60.0
QUIET_S: Final = 1.0
THREADS_SHOWN: Final = 8

AlarmKey = tuple[str, int, str, int]
"""(alarm id, revision, kind, severity)."""


class EngineRun(msgspec.Struct, frozen=True):
    """What one run gave."""

    engine: str
    start_up_s: float
    """From the start of the processes to the first alarm."""
    frames: int
    """Frames within the window."""
    wall_s: float
    cpu_s: dict[str, float]
    """By part of the engine, within the window."""
    cpu_total_s: float
    cpu_by_thread_s: dict[str, float]
    """The engine's busiest threads by name, within the window: what bounds it."""
    machine_busy_s: float
    """All processes of the machine within the window: the engine, Kafka, this one, whatever else ran."""
    samples_per_s: float
    samples_per_cpu_s: float
    rss_mib: float
    rates_per_tenth: tuple[float, ...]
    """Frames/s within each tenth of the work: whether it was steady."""
    alarm_events: int
    doubled_events: int


def run_engine(
    engine: Engine, bootstrap: str, plan: FramePlan, base_ms: int, cpus: tuple[int, ...]
) -> tuple[EngineRun, set[AlarmKey]]:
    """Run `engine` from start to end. Raises RuntimeError when it dies or stalls."""
    reader = AlarmTopicReader(bootstrap, engine.output_topic)
    reader.start_at_end()
    try:
        return _follow(engine, reader, plan, base_ms, cpus)
    finally:
        engine.stop()
        reader.close()


def _follow(
    engine: Engine, reader: AlarmTopicReader, plan: FramePlan, base_ms: int, cpus: tuple[int, ...]
) -> tuple[EngineRun, set[AlarmKey]]:
    started_s = time.monotonic()
    with on_cpus(cpus):
        engine.start()
    progress = Progress(plan.partitions, plan.frames)
    events: list[AlarmEvent] = []
    begin = None
    begin_s = begin_frames = 0.0
    begin_threads: dict[str, float] = {}
    last_s = time.monotonic()
    while not progress.complete:
        if more := reader.read(0.1):
            last_s = time.monotonic()
            events += more
            _note_marks(progress, plan, base_ms, more, last_s)
        if begin is None and progress.reached(WINDOW_BEGIN):
            begin, begin_s, begin_frames = take_moment(engine.parts()), last_s, progress.frames
            begin_threads = _thread_times_s(engine)
        _check(engine, progress, time.monotonic() - last_s)
    end = take_moment(engine.parts())
    end_threads = _thread_times_s(engine)
    rss_mib = sum(p.memory_info().rss for part in engine.parts().values() for p in part) / 2**20
    # Alarms of other partitions may still be on their way.
    events += reader.read_until_quiet(QUIET_S)
    engine.stop()
    events += reader.read_until_quiet(QUIET_S)
    assert begin is not None
    usage = usage_between(begin, end)
    if usage.ended:
        raise RuntimeError(f"{engine.name}: a process of {usage.ended} ended within the window")
    frames, wall_s = int(progress.frames - begin_frames), last_s - begin_s
    cpu_total_s = sum(usage.by_part_s.values())
    keys = {(e.alarm_id, e.revision, e.kind, e.severity) for e in events}
    run = EngineRun(
        engine=engine.name,
        start_up_s=round(progress.points[0].at_s - started_s, 3),
        frames=frames,
        wall_s=round(wall_s, 3),
        cpu_s=usage.by_part_s,
        cpu_total_s=round(cpu_total_s, 3),
        cpu_by_thread_s=top_differences(begin_threads, end_threads, THREADS_SHOWN),
        machine_busy_s=usage.machine_busy_s,
        samples_per_s=round(frames * METRICS_PER_FRAME / wall_s, 1),
        samples_per_cpu_s=round(frames * METRICS_PER_FRAME / cpu_total_s, 1),
        rss_mib=round(rss_mib, 1),
        rates_per_tenth=tuple(progress.rates_per_s(10)),
        alarm_events=len(events),
        doubled_events=len(events) - len(keys),
    )
    return run, keys


def _thread_times_s(engine: Engine) -> dict[str, float]:
    return thread_times_s(process for part in engine.parts().values() for process in part)


def _note_marks(
    progress: Progress, plan: FramePlan, base_ms: int, events: list[AlarmEvent], at_s: float
) -> None:
    for event in events:
        if event.rule_id != MARK_RULE or event.kind != AlarmKind.RAISED:
            continue
        device = device_number(event.device_id)
        round_number = plan.round_of(base_ms, device, event.event_time_ms)
        progress.note(plan.partition_of(device), plan.frames_done(round_number), at_s)


def _check(engine: Engine, progress: Progress, silent_s: float) -> None:
    if (death := engine.death()) is not None:
        raise RuntimeError(f"{engine.name}: {death}")
    if silent_s > STALL_TIMEOUT_S:
        raise RuntimeError(
            f"{engine.name}: no alarm for {STALL_TIMEOUT_S:.0f} s after {progress.frames} frames"
        )

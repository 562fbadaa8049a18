"""`python -m bench.latency`: a critical alarm from a device to many screens, under load, by stage.

In: command line. Out: bench/results/latency.json (latency-main.json, latency-knee.json for a part alone) and
tables; exit code 0 when it ran, whether or not its targets hold.
Guarantees: open-loop load through the real gateway, Kafka, Flink, Redis and distribution processes on this
machine; every (alarm, client) pair counts; nothing is left out as an outlier.
Not here: what a figure means (README.md), one run (`bench.latency_run`).
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from rich.console import Console
from rich.table import Table

from bench import report
from bench.deliveries import WHOLE, StageTime
from bench.freshness import Freshness
from bench.knee import KneeSearch
from bench.latency_run import LatencyRun, run_latency
from bench.load_schedule import LoadPlan
from bench.spread import Distribution
from bench.stack_control import BenchError, Stack, own_stack, running_stack

RULES_FILE: Final = report.ROOT / "bench" / "latency_rules.yaml"
KNEE_WARM_UP_MS: Final = 10_000
KNEE_STEP: Final = 250
KNEE_RESOLUTION: Final = 50
KNEE_CEILING: Final = 5_000
CAUGHT_UP_RECORDS: Final = 100
CATCH_UP_TIMEOUT_S: Final = 90.0
CATCH_UP_LOOK_S: Final = 2.0
FRESHNESS_P99_MS: Final = 1_000


class KneeStep(msgspec.Struct, frozen=True):
    """One rate that was tried."""

    frames_per_s: int
    held: bool
    whole_ms: Distribution | None
    planned: int
    accepted: int
    lost_raises: int
    doubled: int
    second_ids: int
    generator_late_ms: Distribution | None
    cores_by_part: dict[str, float]
    other_cores: float


def holds(run: LatencyRun) -> bool:
    """What a rate must do to count for the knee."""
    p99_ms = run.p99_ms
    in_time = p99_ms is not None and p99_ms < (WHOLE.budget_p99_ms or 0)
    each_once = run.delivered.lost_raises == run.delivered.doubled == run.delivered.second_ids == 0
    return in_time and run.accepted_all and each_once


def find_knee(
    console: Console, stack: Stack, arguments: argparse.Namespace, first_raise: int, folder: Path
) -> tuple[int | None, list[KneeStep]]:
    """Try rates until the knee is found; the pipeline catches up before each."""
    search = KneeSearch(arguments.rate, KNEE_STEP, KNEE_RESOLUTION, KNEE_CEILING)
    steps: list[KneeStep] = []
    while (rate := search.next_rate()) is not None:
        wait_until_caught_up(stack)
        plan = LoadPlan(
            frames_per_s=rate,
            devices=arguments.devices,
            warm_up_ms=KNEE_WARM_UP_MS,
            window_ms=arguments.knee_window_s * 1000,
            first_raise=first_raise,
        )
        first_raise += plan.raise_count
        run = asyncio.run(run_latency(stack, plan, arguments.clients, arguments.official, folder))
        search.note(rate, held := holds(run))
        steps.append(
            KneeStep(
                frames_per_s=rate,
                held=held,
                whole_ms=run.delivered.whole.ms,
                planned=run.load.planned,
                accepted=run.load.accepted,
                lost_raises=run.delivered.lost_raises,
                doubled=run.delivered.doubled,
                second_ids=run.delivered.second_ids,
                generator_late_ms=run.load.late_ms,
                cores_by_part=run.cores_by_part,
                other_cores=run.other_cores,
            )
        )
        verdict = "holds" if held else "does not hold"
        console.print(
            f"knee: {rate} frames/s {verdict}: p99 {run.p99_ms} ms, {run.load.accepted} of "
            f"{run.load.planned} accepted, {run.delivered.lost_raises} lost"
        )
    return search.knee, steps


def wait_until_caught_up(stack: Stack) -> None:
    """A step begins with empty queues; raises BenchError when they do not empty."""
    deadline_s = time.monotonic() + CATCH_UP_TIMEOUT_S
    while (pending := stack.pending_records()) > CAUGHT_UP_RECORDS:
        if time.monotonic() > deadline_s:
            raise BenchError(
                f"The engine still has {pending} records to read after {CATCH_UP_TIMEOUT_S:.0f} s"
            )
        time.sleep(CATCH_UP_LOOK_S)  # it tells those who ask only


def main_targets(run: LatencyRun) -> list[report.Target]:
    """The targets of the main run; without a single alarm there are no latency targets to hold."""
    delivered, fire = run.delivered, run.fire
    targets = []
    if (whole := delivered.whole.ms) is not None:
        targets += [
            report.below("whole path, critical, p95", whole.p95, WHOLE.budget_p95_ms or 0, "ms"),
            report.below("whole path, critical, p99", whole.p99, WHOLE.budget_p99_ms or 0, "ms"),
        ]
    for stage in delivered.stages:
        if stage.ms is not None and stage.budget_p95_ms is not None and stage.budget_p99_ms is not None:
            targets.append(report.at_most(f"{stage.name}, p95", stage.ms.p95, stage.budget_p95_ms, "ms"))
            targets.append(report.at_most(f"{stage.name}, p99", stage.ms.p99, stage.budget_p99_ms, "ms"))
    if (age := run.freshness.age_ms) is not None:
        targets.append(report.below("device → queryable row, p99", age.p99, FRESHNESS_P99_MS, "ms"))
    second_ids = delivered.second_ids + run.official.second_ids + fire.second_ids
    return [
        *targets,
        report.at_most("raises lost at a client", delivered.lost_raises + run.official.lost_raises, 0),
        report.at_most("clears lost at a client", delivered.lost_clears + run.official.lost_clears, 0),
        report.at_most("alarms doubled at a client", delivered.doubled + run.official.doubled, 0),
        report.at_most("raises under a second id", second_ids, 0),
        report.at_most("raises missing in alarms.fire", fire.missing_raises, 0),
        report.at_most("clears missing in alarms.fire", fire.missing_clears, 0),
        report.at_most("frames not accepted", run.load.planned - run.load.accepted, 0),
    ]


def print_run(console: Console, run: LatencyRun) -> None:
    """Stages against the budget, what the slow ones are made of, who used the processors."""
    console.print(_stage_table(run.delivered.stages, run.delivered.parts, run.delivered.whole))
    console.print(_freshness_table(run.freshness))
    made_of = Table("pairs", "count", "mean ms", *(s.name for s in run.delivered.stages), title="Made of")
    for band in run.delivered.bands:
        shares = [f"{ms:.1f} ms, {band.stage_share[stage]:.0%}" for stage, ms in band.stage_mean_ms.items()]
        made_of.add_row(band.name, f"{band.pairs:,}", f"{band.whole_mean_ms:.1f}", *shares)
    console.print(made_of)
    cores = Table("part", "cores", title="Processor time within the window")
    for part, used in sorted(run.cores_by_part.items(), key=lambda item: -item[1]):
        cores.add_row(part, f"{used:.2f}")
    cores.add_row("anything else on this machine", f"{run.other_cores:.2f}")
    console.print(cores)
    load = run.load
    console.print(
        f"frames: {load.planned} planned, {load.sent} sent, {load.accepted} accepted; not accepted: "
        f"{load.not_accepted or 'none'}\n"
        f"generator late by (p99, max): {load.late_ms and (load.late_ms.p99, load.late_ms.max)} ms; "
        f"telemetry to clients: {run.telemetry_messages_per_s:,.0f} messages/s\n"
        f"raises: {run.delivered.expected_raises} expected, {run.delivered.measured_raises} in the window; "
        f"per alarm, median client p99 "
        f"{run.delivered.median_client_ms and run.delivered.median_client_ms.p99} ms, last client p99 "
        f"{run.delivered.last_client_ms and run.delivered.last_client_ms.p99} ms"
    )
    found = run.delivered
    examples = (*found.lost_examples, *found.doubled_examples, *found.second_id_examples)
    for line in (*examples, *run.disconnected[:10]):
        console.print(f"[red]{line}[/red]")


def _freshness_table(freshness: Freshness) -> Table:
    table = Table("", "count", "p50", "p95", "p99", "max", title="Device → queryable row, ms")
    for name, ms in (("age of a row when it is found", freshness.age_ms), ("a query", freshness.look_ms)):
        if ms is not None:
            figures = [f"{value:.1f}" for value in (ms.p50, ms.p95, ms.p99, ms.max)]
            table.add_row(name, f"{ms.count:,}", *figures)
    table.add_row("came after a newer frame, not timed", f"{freshness.unseen:,}", *[""] * 4)
    return table


def _stage_table(stages: Sequence[StageTime], parts: Sequence[StageTime], whole: StageTime) -> Table:
    table = Table("stage", "p50", "p95", "budget", "p99", "budget", "max", title="Stages, ms")
    for stage in (*stages, whole, *parts):
        if stage.ms is None:
            table.add_row(stage.name, *["-"] * 6)
            continue
        budgets = [f"{b:g}" if b is not None else "" for b in (stage.budget_p95_ms, stage.budget_p99_ms)]
        figures = [f"{ms:.1f}" for ms in (stage.ms.p50, stage.ms.p95, stage.ms.p99, stage.ms.max)]
        table.add_row(stage.name, figures[0], figures[1], budgets[0], figures[2], budgets[1], figures[3])
    return table


def measure(
    console: Console, stack: Stack, arguments: argparse.Namespace, folder: Path
) -> tuple[dict[str, Any], tuple[report.Target, ...]]:
    """The main run and the knee, as asked."""
    figures: dict[str, Any] = {}
    targets: list[report.Target] = []
    first_raise = 0
    if arguments.part in ("all", "main"):
        plan = LoadPlan(
            frames_per_s=arguments.rate,
            devices=arguments.devices,
            raises_per_s=arguments.raises,
            warm_up_ms=arguments.warm_up_s * 1000,
            window_ms=arguments.window_s * 1000,
        )
        run = asyncio.run(run_latency(stack, plan, arguments.clients, arguments.official, folder))
        first_raise = plan.raise_count
        print_run(console, run)
        figures["run"] = run
        targets += main_targets(run)
    if arguments.part in ("all", "knee"):
        knee, steps = find_knee(console, stack, arguments, first_raise, folder)
        figures["knee"] = {"frames_per_s": knee, "steps": steps}
        targets.append(report.at_least("knee", knee or 0, 500, "frames/s"))
    return figures, tuple(targets)


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=int, default=500, help="frames/s of 10 metrics; the knee starts here")
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--raises", type=int, default=5, help="critical raises/s")
    parser.add_argument("--clients", type=int, default=100, help="Socket.IO clients, all told")
    parser.add_argument("--official", type=int, default=2, help="of these, unchanged python-socketio ones")
    parser.add_argument("--warm-up-s", type=int, default=30)
    parser.add_argument("--window-s", type=int, default=180)
    parser.add_argument("--knee-window-s", type=int, default=40)
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--knee", dest="part", action="store_const", const="knee", help="the knee alone")
    parts.add_argument("--no-knee", dest="part", action="store_const", const="main", help="no knee")
    parser.add_argument(
        "--use-running", action="store_true", help="measure the running stack of this PLANTWIRE_HOME"
    )
    parser.add_argument("--engine", choices=["flink", "light"], default="flink", help="of the own stack")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder for latency.json")
    parser.set_defaults(part="all")
    arguments = parser.parse_args(words)
    if not 0 < arguments.official < arguments.clients:
        parser.error("--official must leave at least one light client, and be at least 1")
    return arguments


def main() -> None:
    """Bring the stack up, measure, report."""
    arguments = parse_arguments()
    console = Console(width=140 if not sys.stdout.isatty() else None)
    folder = Path(tempfile.mkdtemp(prefix="plantwire-bench-"))
    chosen = (
        running_stack(RULES_FILE)
        if arguments.use_running
        else own_stack(folder / "home", RULES_FILE, arguments.engine)
    )
    try:
        with chosen as stack:
            figures, targets = measure(console, stack, arguments, folder)
    except (BenchError, ValueError, psycopg.Error) as error:
        console.print(f"[red]{error}[/red]\nLogs are kept in {folder}")
        raise SystemExit(1) from None
    shutil.rmtree(folder)
    parameters = {
        name: value for name, value in vars(arguments).items() if name not in ("results", "use_running")
    }
    # A part alone must not replace the whole result.
    name = "latency" if arguments.engine == "flink" else f"latency-{arguments.engine}"
    name = name if arguments.part == "all" else f"{name}-{arguments.part}"
    outcome = report.make_report(
        name,
        parameters={**parameters, "own_stack": not arguments.use_running, "metrics_per_frame": 10},
        figures=figures,
        ratios={},
        targets=targets,
    )
    report.print_targets(console, targets)
    console.print(f"Written to {report.write_report(outcome, arguments.results)}")


if __name__ == "__main__":
    main()

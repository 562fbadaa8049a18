"""`python -m bench.aggregation`: windows of 1 s, our Flink SQL against its peers; and to the database.

In: command line. Out: bench/results/aggregation.json and tables; exit code 0 when it ran and every engine
gave the planned windows, 1 when one did not or failed.
Guarantees: the same bytes from one topic; every window is held against the plan's own; engines take turns.
The storage process goes through the same topic, alone, and every sample and second has to be in the database.
Not here: what a figure means (README.md), ways into the database (`bench.storage`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its own re-export
from rich.console import Console
from rich.table import Table

from bench import report
from bench.aggregation_engines import BY_WORD, ENGINES, SQL, make_engine, windows_topic_of
from bench.aggregation_run import WindowsRun, run_engine
from bench.detection import prepare_peer_environment, require_same_code
from bench.engine_processes import (
    BYTEWAX,
    BYTEWAX_BY_LAYOUT,
    QUIX,
    QUIX_BY_LAYOUT,
    cpus_of,
    engines_of,
    on_cpus,
)
from bench.frame_plan import METRICS_PER_FRAME
from bench.spread import median, repeats
from bench.storage import TIMESCALEDB_VARIABLE, servers
from bench.storage_databases import fresh_database
from bench.storage_run import Run, run_storage
from bench.window_plan import ROUND_MS, SAMPLES_PER_WINDOW, WindowPlan
from bench.window_topic import Nudge, fill
from plantwire.schemas.topics import TELEMETRY_DLQ, TELEMETRY_RAW
from plantwire.schemas.windows import ONE_SECOND
from plantwire.stack.errors import StackError
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka

READY_TIMEOUT_S: Final = 60.0
END_BEFORE_NOW_MS: Final = 600_000
PEERS: Final = (QUIX, BYTEWAX, QUIX_BY_LAYOUT, BYTEWAX_BY_LAYOUT)
DEFAULT: Final = (SQL, *PEERS)


def run_all(
    console: Console, arguments: argparse.Namespace, plan: WindowPlan, folder: Path
) -> tuple[list[WindowsRun], dict[str, Run]]:
    """Fill the topic, store it, let the engines take turns; raises RuntimeError where windows or rows differ.

    Answers the engines' runs, and the storage's by kind of database.
    """
    port, controller_port = free_ports(2)
    kafka = Kafka(folder / "kafka", port, controller_port, folder / "kafka.log")
    kafka.prepare()
    runs: list[WindowsRun] = []
    stored: dict[str, Run] = {}
    try:
        with on_cpus(arguments.kafka_cpus):
            kafka.start()
        kafka.wait_ready(READY_TIMEOUT_S)
        _create(kafka.bootstrap, TELEMETRY_RAW, plan.partitions)
        base_ms = time.time_ns() // 1_000_000 - END_BEFORE_NOW_MS - plan.rounds * ROUND_MS
        base_ms -= base_ms % ONE_SECOND.size_ms
        filling_s = time.monotonic()
        fill(kafka.bootstrap, plan, base_ms)
        console.print(f"{plan.frames:,} frames written in {time.monotonic() - filling_s:.1f} s")
        if arguments.store:
            stored = _store(console, arguments, kafka.bootstrap, plan, base_ms, folder)
        expected, nudge = plan.windows(base_ms), Nudge(kafka.bootstrap, plan, base_ms)
        nudge.send()
        for turn in range(arguments.repeats):
            for place in range(len(arguments.engines)):
                name = arguments.engines[(turn + place) % len(arguments.engines)]
                run_name = f"{ENGINES.index(name)}-{turn}"
                _create(kafka.bootstrap, windows_topic_of(run_name), 1)
                engine = make_engine(name, kafka.bootstrap, plan.partitions, folder, run_name)
                run = run_engine(engine, kafka.bootstrap, expected, nudge, arguments.engine_cpus)
                runs.append(run)
                console.print(
                    f"{turn + 1}/{arguments.repeats} {name}: {run.samples_per_s:,.0f} samples/s, "
                    f"{run.samples_per_cpu_s:,.0f} per CPU second, {run.windows:,} windows as planned"
                )
    finally:
        kafka.stop()
    return runs, stored


def _store(
    console: Console,
    arguments: argparse.Namespace,
    bootstrap: str,
    plan: WindowPlan,
    base_ms: int,
    folder: Path,
) -> dict[str, Run]:
    """The storage process over the topic, before anything else is in it."""
    _create(bootstrap, TELEMETRY_DLQ, plan.partitions)
    stored: dict[str, Run] = {}
    with servers(arguments, folder) as at:
        for kind, server in at.items():
            with fresh_database(server, kind) as settings:
                stored[kind] = run_storage(bootstrap, settings, folder, plan.samples, plan.seconds(base_ms))
            console.print(f"through to {kind}: {stored[kind].samples_per_s:,.0f} samples/s")
    return stored


def _create(bootstrap: str, topic: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})  # ends what it has under way when it goes
    for future in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
        future.result(READY_TIMEOUT_S)


def summarise(
    runs: list[WindowsRun],
) -> tuple[dict[str, Any], dict[str, float], tuple[report.Target, ...]]:
    """Figures per engine with their spread, ratios of medians, targets."""
    by_engine = {name: [run for run in runs if run.engine == name] for name in ENGINES}
    by_engine = {name: found for name, found in by_engine.items() if found}
    figures = {
        name: {
            "samples_per_s": repeats([run.samples_per_s for run in found]),
            "samples_per_cpu_s": repeats([run.samples_per_cpu_s for run in found]),
            "rss_mib": repeats([run.rss_mib for run in found]),
            "start_up_s": repeats([run.start_up_s for run in found]),
            "runs": found,
        }
        for name, found in by_engine.items()
    }
    ratios: dict[str, float] = {}
    targets: list[report.Target] = []
    ours = by_engine.get(SQL, [])
    for peer in by_engine:
        if not ours or peer == SQL:
            continue
        for field, name in (("samples_per_cpu_s", "per core"), ("samples_per_s", "wall clock")):
            ratio = median(getattr(run, field) for run in ours) / median(
                getattr(run, field) for run in by_engine[peer]
            )
            ratios[f"{SQL} / {peer}, {name}"] = round(ratio, 3)
        if peer in PEERS:
            wall = ratios[f"{SQL} / {peer}, wall clock"]
            targets.append(report.above(f"samples/s for one slot, ratio to {peer}", wall, 1.0))
    return figures, ratios, tuple(targets)


def print_figures(
    console: Console, figures: dict[str, Any], stored: dict[str, Run], ratios: dict[str, float]
) -> None:
    """A line per engine and database, a line per ratio."""
    table = Table("engine", "samples/s", "min to max", "per CPU second", "MiB", title="Windows of 1 s")
    for name, found in figures.items():
        wall = found["samples_per_s"]
        table.add_row(
            name,
            f"{wall.median:,.0f}",
            f"{wall.min:,.0f} to {wall.max:,.0f}",
            f"{found['samples_per_cpu_s'].median:,.0f}",
            f"{found['rss_mib'].median:,.0f}",
        )
    for kind, run in stored.items():
        rates = f"{run.samples_per_s:,.0f}", "", f"{run.samples_per_cpu_s:,.0f}"
        table.add_row(f"through to {kind} (the storage process)", *rates, "")
    console.print(table)
    for name, ratio in ratios.items():
        console.print(f"{name}: {ratio:.2f}")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.aggregation", description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=400_000, help="frames of 10 samples to fill in")
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3, help="turns of every engine")
    parser.add_argument(
        "--engines", type=partial(engines_of, by_word=BY_WORD), default=DEFAULT, help=",".join(BY_WORD)
    )
    parser.add_argument(
        "--no-store", dest="store", action="store_false", help="leave the way to the database out"
    )
    parser.add_argument(
        "--timescaledb",
        default=os.environ.get(TIMESCALEDB_VARIABLE),
        help="a server with the extension, where databases may be made, by its URL",
    )
    parser.add_argument("--engine-cpus", type=cpus_of, default=(), help="pin the engines, such as 1")
    parser.add_argument("--kafka-cpus", type=cpus_of, default=(), help="pin Kafka, such as 0")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder for aggregation.json")
    return parser.parse_args(words)


def main() -> None:
    """Run the comparison and report it."""
    arguments = parse_arguments()
    console = Console(width=120 if not sys.stdout.isatty() else None)
    try:
        plan = WindowPlan(rounds=arguments.frames // arguments.devices, devices=arguments.devices)
    except ValueError as error:
        raise SystemExit(f"--frames {arguments.frames}: {error}") from None
    prepare_peer_environment(console)
    require_same_code()
    folder = Path(tempfile.mkdtemp(prefix="plantwire-bench-"))
    try:
        runs, stored = run_all(console, arguments, plan, folder)
    except (RuntimeError, StackError) as error:
        console.print(f"[red]{error}[/red]\nLogs are kept in {folder}")
        raise SystemExit(1) from None
    shutil.rmtree(folder)
    figures, ratios, targets = summarise(runs)
    outcome = report.make_report(
        "aggregation",
        parameters={
            "frames": plan.frames,
            "samples": plan.samples,
            "metrics_per_frame": METRICS_PER_FRAME,
            "devices": plan.devices,
            "partitions": plan.partitions,
            "samples_per_window": SAMPLES_PER_WINDOW,
            "repeats": arguments.repeats,
            "engine_cpus": list(arguments.engine_cpus) or "any",
            "kafka_cpus": list(arguments.kafka_cpus) or "any",
        },
        figures={"engines": figures, "through_to_the_database": stored},
        ratios=ratios,
        targets=targets,
        peers=True,
    )
    print_figures(console, figures, stored, ratios)
    report.print_targets(console, targets)
    console.print(f"Written to {report.write_report(outcome, arguments.results)}")


if __name__ == "__main__":
    main()

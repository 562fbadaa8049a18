"""`python -m bench.storage`: ways to bring samples into the database, and the storage process over Kafka.

In: command line. Out: bench/results/storage.json and tables; exit code 0 when it ran, 1 when rows lack.
Guarantees: ways take turns, each in an empty database, on the same samples; figures are of committed rows.
Not here: what a figure means (README.md).
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its own re-export
from rich.console import Console
from rich.table import Table

from bench import report
from bench.frame_plan import METRICS_PER_FRAME, FramePlan
from bench.frame_topic import fill
from bench.spread import median, repeats
from bench.storage_databases import POSTGRESQL, TIMESCALEDB, fresh_database
from bench.storage_run import Run, run_storage
from bench.storage_ways import (
    COPY_AND_UPSERT,
    COPY_STRAIGHT,
    NUMBERED,
    NUMBERED_STRAIGHT,
    REPEATABLE,
    STORAGE,
    WAYS,
    Sample,
    opened,
)
from plantwire.schemas.topics import TELEMETRY_DLQ, TELEMETRY_RAW
from plantwire.stack.errors import StackError
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka
from plantwire.stack.servers.postgres import Postgres

READY_TIMEOUT_S: Final = 60.0
TIMESCALEDB_VARIABLE: Final = "PLANTWIRE_TEST_TIMESCALEDB"
SERIES: Final = 2_000
SAMPLE_INTERVAL_MS: Final = 100
TARGET_SAMPLES_PER_S: Final = 50_000
PACES: Final = {"10 Hz": 100, "1 Hz": 1_000}
"""How often a device sends. At 1 Hz every sample is a second of its own: the 1 s tier is as large as raw."""


class PacedPlan(FramePlan, frozen=True):
    """The frames of `bench.detection`, at another pace."""

    interval_ms: int = 1_000

    def event_time_ms(self, base_ms: int, device: int, round_number: int) -> int:
        """Devices measure one after the other within an interval."""
        return base_ms + round_number * self.interval_ms + device * self.interval_ms // self.devices

    def seconds(self, base_ms: int) -> int:
        """Rows of the 1 s tier that it makes."""
        times = {
            (device, self.event_time_ms(base_ms, device, number) // 1000)
            for number in range(self.rounds)
            for device in range(self.devices)
        }
        return len(times) * METRICS_PER_FRAME


def make_batches(count: int, size: int) -> Iterator[list[Sample]]:
    """Batches of all series in turn, ten samples a second each, up to the present."""
    rng = random.Random(1)
    names = [(f"machine-{n // 10:04d}", f"metric-{n % 10}") for n in range(SERIES)]
    start_ms = time.time_ns() // 1_000_000 - count * size // SERIES * SAMPLE_INTERVAL_MS
    number = 0
    for _ in range(count):
        batch = []
        for _ in range(size):
            device_id, metric = names[number % SERIES]
            at_ms = start_ms + number // SERIES * SAMPLE_INTERVAL_MS
            batch.append(Sample(device_id, metric, at_ms, rng.gauss(50, 10)))
            number += 1
        yield batch


def measure_way(server: str, kind: str, name: str, size: int, duration_s: float) -> float:
    """Rows per second of one way, after one batch that does not count."""
    with fresh_database(server, kind) as settings, opened(name, settings) as write:
        batches = make_batches(max(3, round(duration_s * 400_000 / size)), size)
        write(next(batches))
        rows, spent_s = 0, 0.0
        for batch in batches:
            began_s = time.perf_counter()
            write(batch)
            spent_s += time.perf_counter() - began_s
            rows += len(batch)
            if spent_s >= duration_s:
                break
    return rows / spent_s


@contextmanager
def servers(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, str]]:
    """Kind of database → URL of a server."""
    (port,) = free_ports(1)
    postgres = Postgres(folder / "postgres", port, folder / "postgres.log", secrets.token_urlsafe(32))
    postgres.prepare()
    postgres.start()
    try:
        postgres.wait_ready(READY_TIMEOUT_S)
        found = {POSTGRESQL: postgres.url}
        if arguments.timescaledb:
            found = {TIMESCALEDB: arguments.timescaledb, **found}
        yield found
    finally:
        postgres.stop()


def measure_ways(
    console: Console, arguments: argparse.Namespace, at: dict[str, str]
) -> dict[str, dict[str, list[float]]]:
    """Kind → way → rows/s of each turn."""
    found: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in WAYS} for kind in at}
    for turn in range(arguments.repeats):
        for kind, server in at.items():
            for place in range(len(WAYS)):
                name = WAYS[(turn + place) % len(WAYS)]
                rate = measure_way(server, kind, name, arguments.batch, arguments.duration_s)
                found[kind][name].append(round(rate))
                console.print(f"{turn + 1}/{arguments.repeats} {kind}, {name}: {rate:,.0f} rows/s")
    return found


def measure_process(
    console: Console, arguments: argparse.Namespace, at: dict[str, str], folder: Path
) -> dict[str, dict[str, list[Run]]]:
    """Kind → pace → runs of the storage process over a filled topic."""
    found: dict[str, dict[str, list[Run]]] = {kind: {pace: [] for pace in PACES} for kind in at}
    for pace, interval_ms in PACES.items():
        plan = PacedPlan(rounds=arguments.frames // 200, marks=2, interval_ms=interval_ms)
        base_ms = time.time_ns() // 1_000_000 - plan.rounds * interval_ms - 1_000
        with _filled_topic(plan, base_ms, folder / f"kafka-{interval_ms}") as kafka:
            for turn in range(arguments.repeats):
                for kind, server in at.items():
                    with fresh_database(server, kind) as settings:
                        run = run_storage(kafka, settings, folder, plan.samples, plan.seconds(base_ms))
                    found[kind][pace].append(run)
                    console.print(
                        f"{turn + 1}/{arguments.repeats} storage process, {kind}, {pace}: "
                        f"{run.samples_per_s:,.0f} samples/s"
                    )
    return found


@contextmanager
def _filled_topic(plan: FramePlan, base_ms: int, folder: Path) -> Iterator[str]:
    port, controller_port = free_ports(2)
    kafka = Kafka(folder, port, controller_port, folder.with_suffix(".log"))
    kafka.prepare()
    kafka.start()
    try:
        kafka.wait_ready(READY_TIMEOUT_S)
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        topics = [NewTopic(name, plan.partitions, 1) for name in (TELEMETRY_RAW, TELEMETRY_DLQ)]
        for made in admin.create_topics(topics).values():
            made.result(READY_TIMEOUT_S)
        fill(kafka.bootstrap, plan, base_ms)
        yield kafka.bootstrap
    finally:
        kafka.stop()


def summary(
    ways: dict[str, dict[str, list[float]]], process: dict[str, dict[str, list[Run]]]
) -> tuple[dict[str, Any], dict[str, float], tuple[report.Target, ...]]:
    """(figures, ratios, targets)."""
    figures: dict[str, Any] = {
        "rows_per_s": {
            kind: {name: msgspec.to_builtins(repeats(values)) for name, values in by_way.items()}
            for kind, by_way in ways.items()
        },
        "process": {
            kind: {
                pace: {
                    "samples_per_s": msgspec.to_builtins(repeats([round(r.samples_per_s) for r in runs])),
                    "samples_per_cpu_s": msgspec.to_builtins(
                        repeats([round(r.samples_per_cpu_s) for r in runs])
                    ),
                    "seconds_stored": runs[0].seconds_stored,
                    "window_s": [round(r.window_s, 2) for r in runs],
                }
                for pace, runs in by_pace.items()
            }
            for kind, by_pace in process.items()
        },
    }
    ratios: dict[str, float] = {}
    targets: list[report.Target] = []
    for kind, by_way in ways.items():
        rates = {name: median(values) for name, values in by_way.items()}
        for name in (COPY_STRAIGHT, *REPEATABLE):
            ratios[f"{kind}: {STORAGE} / {name}"] = round(rates[STORAGE] / rates[name], 2)
        ratios[f"{kind}: numbered / text keys, COPY straight in"] = round(
            rates[NUMBERED_STRAIGHT] / rates[COPY_STRAIGHT], 2
        )
        ratios[f"{kind}: numbered / text keys, COPY and upsert"] = round(
            rates[NUMBERED] / rates[COPY_AND_UPSERT], 2
        )
    for kind, by_pace in process.items():
        for pace, runs in by_pace.items():
            rate = round(median([run.samples_per_s for run in runs]))
            name = f"Kafka → {kind} with the 1 s tier, {pace}"
            targets.append(report.at_least(name, rate, TARGET_SAMPLES_PER_S, "samples/s"))
    return figures, ratios, tuple(targets)


def print_ways(console: Console, ways: dict[str, dict[str, list[float]]]) -> None:
    """The ways side by side."""
    table = Table("way in", *ways, title="Rows per second, median", title_justify="left")
    for name in WAYS:
        table.add_row(name, *(f"{median(by_way[name]):,.0f}" for by_way in ways.values()))
    console.print(table)


def main(words: Sequence[str] | None = None) -> int:
    """Run the bench; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.storage")
    parser.add_argument("--batch", type=int, default=10_000, help="samples of a batch")
    parser.add_argument("--duration-s", type=float, default=1.5, help="how long each way writes")
    parser.add_argument("--frames", type=int, default=100_000, help="frames of 10 samples in the topic")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--timescaledb", default=os.environ.get(TIMESCALEDB_VARIABLE, ""), metavar="URL",
                        help="server with TimescaleDB on which databases may be made")  # fmt: skip
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    arguments = parser.parse_args(words)
    console = Console()
    if not arguments.timescaledb:
        console.print(f"No server with TimescaleDB ({TIMESCALEDB_VARIABLE}): PostgreSQL alone is measured")
    try:
        with ExitStack() as ending:
            folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="plantwire-bench-")))
            at = ending.enter_context(servers(arguments, folder))
            ways = measure_ways(console, arguments, at)
            process = measure_process(console, arguments, at, folder)
    except (RuntimeError, StackError) as error:
        console.print(f"[red]{error}[/red]")
        return 1
    figures, ratios, targets = summary(ways, process)
    parameters = {
        "batch": arguments.batch,
        "duration_s": arguments.duration_s,
        "frames": arguments.frames,
        "repeats": arguments.repeats,
        "series": SERIES,
        "databases": list(at),
        "left_out": "Flink's JDBC sink: the stack has no connector for it",
    }
    made = report.make_report(
        "storage", parameters=parameters, figures=figures, ratios=ratios, targets=targets
    )
    path = report.write_report(made, arguments.results)
    print_ways(console, ways)
    report.print_targets(console, targets)
    console.print(f"Written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

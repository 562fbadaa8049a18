"""`python -m bench.edge_alarm`: from a device's publish to a local client, with Kafka and Redis unplugged.

In: command line. Out: bench/results/edge-alarm.json and tables; exit code 0 when it ran, whether or not its
targets hold.
Guarantees: transports take turns, each in a fresh gateway; every (event, client) pair counts; nothing is left
out as an outlier.
Not here: what a figure means (README.md), one run (`bench.edge_alarm_run`).
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench import report
from bench.edge_alarm_plan import EdgePlan
from bench.edge_alarm_run import EdgeRun, measure
from bench.edge_alarm_sender import TRANSPORTS
from bench.spread import repeats
from bench.stack_control import BenchError
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.mqtt import Mqtt

READY_TIMEOUT_S: Final = 60.0
PATH_P99_MS: Final = 10.0
BROADCAST_P99_MS: Final = 5.0
PERCENTILES: Final = ("p50", "p95", "p99", "max")
PARTS: Final = {
    "path_ms": "publish → client",
    "arrival_ms": "publish → gateway",
    "gateway_ms": "within the gateway",
    "client_ms": "gateway → client",
}


async def run_all(console: Console, arguments: argparse.Namespace, folder: Path) -> list[EdgeRun]:
    """All runs, transports interleaved."""
    (port,) = free_ports(1)
    mqtt = Mqtt(folder / "mqtt", port, folder / "mqtt.log")
    runs: list[EdgeRun] = []
    mqtt.prepare()
    mqtt.start()
    try:
        mqtt.wait_ready(READY_TIMEOUT_S)
        for turn in range(arguments.repeats):
            for place in range(len(TRANSPORTS)):
                plan = EdgePlan(
                    name=f"edge{secrets.token_hex(3)}",
                    devices=arguments.devices,
                    frames_per_s=arguments.rate,
                    warm_up_s=arguments.warm_up_s,
                    duration_s=arguments.duration_s,
                )
                transport = TRANSPORTS[(turn + place) % len(TRANSPORTS)]
                run = await measure(mqtt.url, transport, plan, arguments.clients, folder)
                runs.append(run)
                path, gateway = run.delivered.path_ms, run.delivered.gateway_ms
                console.print(
                    f"{len(runs)}/{arguments.repeats * len(TRANSPORTS)} {transport}: "
                    f"p99 {path and path.p99} ms, of which in the gateway {gateway and gateway.p99} ms; "
                    f"{run.delivered.expected} events, {run.delivered.lost} lost, "
                    f"{run.delivered.doubled} doubled"
                )
    finally:
        mqtt.stop()
    return runs


def summarise(runs: list[EdgeRun]) -> tuple[dict[str, Any], tuple[report.Target, ...]]:
    """Figures per transport with their spread, and the targets."""
    figures: dict[str, Any] = {}
    targets: list[report.Target] = []
    for transport in dict.fromkeys(run.transport for run in runs):
        of_transport = [run for run in runs if run.transport == transport]
        found: dict[str, Any] = {"runs": of_transport}
        for field in PARTS:
            measured = [getattr(run.delivered, field) for run in of_transport]
            found[field] = {p: repeats([getattr(ms, p) for ms in measured if ms]) for p in PERCENTILES}
        for field, name, bound_ms in (
            ("path_ms", "device publish → local client", PATH_P99_MS),
            ("gateway_ms", "gateway in → written to local clients", BROADCAST_P99_MS),
        ):
            p99_ms = found[field]["p99"].median
            targets.append(report.at_most(f"{name}, {transport}, p99", p99_ms, bound_ms, "ms"))
        figures[transport] = found
    return figures, (
        *targets,
        report.at_most("events lost at a client", sum(run.delivered.lost for run in runs), 0),
        report.at_most("events doubled at a client", sum(run.delivered.doubled for run in runs), 0),
        report.at_most("frames not taken", sum(run.refused for run in runs), 0),
    )


def print_figures(console: Console, figures: dict[str, Any]) -> None:
    """The medians of the runs."""
    table = Table("transport", "", *PERCENTILES, title="Medians of the runs, ms", title_justify="left")
    for transport, found in figures.items():
        for field, name in PARTS.items():
            table.add_row(transport, name, *(f"{found[field][p].median:.2f}" for p in PERCENTILES))
    console.print(table)


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.edge_alarm", description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=int, default=200, help="frames/s of 10 metrics")
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--clients", type=int, default=5, help="unchanged python-socketio clients")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm-up-s", type=float, default=5.0)
    parser.add_argument("--duration-s", type=float, default=30.0)
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder for edge-alarm.json")
    return parser.parse_args(words)


def main() -> None:
    """Measure, report."""
    arguments = parse_arguments()
    console = Console(width=140 if not sys.stdout.isatty() else None)
    folder = Path(tempfile.mkdtemp(prefix="plantwire-bench-"))
    try:
        runs = asyncio.run(run_all(console, arguments, folder))
    except BenchError as error:
        console.print(f"[red]{error}[/red]\nLogs are kept in {folder}")
        raise SystemExit(1) from None
    shutil.rmtree(folder)
    figures, targets = summarise(runs)
    outcome = report.make_report(
        "edge-alarm",
        parameters={name: value for name, value in vars(arguments).items() if name != "results"},
        figures=figures,
        ratios={},
        targets=targets,
    )
    print_figures(console, figures)
    report.print_targets(console, targets)
    console.print(f"Written to {report.write_report(outcome, arguments.results)}")


if __name__ == "__main__":
    main()

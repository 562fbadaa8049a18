"""`python -m bench.gateway`: what the gateway costs and adds, per protocol, against a bare loop.

In: command line. Out: bench/results/gateway.json and tables; exit code 0 when it ran and no frame was lost.
Guarantees: gateway and bare loop take turns, each in a fresh process, under the same sender, broker and
consumer.
Not here: what a figure means (README.md).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its own re-export
from rich.console import Console
from rich.table import Table

from bench import report
from bench.gateway_payloads import PROTOCOLS, SPARKPLUG
from bench.gateway_run import FLOOR, GATEWAY, SUBJECTS, Run, measure, samples_per_frame
from bench.spread import repeats
from plantwire.schemas import topics
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka
from plantwire.stack.servers.mqtt import Mqtt

READY_TIMEOUT_S: Final = 60.0
NORMALISATION_P95_MS: Final = 3.0
NORMALISATION_P99_MS: Final = 5.0
PERCENTILES: Final = ("p50", "p95", "p99")


async def run_all(console: Console, arguments: argparse.Namespace, folder: Path) -> list[Run]:
    """All runs, subjects interleaved."""
    ports = free_ports(3)
    kafka = Kafka(folder / "kafka", ports[0], ports[1], folder / "kafka.log")
    mqtt = Mqtt(folder / "mqtt", ports[2], folder / "mqtt.log")
    runs: list[Run] = []
    try:
        for server in (kafka, mqtt):
            server.prepare()
            server.start()
        for server in (kafka, mqtt):
            server.wait_ready(READY_TIMEOUT_S)
        _create_topics(kafka.bootstrap)
        total = arguments.repeats * len(arguments.protocols) * 2 * len(SUBJECTS)
        for turn in range(arguments.repeats):
            for protocol in arguments.protocols:
                for rate in (arguments.rate, None):
                    for place in range(len(SUBJECTS)):
                        subject = SUBJECTS[(turn + place) % len(SUBJECTS)]
                        run = await measure(
                            subject, protocol, kafka.bootstrap, mqtt.url, folder, arguments.duration_s, rate
                        )
                        runs.append(run)
                        _tell(console, run, len(runs), total)
    finally:
        mqtt.stop()
        kafka.stop()
    return runs


def _tell(console: Console, run: Run, number: int, total: int) -> None:
    load = f"{run.rate_per_s:g}/s" if run.rate_per_s else "as fast as it goes"
    path = run.path_ms
    console.print(
        f"{number}/{total} {run.protocol}, {load}, {run.subject}: {run.frames_per_s:,.0f} frames/s, "
        f"{run.frames_per_cpu_s:,.0f} per CPU second"
        + (f", p50 {path.p50:.1f} p99 {path.p99:.1f} ms" if path else "")
        + (f", {run.sent - run.seen} not seen" if run.seen != run.sent else "")
    )


def _create_topics(bootstrap: str) -> None:
    wanted = [NewTopic(t.name, t.partitions, 1) for t in topics.TOPICS if not t.name.startswith("commands.")]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics(wanted).values():
        future.result(READY_TIMEOUT_S)


def summarise(
    runs: list[Run],
) -> tuple[dict[str, Any], dict[str, float], tuple[report.Target, ...]]:
    """Figures per protocol with their spread, ratios of medians, targets."""
    figures: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    targets: list[report.Target] = []
    for protocol in dict.fromkeys(run.protocol for run in runs):
        of_protocol = [run for run in runs if run.protocol == protocol]
        found: dict[str, Any] = {}
        for subject in SUBJECTS:
            fast = [r for r in of_protocol if r.subject == subject and r.rate_per_s is None]
            paced = [r for r in of_protocol if r.subject == subject and r.rate_per_s is not None]
            found[subject] = {
                "frames_per_s": repeats([r.frames_per_s for r in fast]),
                "samples_per_s": repeats([r.frames_per_s * samples_per_frame(protocol) for r in fast]),
                "frames_per_cpu_s": repeats([r.frames_per_cpu_s for r in fast]),
                "rss_mib": repeats([r.rss_mib for r in fast]),
                "path_ms": {p: repeats([getattr(r.path_ms, p) for r in paced]) for p in PERCENTILES},
                "lost": sum(r.sent - r.seen for r in (*fast, *paced)),
            }
        paced = [r for r in of_protocol if r.subject == GATEWAY and r.rate_per_s is not None]
        found["added_ms"] = {
            p: round(found[GATEWAY]["path_ms"][p].median - found[FLOOR]["path_ms"][p].median, 3)
            for p in PERCENTILES
        }
        normalisation = {p: repeats([getattr(r.normalisation_ms, p) for r in paced]) for p in PERCENTILES}
        found["normalisation_ms"] = normalisation
        found["samples_per_frame"] = samples_per_frame(protocol)
        figures[protocol] = found
        for field, name in (("frames_per_s", "frames/s"), ("frames_per_cpu_s", "frames per CPU second")):
            ratios[f"{protocol}: gateway / bare loop, {name}"] = round(
                found[GATEWAY][field].median / found[FLOOR][field].median, 3
            )
        if protocol == SPARKPLUG:
            p95, p99 = normalisation["p95"].median, normalisation["p99"].median
            targets.append(
                report.at_most("normalisation of 50 metrics, p95", p95, NORMALISATION_P95_MS, "ms")
            )
            targets.append(
                report.at_most("normalisation of 50 metrics, p99", p99, NORMALISATION_P99_MS, "ms")
            )
    lost = sum(max(0, run.sent - run.seen) for run in runs if run.subject == GATEWAY)
    targets.append(report.at_most("frames lost by the gateway", lost, 0))
    return figures, ratios, tuple(targets)


def print_figures(console: Console, figures: dict[str, Any], ratios: dict[str, float]) -> None:
    """A line per protocol, a line per ratio."""
    table = Table(
        "protocol",
        "frames/s",
        "samples/s",
        "of the bare loop's",
        "added p50 / p95 / p99, ms",
        "normalisation p95 / p99, ms",
        title="Gateway, one process",
    )
    for protocol, found in figures.items():
        added, normalisation = found["added_ms"], found["normalisation_ms"]
        table.add_row(
            protocol,
            f"{found[GATEWAY]['frames_per_s'].median:,.0f}",
            f"{found[GATEWAY]['samples_per_s'].median:,.0f}",
            f"{ratios[f'{protocol}: gateway / bare loop, frames/s']:.2f}",
            f"{added['p50']:.2f} / {added['p95']:.2f} / {added['p99']:.2f}",
            f"{normalisation['p95'].median:.2f} / {normalisation['p99'].median:.2f}",
        )
    console.print(table)
    for name, ratio in ratios.items():
        console.print(f"{name}: {ratio:.2f}")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__.split("\n")[0])
    parser.add_argument("--protocols", type=_protocols, default=PROTOCOLS, help=",".join(PROTOCOLS))
    parser.add_argument("--rate", type=float, default=300.0, help="frames/s of the paced runs")
    parser.add_argument("--duration-s", type=float, default=10.0, help="of each run")
    parser.add_argument("--repeats", type=int, default=3, help="turns of every pair")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder for gateway.json")
    return parser.parse_args(words)


def _protocols(text: str) -> tuple[str, ...]:
    words = tuple(text.split(","))
    if unknown := set(words) - set(PROTOCOLS):
        raise argparse.ArgumentTypeError(f"there is no protocol {', '.join(sorted(unknown))}")
    return words


def main() -> None:
    """Run the comparison and report it."""
    arguments = parse_arguments()
    console = Console(width=120 if not sys.stdout.isatty() else None)
    with tempfile.TemporaryDirectory(prefix="plantwire-bench-") as folder:
        runs = asyncio.run(run_all(console, arguments, Path(folder)))
    figures, ratios, targets = summarise(runs)
    print_figures(console, figures, ratios)
    report.print_targets(console, targets)
    written = report.write_report(
        report.make_report(
            "gateway",
            parameters={
                "rate_per_s": arguments.rate,
                "duration_s": arguments.duration_s,
                "repeats": arguments.repeats,
                "protocols": list(arguments.protocols),
            },
            figures={**figures, "runs": runs},
            ratios=ratios,
            targets=targets,
        ),
        arguments.results,
    )
    console.print(f"Written: {written}")


if __name__ == "__main__":
    main()

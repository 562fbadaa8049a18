"""`python -m bench.detection`: alarm detection alone, our Flink job against its peers.

In: command line. Out: bench/results/detection.json and tables; exit code 0 when it ran and every engine
found the same alarms, 1 when they differ or an engine failed.
Guarantees: the same bytes from one topic, the same rules, the same domain code; engines take turns, so
that a slow minute of the machine does not fall on one of them alone.
Not here: what a figure means (README.md).
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its own re-export
from rich.console import Console
from rich.table import Table

from bench import report
from bench.detection_run import AlarmKey, EngineRun, run_engine
from bench.engine_processes import (
    BARE,
    BY_WORD,
    ENGINES,
    FLINK,
    alarms_topic_of,
    cpus_of,
    engines_of,
    make_engine,
    on_cpus,
)
from bench.frame_plan import METRICS_PER_FRAME, ROUND_MS, RULES, FramePlan
from bench.frame_topic import fill
from bench.spread import median, repeats
from plantwire.platform.rule_topic import publish_rules
from plantwire.schemas.topics import ALARMS_RULES, TELEMETRY_DLQ, TELEMETRY_RAW
from plantwire.stack.errors import StackError
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka

LOCK_FILE: Final = report.ROOT / "requirements" / "bench.txt"
PEER_ENVIRONMENT: Final = report.ROOT / ".venv-bench"
READY_TIMEOUT_S: Final = 60.0
INSTALL_TIMEOUT_S: Final = 900.0
# The frames lie in the past: those of the future are refused.
END_BEFORE_NOW_MS: Final = 600_000
SAME_CODE_PACKAGES: Final = ("fastavro", "msgspec")


def prepare_peer_environment(console: Console) -> None:
    """Make .venv-bench from the lock file when it is missing or older; raises SystemExit on failure."""
    digest = hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()
    stamp = PEER_ENVIRONMENT / "lock.sha256"
    if stamp.exists() and stamp.read_text() == digest:
        return
    console.print("Installing the peers (Quix Streams, Bytewax) into .venv-bench …")
    shutil.rmtree(PEER_ENVIRONMENT, ignore_errors=True)
    pip = [str(report.PEER_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(PEER_ENVIRONMENT)],
        [*pip, "--require-hashes", "-r", str(LOCK_FILE)],
    ):
        result = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
        if result.returncode != 0:
            raise SystemExit(f"The peers' environment cannot be made: {result.stderr.strip()[-500:]}")
    stamp.write_text(digest)


def require_same_code() -> None:
    """The decoder must be the same in both environments; raises SystemExit where it is not."""
    ours, theirs = report.describe_versions(), report.describe_peer_versions()
    for package in SAME_CODE_PACKAGES:
        if ours[package] != theirs[f"peers: {package}"]:
            raise SystemExit(
                f"{package} is {ours[package]} here and {theirs[f'peers: {package}']} in .venv-bench: "
                "put this version into requirements/bench.in and lock it again"
            )


def create_topics(bootstrap: str, partitions: int) -> None:
    """The topics that the job names, and one for each peer's alarms; raises KafkaException."""
    names = {TELEMETRY_RAW, TELEMETRY_DLQ, *(alarms_topic_of(engine) for engine in ENGINES)}
    topics = [NewTopic(name, partitions, 1) for name in sorted(names)]
    topics.append(NewTopic(ALARMS_RULES, 1, 1, config={"cleanup.policy": "compact"}))
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics(topics).values():
        future.result(READY_TIMEOUT_S)


def count_records(bootstrap: str, topic: str, partitions: int) -> int:
    """Records of a topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-count"})
    try:
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, p), 10) for p in range(partitions)]
    finally:
        consumer.close()
    return sum(end - begin for begin, end in ends)


def run_all(
    console: Console, arguments: argparse.Namespace, plan: FramePlan, folder: Path
) -> tuple[list[EngineRun], dict[str, Any]]:
    """Fill the topic, let the engines take turns; raises RuntimeError where alarms differ."""
    port, controller_port = free_ports(2)
    kafka = Kafka(folder / "kafka", port, controller_port, folder / "kafka.log")
    kafka.prepare()
    runs: list[EngineRun] = []
    reference: tuple[str, set[AlarmKey]] | None = None
    try:
        with on_cpus(arguments.kafka_cpus):
            kafka.start()
        kafka.wait_ready(READY_TIMEOUT_S)
        create_topics(kafka.bootstrap, plan.partitions)
        publish_rules(kafka.bootstrap, RULES)
        base_ms = time.time_ns() // 1_000_000 - END_BEFORE_NOW_MS - plan.rounds * ROUND_MS
        filling_s = time.monotonic()
        fill(kafka.bootstrap, plan, base_ms)
        console.print(f"{plan.frames:,} frames written in {time.monotonic() - filling_s:.1f} s")
        for turn in range(arguments.repeats):
            for place in range(len(arguments.engines)):
                name = arguments.engines[(turn + place) % len(arguments.engines)]
                run_name = f"{ENGINES.index(name)}-{turn}"
                engine = make_engine(name, kafka.bootstrap, folder, run_name)
                run, keys = run_engine(engine, kafka.bootstrap, plan, base_ms, arguments.engine_cpus)
                runs.append(run)
                console.print(
                    f"{turn + 1}/{arguments.repeats} {name}: {run.samples_per_s:,.0f} samples/s, "
                    f"{run.samples_per_cpu_s:,.0f} per CPU second, {len(keys):,} alarm events"
                )
                reference = reference or (name, keys)
                if keys != reference[1]:
                    raise RuntimeError(_difference(reference, (name, keys)))
        assert reference is not None
        dead = count_records(kafka.bootstrap, TELEMETRY_DLQ, plan.partitions)
        if dead:
            raise RuntimeError(f"the Flink job refused {dead} frames, so its work was not the peers'")
    finally:
        kafka.stop()
    return runs, {"alarm_events": len(reference[1])}


def _difference(reference: tuple[str, set[AlarmKey]], other: tuple[str, set[AlarmKey]]) -> str:
    missing, extra = reference[1] - other[1], other[1] - reference[1]
    return (
        f"alarms differ: {other[0]} lacks {len(missing)} that {reference[0]} has, such as "
        f"{sorted(missing)[:2]}, and has {len(extra)} others, such as {sorted(extra)[:2]}"
    )


def summarise(runs: list[EngineRun]) -> tuple[dict[str, Any], dict[str, float], tuple[report.Target, ...]]:
    """Figures per engine with their spread, ratios of medians, targets."""
    by_engine = {name: [run for run in runs if run.engine == name] for name in ENGINES}
    by_engine = {name: found for name, found in by_engine.items() if found}
    figures = {
        name: {
            "samples_per_cpu_s": repeats([run.samples_per_cpu_s for run in found]),
            "samples_per_s": repeats([run.samples_per_s for run in found]),
            "rss_mib": repeats([run.rss_mib for run in found]),
            "start_up_s": repeats([run.start_up_s for run in found]),
            "runs": found,
        }
        for name, found in by_engine.items()
    }
    ratios: dict[str, float] = {}
    targets: list[report.Target] = []
    ours = by_engine.get(FLINK, [])
    for peer in ENGINES[1:]:
        theirs = by_engine.get(peer, [])
        if not ours or not theirs:
            continue
        for field, name in (("samples_per_cpu_s", "per core"), ("samples_per_s", "wall clock")):
            ratio = median(getattr(run, field) for run in ours) / median(
                getattr(run, field) for run in theirs
            )
            ratios[f"{FLINK} / {peer}, {name}"] = round(ratio, 3)
        if peer != BARE:
            per_core = ratios[f"{FLINK} / {peer}, per core"]
            targets.append(report.above(f"samples/s per core, ratio to {peer}", per_core, 1.0))
    return figures, ratios, tuple(targets)


def print_figures(console: Console, figures: dict[str, Any], ratios: dict[str, float]) -> None:
    """A line per engine, a line per ratio."""
    table = Table("engine", "samples/s per core", "min to max", "wall samples/s", "MiB", title="Detection")
    for name, found in figures.items():
        cpu, wall = found["samples_per_cpu_s"], found["samples_per_s"]
        table.add_row(
            name,
            f"{cpu.median:,.0f}",
            f"{cpu.min:,.0f} to {cpu.max:,.0f}",
            f"{wall.median:,.0f}",
            f"{found['rss_mib'].median:,.0f}",
        )
    console.print(table)
    for name, found in figures.items():
        last = found["runs"][-1]
        threads = ", ".join(f"{thread} {used:.1f} s" for thread, used in last.cpu_by_thread_s.items())
        console.print(f"{name}, last run, threads: {threads} of {last.wall_s:.1f} s", markup=False)
    for name, ratio in ratios.items():
        console.print(f"{name}: {ratio:.2f}")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.detection", description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=1_000_000, help="frames of 10 samples to fill in")
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3, help="turns of every engine")
    parser.add_argument(
        "--engines", type=partial(engines_of, by_word=BY_WORD), default=ENGINES, help=",".join(BY_WORD)
    )
    parser.add_argument(
        "--engine-cpus", type=cpus_of, default=(), help="pin the engines, such as 1 (default: not)"
    )
    parser.add_argument("--kafka-cpus", type=cpus_of, default=(), help="pin Kafka, such as 0 (default: not)")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder for detection.json")
    return parser.parse_args(words)


def main() -> None:
    """Run the comparison and report it."""
    arguments = parse_arguments()
    console = Console(width=120 if not sys.stdout.isatty() else None)
    try:
        plan = FramePlan(rounds=arguments.frames // arguments.devices, devices=arguments.devices)
    except ValueError as error:
        raise SystemExit(f"--frames {arguments.frames}: {error}") from None
    prepare_peer_environment(console)
    require_same_code()
    folder = Path(tempfile.mkdtemp(prefix="plantwire-bench-"))
    try:
        runs, shared = run_all(console, arguments, plan, folder)
    except (RuntimeError, StackError) as error:
        console.print(f"[red]{error}[/red]\nLogs are kept in {folder}")
        raise SystemExit(1) from None
    shutil.rmtree(folder)
    figures, ratios, targets = summarise(runs)
    outcome = report.make_report(
        "detection",
        parameters={
            "frames": plan.frames,
            "samples": plan.samples,
            "metrics_per_frame": METRICS_PER_FRAME,
            "devices": plan.devices,
            "partitions": plan.partitions,
            "rules": len(RULES),
            "repeats": arguments.repeats,
            "engine_cpus": list(arguments.engine_cpus) or "any",
            "kafka_cpus": list(arguments.kafka_cpus) or "any",
        },
        figures={**shared, "engines": figures},
        ratios=ratios,
        targets=targets,
        peers=True,
    )
    print_figures(console, figures, ratios)
    report.print_targets(console, targets)
    console.print(f"Written to {report.write_report(outcome, arguments.results)}")


if __name__ == "__main__":
    main()

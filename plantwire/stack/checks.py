"""What a start needs: Python, a JDK, Maven, free ports, disk, memory, open files, sound files for the jobs.

Out: findings, each with what to do about it. Guarantees: nothing is changed. `up` insists on those without
which nothing starts; `doctor` shows all.
Not here: the health of what runs (health.py).
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import psutil

from plantwire.platform.pattern_source import load_patterns
from plantwire.platform.scoring_source import load_scoring
from plantwire.schemas.rule_files import Refused
from plantwire.stack import java
from plantwire.stack.errors import StackError
from plantwire.stack.ports import is_free
from plantwire.stack.settings import LIGHT, StackSettings

GIB = 1024**3
DISK_MIN_BYTES = 2 * GIB
MEMORY_MIN_BYTES = 4 * GIB
OPEN_FILES_MIN = 8192


class Finding(msgspec.Struct, frozen=True):
    """One check: what was found, and what to do when it is not well."""

    name: str
    well: bool
    found: str
    advice: str = ""
    needed: bool = True
    """Whether nothing starts without it; the others make it slower or smaller."""


def require_startable(settings: StackSettings) -> None:
    """Raise StackError for the first thing that keeps the stack from starting."""
    if settings.engine == LIGHT and (settings.scoring_file or settings.patterns):
        raise StackError(
            "Anomaly scores and telemetry patterns need Flink: start with --engine flink, or unset "
            "PLANTWIRE_SCORING_FILE and PLANTWIRE_PATTERNS"
        )
    runs_flink = settings.engine != LIGHT and not settings.is_external("flink")
    if runs_flink or not settings.is_external("kafka"):
        java.java_executable()
        if not java.cache_directory().is_dir() and shutil.which("mvn") is None:
            raise StackError(_maven(settings).advice)
    for finding in (*_files(settings), *_ports(settings, frozenset())):
        if not finding.well:
            raise StackError(f"{finding.found}. {finding.advice}")


def examine(settings: StackSettings, own_pids: frozenset[int]) -> list[Finding]:
    """Every finding; ports held by `own_pids` (the running stack) are well."""
    checks: list[Callable[[StackSettings], Finding]] = [_python, _jdk, _maven, _disk, _memory, _open_files]
    return [*(check(settings) for check in checks), *_files(settings), *_ports(settings, own_pids)]


def _python(_settings: StackSettings) -> Finding:
    version = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    well = sys.version_info[:2] == (3, 11)
    return Finding("Python", well, version, "Python 3.11 is needed: make setup PYTHON=/path/to/python3.11")


def _jdk(_settings: StackSettings) -> Finding:
    try:
        executable = java.java_executable()
        return Finding("JDK", True, f"{java.java_version(executable)} ({executable})")
    except StackError as error:
        return Finding("JDK", False, "missing", str(error))


def _maven(_settings: StackSettings) -> Finding:
    cache = java.cache_directory()
    if cache.is_dir():
        return Finding("Maven", True, f"not needed, the jars are in {cache}")
    maven = shutil.which("mvn")
    if maven is not None:
        return Finding("Maven", True, maven)
    return Finding(
        "Maven",
        False,
        "missing",
        "The jars of Kafka, Flink and MQTT are not cached and there is no mvn on PATH to fetch them. "
        "Install Maven (Debian: apt install maven)",
    )


def _disk(settings: StackSettings) -> Finding:
    folder = settings.home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Finding(
        "Disk",
        free >= DISK_MIN_BYTES,
        f"{free / GIB:.1f} GiB free for {settings.home}",
        f"Free {DISK_MIN_BYTES // GIB} GiB, or set PLANTWIRE_HOME to another disk",
        needed=False,
    )


def _memory(_settings: StackSettings) -> Finding:
    available = _memory_available()
    return Finding(
        "Memory",
        available >= MEMORY_MIN_BYTES,
        f"{available / GIB:.1f} GiB available",
        f"The stack takes about {MEMORY_MIN_BYTES // GIB} GiB; "
        "PLANTWIRE_FLINK_SPARE_TASK_MANAGERS=0 saves one of them",
        needed=False,
    )


def _memory_available() -> int:
    """What the machine has left, or the container where that is less."""
    available = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no limit, or not this kind of control group
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        available = min(available, limit - int((group / "memory.current").read_text()))
    return available


def _open_files(_settings: StackSettings) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = soft if soft != resource.RLIM_INFINITY else 2**31
    return Finding(
        "Open files",
        limit >= OPEN_FILES_MIN,
        f"limit {limit}",
        f"For thousands of clients raise it: ulimit -n {OPEN_FILES_MIN} (the hard limit here is {hard})",
        needed=False,
    )


def _files(settings: StackSettings) -> Iterator[Finding]:
    """The files that a job reads when it is submitted, where it is to run."""
    found: list[tuple[str, Path, Refused | Sequence[object]]] = []
    if settings.scoring_file is not None:
        found.append(("PLANTWIRE_SCORING_FILE", settings.scoring_file, load_scoring(settings.scoring_file)))
    if settings.patterns is not None:
        found.append(("PLANTWIRE_PATTERNS", settings.patterns, load_patterns([settings.patterns])))
    for name, path, read in found:
        if isinstance(read, Refused):
            problems = "; ".join(str(problem) for problem in read.problems)
            yield Finding(name, False, f"{path} is not sound", problems)
        else:
            advice = f"Unset {name}, or write into the file what is wanted"
            yield Finding(name, len(read) > 0, f"{path} has {len(read)} entries", advice)


def _ports(settings: StackSettings, own_pids: frozenset[int]) -> Iterator[Finding]:
    taken: dict[int, str] = {}
    for setting, (part, port) in settings.ports().items():
        variable = f"PLANTWIRE_{setting.upper()}"
        name = f"Port {port} ({part})"
        if port in taken:
            both = f"{taken[port]} and {variable} are both {port}"
            yield Finding(name, False, both, "Give each its own")
            continue
        taken[port] = variable
        if is_free(port):
            yield Finding(name, True, "free")
            continue
        owner = _listener(port)
        if owner is not None and owner.pid in own_pids:
            yield Finding(name, True, "in use by Plantwire itself")
            continue
        by = f" by {owner.name()} (pid {owner.pid})" if owner is not None else " by another program"
        advice = f"Stop that, or set {variable} to a free port"
        if part in ("kafka", "redis", "database", "mqtt", "flink"):
            advice += f", or PLANTWIRE_{part.upper()} to use a server of your own"
        yield Finding(name, False, f"Port {port}, needed for {part}, is in use{by}", advice)


def _listener(port: int) -> psutil.Process | None:
    """Who listens on the port, where this user may know."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("inet"):
            listens = (
                connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", None) == port
            )
            if listens and connection.pid is not None and connection.pid != os.getpid():
                return psutil.Process(connection.pid)
    return None

"""The engines of `bench.aggregation` as processes that are started, watched and stopped.

In: a broker with the filled topic. Out: running engines that write windows to a topic each.
Guarantees: every run begins with fresh processes, a consumer group, a topic and a state folder of its own.
Not here: measuring (`bench.aggregation_run`), what runs inside a peer (`bench.engines`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import psutil

from bench.cpu import family
from bench.engine_processes import (
    BYTEWAX,
    BYTEWAX_BY_LAYOUT,
    CHECKPOINT_INTERVAL_S,
    QUIX,
    QUIX_BY_LAYOUT,
    Engine,
    PeerProcess,
)
from bench.engines.windows_order import WindowsOrder
from bench.report import PEER_PYTHON, ROOT
from bench.window_topic import commit_start
from plantwire.schemas.topics import TELEMETRY_RAW
from plantwire.stack.flink_jobs import FlinkJobs
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.flink import JobManager, TaskManager
from plantwire.stack.servers.flink_installation import FlinkInstallation
from plantwire.stack.servers.process import describe_exit

READY_TIMEOUT_S: Final = 60.0

FLINK_OPTIMISED: Final = "plantwire (Flink SQL), JVM optimises"
"""With both of the JVM's compilers; the stack's TaskManagers have the first only (docs/decisions/0015)."""
SQL: Final = "plantwire (Flink SQL)"
BY_WORD: Final = {
    "flink": SQL,
    "flink-optimised": FLINK_OPTIMISED,
    "quix": QUIX,
    "bytewax": BYTEWAX,
    "quix-reader": QUIX_BY_LAYOUT,
    "bytewax-reader": BYTEWAX_BY_LAYOUT,
}
ENGINES: Final = tuple(BY_WORD.values())


class FlinkWindows(Engine):
    """Our windows on a standalone cluster with one TaskManager of one slot."""

    def __init__(self, name: str, order: WindowsOrder, partitions: int, folder: Path) -> None:
        super().__init__(name, order.windows_topic)
        rest_port, rpc_port = free_ports(2)
        self._installation = FlinkInstallation(folder, folder / "logs", rest_port, rpc_port)
        self._job_manager = JobManager(self._installation, rest_port, folder / "jobmanager.out")
        self._task_manager = TaskManager(
            self._installation,
            1,
            {},
            folder / "taskmanager.out",
            optimising=name == FLINK_OPTIMISED,
        )
        self._jobs = FlinkJobs(self._installation, self._installation.rest, folder / "jobs.json")
        self._order = order
        self._partitions = partitions

    def start(self) -> None:
        order = self._order
        commit_start(order.bootstrap, order.group, self._partitions)
        self._job_manager.prepare()
        for server in (self._job_manager, self._task_manager):
            server.start()
        for server in (self._job_manager, self._task_manager):
            server.wait_ready(READY_TIMEOUT_S)
        script = ROOT / "bench" / "engines" / "windows_flink.py"
        arguments = (order.bootstrap, order.group, order.windows_topic)
        self._jobs.submit("windows", script, arguments, {"PYTHONPATH": str(ROOT)})

    def parts(self) -> Mapping[str, Iterable[psutil.Process]]:
        return {
            "TaskManager": family(self._task_manager.pid or 0),
            "JobManager": family(self._job_manager.pid or 0),
        }

    def death(self) -> str | None:
        for server in (self._job_manager, self._task_manager):
            if server.exit_code is not None:
                return f"{server.name} ended with {describe_exit(server.exit_code)}, see {server.log_file}"
        return None

    def stop(self) -> None:
        for server in (self._task_manager, self._job_manager):
            server.stop()


class PeerWindows(Engine):
    """A Python engine in the peers' environment."""

    def __init__(self, name: str, order: WindowsOrder, folder: Path) -> None:
        super().__init__(name, order.windows_topic)
        arguments: Sequence[str] = ("-m", "bench.engines.windows_quix")
        if name in (BYTEWAX, BYTEWAX_BY_LAYOUT):
            arguments = (
                "-m",
                "bytewax.run",
                "bench.engines.windows_bytewax:flow",
                *("--recovery-directory", order.state_folder),
                *("--snapshot-interval", str(int(order.checkpoint_interval_s))),
                *("--backup-interval", "0"),
            )
        self._process = PeerProcess(arguments, folder / "order.json", folder / "engine.log")
        self._order = order
        self._folder = folder

    def start(self) -> None:
        Path(self._order.state_folder).mkdir(parents=True)
        (self._folder / "order.json").write_bytes(msgspec.json.encode(self._order))
        if self.name in (BYTEWAX, BYTEWAX_BY_LAYOUT):
            command = [str(PEER_PYTHON), "-m", "bytewax.recovery", self._order.state_folder, "1"]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        self._process.start()

    def parts(self) -> Mapping[str, Iterable[psutil.Process]]:
        return {"process": family(self._process.pid or 0)}

    def death(self) -> str | None:
        code = self._process.exit_code
        return None if code is None else f"it ended with {describe_exit(code)}, see {self._process.log_file}"

    def stop(self) -> None:
        self._process.stop()


def make_engine(name: str, bootstrap: str, partitions: int, folder: Path, run: str) -> Engine:
    """A fresh engine of that name; `run` makes its group, topic and folder unique."""
    own = folder / run
    order = WindowsOrder(
        bootstrap=bootstrap,
        frames_topic=TELEMETRY_RAW,
        windows_topic=windows_topic_of(run),
        group=f"bench-{run}",
        state_folder=str(own / "state"),
        checkpoint_interval_s=CHECKPOINT_INTERVAL_S,
        by_layout=name in (QUIX_BY_LAYOUT, BYTEWAX_BY_LAYOUT),
    )
    if name in (SQL, FLINK_OPTIMISED):
        return FlinkWindows(name, order, partitions, own)
    return PeerWindows(name, order, own)


def windows_topic_of(run: str) -> str:
    """Where the engine of a run writes."""
    return f"bench.windows.{run}"

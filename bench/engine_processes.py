"""The engines of `bench.detection` as processes that are started, watched and stopped.

In: a broker with the filled topic, rules on their topic. Out: running engines that write alarms.
Guarantees: every run begins with fresh processes, a consumer group and a state folder of its own; after
`stop` no process is left.
Not here: measuring (`bench.detection_run`), what runs inside a peer (`bench.engines`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import msgspec
import psutil

from bench.cpu import family
from bench.engines.order import ORDER_VARIABLE, EngineOrder
from bench.frame_plan import RULES
from bench.report import PEER_PYTHON, ROOT
from plantwire.schemas.topics import ALARMS_FIRE, TELEMETRY_RAW
from plantwire.stack.flink_jobs import FlinkJobs
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.flink import JobManager, TaskManager
from plantwire.stack.servers.flink_installation import FlinkInstallation
from plantwire.stack.servers.process import ServerProcess, describe_exit

READY_TIMEOUT_S: Final = 60.0
CHECKPOINT_INTERVAL_S: Final = 60.0  # as flink-conf/config.yaml has it
JOB: Final = "alarm-detection"

FLINK: Final = "plantwire (PyFlink)"
QUIX: Final = "Quix Streams"
BYTEWAX: Final = "Bytewax"
BARE: Final = "bare loop"
# The peers with our way of reading frames instead of decoding each one: what is left is the engine alone.
QUIX_BY_LAYOUT: Final = "Quix Streams, our reader"
BYTEWAX_BY_LAYOUT: Final = "Bytewax, our reader"
BY_WORD: Final = {
    "flink": FLINK,
    "quix": QUIX,
    "bytewax": BYTEWAX,
    "quix-reader": QUIX_BY_LAYOUT,
    "bytewax-reader": BYTEWAX_BY_LAYOUT,
    "bare": BARE,
}
ENGINES: Final = tuple(BY_WORD.values())


class Engine(ABC):
    """One run of one engine."""

    def __init__(self, name: str, output_topic: str) -> None:
        self.name = name
        self.output_topic = output_topic

    @abstractmethod
    def start(self) -> None:
        """Start its processes; it begins to read as soon as it can."""

    @abstractmethod
    def parts(self) -> Mapping[str, Iterable[psutil.Process]]:
        """Its processes."""

    @abstractmethod
    def death(self) -> str | None:
        """Why it no longer runs, None while it does."""

    @abstractmethod
    def stop(self) -> None:
        """End its processes, politely first."""


class FlinkCluster(Engine):
    """A job of ours on a standalone cluster with one TaskManager of one slot. `optimising` gives it both of
    the JVM's compilers; the stack's TaskManagers have the first only.
    """

    def __init__(self, name: str, output_topic: str, folder: Path, *, optimising: bool = False) -> None:
        super().__init__(name, output_topic)
        rest_port, rpc_port = free_ports(2)
        self._installation = FlinkInstallation(folder, folder / "logs", rest_port, rpc_port)
        self._job_manager = JobManager(self._installation, rest_port, folder / "jobmanager.out")
        self._task_manager = TaskManager(
            self._installation, 1, {}, folder / "taskmanager.out", optimising=optimising
        )
        self._jobs = FlinkJobs(self._installation, self._installation.rest, folder / "jobs.json")

    @abstractmethod
    def submit(self, jobs: FlinkJobs) -> None:
        """Submit the job to the cluster, which is ready."""

    def start(self) -> None:
        self._job_manager.prepare()
        for server in (self._job_manager, self._task_manager):
            server.start()
        for server in (self._job_manager, self._task_manager):
            server.wait_ready(READY_TIMEOUT_S)
        self.submit(self._jobs)

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


class FlinkEngine(FlinkCluster):
    """The production job, without Redis."""

    def __init__(self, bootstrap: str, folder: Path, group: str) -> None:
        super().__init__(FLINK, ALARMS_FIRE, folder)
        self._bootstrap = bootstrap
        self._group = group

    def submit(self, jobs: FlinkJobs) -> None:
        script = ROOT / "plantwire" / "jobs" / "main.py"
        arguments = (JOB, "--group", self._group, "--no-redis")
        jobs.submit(JOB, script, arguments, {"PLANTWIRE_KAFKA": self._bootstrap})


class Order(Protocol):
    """What every order of a peer has; the process is told all of it."""

    @property
    def state_folder(self) -> str:
        """Where it keeps its state."""


class PeerEngine(Engine):
    """A Python engine in the peers' environment."""

    def __init__(
        self, name: str, arguments: Sequence[str], order: Order, output_topic: str, folder: Path
    ) -> None:
        super().__init__(name, output_topic)
        self._process = PeerProcess(arguments, folder / "order.json", folder / "engine.log")
        self._order = order
        self._folder = folder

    def start(self) -> None:
        self._folder.mkdir(parents=True)
        Path(self._order.state_folder).mkdir()
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


class PeerProcess(ServerProcess):
    """A module of `bench.engines` in the peers' environment, told where its order is."""

    def __init__(self, arguments: Sequence[str], order_file: Path, log_file: Path) -> None:
        super().__init__("peer", None, log_file)
        self._arguments = arguments
        self._order_file = order_file

    def command(self) -> Sequence[str]:
        # Away from the work tree: an engine may write where it stands.
        return ["env", "-C", str(self._order_file.parent), str(PEER_PYTHON), *self._arguments]

    def environment(self) -> Mapping[str, str]:
        return {ORDER_VARIABLE: str(self._order_file), "PYTHONPATH": str(ROOT)}

    def probe(self) -> str | None:
        return None  # ready is when its first alarm is seen


def make_engine(name: str, bootstrap: str, folder: Path, run: str) -> Engine:
    """A fresh engine of that name; `run` makes its group and folder unique."""
    own = folder / run
    if name == FLINK:
        return FlinkEngine(bootstrap, own, f"bench-{run}")
    state_folder = own / "state"
    quix = ("-m", "bench.engines.quix_streams")
    bytewax = bytewax_arguments("bench.engines.bytewax_flow:flow", str(state_folder))
    arguments: dict[str, Sequence[str]] = {
        QUIX: quix,
        QUIX_BY_LAYOUT: quix,
        BYTEWAX: bytewax,
        BYTEWAX_BY_LAYOUT: bytewax,
        BARE: ("-m", "bench.engines.bare_loop"),
    }
    order = EngineOrder(
        bootstrap=bootstrap,
        frames_topic=TELEMETRY_RAW,
        alarms_topic=alarms_topic_of(name),
        group=f"bench-{run}",
        state_folder=str(state_folder),
        checkpoint_interval_s=CHECKPOINT_INTERVAL_S,
        rules=RULES,
        by_layout=name in (QUIX_BY_LAYOUT, BYTEWAX_BY_LAYOUT),
    )
    return PeerEngine(name, arguments[name], order, order.alarms_topic, own)


def bytewax_arguments(flow: str, state_folder: str) -> tuple[str, ...]:
    """Bytewax's command line, with its recovery store."""
    return (
        "-m",
        "bytewax.run",
        flow,
        *("--recovery-directory", state_folder),
        *("--snapshot-interval", str(int(CHECKPOINT_INTERVAL_S))),
        *("--backup-interval", "0"),
    )


def alarms_topic_of(name: str) -> str:
    """Where an engine writes its alarms."""
    return ALARMS_FIRE if name == FLINK else f"bench.alarms.{name.lower().replace(',', '').replace(' ', '-')}"


def engines_of(text: str, by_word: Mapping[str, str]) -> tuple[str, ...]:
    """Engines by their words on a command line, such as `flink,quix`; raises ArgumentTypeError."""
    try:
        return tuple(by_word[word] for word in text.split(","))
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"there is no engine {error}") from None


def cpus_of(text: str) -> tuple[int, ...]:
    """CPU numbers on a command line, such as `0,1`."""
    return tuple(int(word) for word in text.split(","))


@contextmanager
def on_cpus(cpus: Sequence[int]) -> Iterator[None]:
    """What is started within runs on these CPUs only; on any where there are none given."""
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)

"""The engines of `bench.aggregation` as processes that are started, watched and stopped.

In: a broker with the filled topic. Out: running engines that write windows to a topic each.
Guarantees: every run begins with fresh processes, a consumer group, a topic and a state folder of its own.
Not here: measuring (`bench.aggregation_run`), what runs inside a peer (`bench.engines`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.engine_processes import (
    BYTEWAX,
    BYTEWAX_BY_LAYOUT,
    CHECKPOINT_INTERVAL_S,
    QUIX,
    QUIX_BY_LAYOUT,
    Engine,
    FlinkCluster,
    PeerEngine,
    bytewax_arguments,
)
from bench.engines.windows_order import WindowsOrder
from bench.report import ROOT
from bench.window_topic import commit_start
from plantwire.schemas.topics import TELEMETRY_RAW
from plantwire.stack.flink_jobs import FlinkJobs

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


class FlinkWindows(FlinkCluster):
    """Our windows in Flink SQL."""

    def __init__(self, name: str, order: WindowsOrder, partitions: int, folder: Path) -> None:
        super().__init__(name, order.windows_topic, folder, optimising=name == FLINK_OPTIMISED)
        self._order = order
        self._partitions = partitions

    def start(self) -> None:
        commit_start(self._order.bootstrap, self._order.group, self._partitions)
        super().start()

    def submit(self, jobs: FlinkJobs) -> None:
        order = self._order
        script = ROOT / "bench" / "engines" / "windows_flink.py"
        arguments = (order.bootstrap, order.group, order.windows_topic)
        jobs.submit("windows", script, arguments, {"PYTHONPATH": str(ROOT)})


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
    arguments: tuple[str, ...] = ("-m", "bench.engines.windows_quix")
    if name in (BYTEWAX, BYTEWAX_BY_LAYOUT):
        arguments = bytewax_arguments("bench.engines.windows_bytewax:flow", order.state_folder)
    return PeerEngine(name, arguments, order, order.windows_topic, own)


def windows_topic_of(run: str) -> str:
    """Where the engine of a run writes."""
    return f"bench.windows.{run}"

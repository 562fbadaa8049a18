"""Flink's processes: the JobManager and TaskManagers of one slot each.

In: an installation. Out: a session cluster on the loopback address. Guarantees: a TaskManager is ready only
when the JobManager has its slot; one that is started again under its name replaces the dead one at once.
Not here: jobs (stack/flink_jobs.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from plantwire.stack.health import flink_task_managers, probe_flink
from plantwire.stack.servers.flink_installation import FlinkInstallation
from plantwire.stack.servers.process import ServerProcess


class JobManager(ServerProcess):
    """The JobManager, with REST and the web UI on `port`."""

    # It ends its jobs' bookkeeping within moments; jobs are stopped before, with a savepoint.
    stop_timeout_s = 8.0
    probe_interval_s = 1.0

    def __init__(self, installation: FlinkInstallation, port: int, log_file: Path) -> None:
        super().__init__("jobmanager", port, log_file)
        self.url = installation.rest
        self._installation = installation

    def prepare(self) -> None:
        self._installation.prepare()

    def command(self) -> Sequence[str]:
        return self._installation.commands.job_manager(self.name)

    def environment(self) -> Mapping[str, str]:
        return self._installation.environment()

    def probe(self) -> str | None:
        return probe_flink(self.url)


class TaskManager(ServerProcess):
    """One TaskManager. `variables` reach the Python functions that it runs.

    `optimising` gives its JVM both compilers, for work that is in the JVM (flink-conf/config.yaml).
    """

    stop_timeout_s = 8.0
    probe_interval_s = 1.0

    def __init__(
        self,
        installation: FlinkInstallation,
        number: int,
        variables: Mapping[str, str],
        log_file: Path,
        *,
        optimising: bool = False,
    ) -> None:
        super().__init__(f"taskmanager-{number}", None, log_file)
        self._installation = installation
        self._variables = dict(variables)
        self._optimising = optimising

    def prepare(self) -> None:
        self._installation.prepare()

    def command(self) -> Sequence[str]:
        return self._installation.commands.task_manager(self.name, optimising=self._optimising)

    def environment(self) -> Mapping[str, str]:
        return {**self._variables, **self._installation.environment()}

    def probe(self) -> str | None:
        registered = flink_task_managers(self._installation.rest)
        if isinstance(registered, str):
            return registered
        return None if self.name in registered else f"{self.name} is not registered with the JobManager"

"""Start the whole stack, keep it running, and end it: the process behind `plantwire up`.

In: settings from the environment; SIGTERM or SIGINT to end. Out: running parts and HOME/run/state.json.
Guarantees: one supervisor per home (a lock that the kernel releases with the process); leftovers of a killed
one are ended first; a part that dies is started again; jobs are stopped with a savepoint; nothing is left
running at the end, and nothing survives the supervisor's own death (leash.py).
Not here: the command line and its progress (cli.py, progress.py), which read the state file.

All processes are started by the main thread, because the kernel ties their lives to the thread that made
them. Whatever takes time (preparing, probing, stopping) runs in worker threads.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

import structlog

from plantwire.platform.logging import configure_logging
from plantwire.stack.assembly import Assembly, assemble, flink_installation, flink_jobs
from plantwire.stack.checks import require_startable
from plantwire.stack.child import Child, State
from plantwire.stack.commands import end_commands
from plantwire.stack.errors import StackError
from plantwire.stack.parts import Job
from plantwire.stack.secret import make_secrets
from plantwire.stack.servers.process import advice
from plantwire.stack.settings import StackSettings, load_settings
from plantwire.stack.snapshot import (
    PartState,
    ProcessId,
    Snapshot,
    end_leftovers,
    process_id,
    read_snapshot,
    write_snapshot,
)

TICK_S = 0.2
WORKERS = 24
ATTEMPTS_BEFORE_READY = 3

_log = structlog.get_logger(__name__)


class AlreadyRunningError(Exception):
    """Another supervisor holds this home."""


class Supervisor:
    """The parts of one home, from the first start to the last stop."""

    def __init__(
        self, settings: StackSettings, parts: Assembly, identity: ProcessId, *, simulator: bool
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._simulator = simulator
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="stack")
        self._children = [
            Child(
                part,
                needs,
                clock=time.monotonic,
                run=self._run_in_background,
                start_timeout_s=settings.start_timeout_s,
            )
            for part, needs in parts
        ]
        self._wake = threading.Event()
        self._end_asked = False
        self._phase = "starting"
        self._failure: str | None = None
        self._stopping: list[str] = []
        self._written: Snapshot | None = None

    def ask_end(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """End as soon as possible; a signal handler."""
        self._end_asked = True
        self._wake.set()

    def wake(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Look at the children now; the handler of SIGCHLD, so that a death is seen at once."""
        self._wake.set()

    def run(self) -> bool:
        """Supervise until asked to end or the first start fails; True when it ended as asked."""
        try:
            while not self._end_asked and self._failure is None:
                self._step()
                self._wake.wait(TICK_S)
                self._wake.clear()
        finally:
            self._stop()
        return self._failure is None

    def _step(self) -> None:
        well = frozenset(child.part.name for child in self._children if child.well)
        for child in self._children:
            before = child.restarts
            child.step(well)
            if child.restarts != before:
                _log.warning(
                    "part ended", part=child.part.name, reason=child.last_end, restarts=child.restarts
                )
            if self._phase == "starting" and (failure := _hopeless(child)) is not None:
                self._failure = failure
        if self._phase == "starting" and all(child.well for child in self._children):
            self._phase = "ready"
            _log.info("ready")
        self._write()

    def _stop(self) -> None:
        """Stop what depends on others first; in each round everything at the same time."""
        self._phase = "failed" if self._failure is not None else "stopping"
        _log.info("stopping", failure=self._failure)
        end_commands()
        for round_ in _rounds(self._children):
            self._stopping = [child.part.name for child in round_]
            self._write()
            stops = [(child.part.name, self._workers.submit(child.stop)) for child in round_]
            for name, stop in stops:
                if (error := stop.exception()) is not None:
                    _log.error("part did not stop", part=name, error=str(error))
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._stopping = []
        if self._failure is None:
            self._phase = "stopped"
        self._write()
        _log.info("stopped")

    def _run_in_background(self, work: Callable[[], Any]) -> Future[Any]:
        future = self._workers.submit(work)
        future.add_done_callback(lambda _: self._wake.set())
        return future

    def _write(self) -> None:
        snapshot = Snapshot(
            supervisor=self._identity,
            phase=self._phase,
            settings=recorded(self._settings),
            simulator=self._simulator,
            parts=[self._part_state(child) for child in self._children],
            failure=self._failure,
            stopping=self._stopping,
        )
        if snapshot != self._written:
            write_snapshot(self._settings.home, snapshot)
            self._written = snapshot

    def _part_state(self, child: Child) -> PartState:
        part = child.part
        pid = part.pid
        return PartState(
            name=part.name,
            state=child.state.value,
            well=child.well,
            restarts=child.restarts,
            process=None if pid is None else process_id(pid),
            port=part.port,
            reason=child.unwell or child.last_end,
            started_after_s=child.started_after_s,
            log=None if part.log_file is None else str(part.log_file),
        )


def _hopeless(child: Child) -> str | None:
    """Why the first start need not go on."""
    if child.ready_once:
        return None
    if child.fatal is not None:
        return child.fatal
    if child.failures_before_ready >= ATTEMPTS_BEFORE_READY:
        return f"{child.part.name} does not start: {child.last_end}.{advice(child.part.log_file)}"
    return None


def _rounds(children: list[Child]) -> list[list[Child]]:
    """Children in the order of stopping: those that nobody left needs, then those that this sets free."""
    left = [child for child in children if child.state is not State.WAITING or child.restarts]
    rounds = []
    while left:
        needed = frozenset().union(*(child.needs for child in left))
        # The spare TaskManager stays while jobs write their savepoints.
        jobs = any(isinstance(child.part, Job) for child in left)
        free = [
            child
            for child in left
            if child.part.name not in needed and not (jobs and child.part.name.startswith("taskmanager"))
        ]
        rounds.append(free)
        left = [child for child in left if child not in free]
    return rounds


def recorded(settings: StackSettings) -> dict[str, str | int | float]:
    """What differs from the defaults, without the token key: enough to find and ask everything again.

    Passwords of external servers are among it, so it goes nowhere but to a file of mode 0600.
    """
    values = settings.model_dump(mode="json", include=settings.model_fields_set - {"token_secret"})
    if settings.mqtt_password is not None:
        values["mqtt_password"] = settings.mqtt_password.get_secret_value()
    for name in ("mqtt_tls_ca", "scoring_file", "patterns"):
        path: Path | None = getattr(settings, name)
        if path is not None:
            values[name] = str(path.resolve())
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}


def take_lock(home: Path) -> IO[str]:
    """Hold the home for this process's life; raises AlreadyRunningError."""
    folder = home / "run"
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise AlreadyRunningError from None
    return file


def main() -> None:
    """`python -m plantwire.stack.supervisor [--no-simulator]`; exit code 0 when it was asked to end."""
    settings = load_settings()
    configure_logging(settings.log_level, "supervisor")
    identity = process_id(os.getpid())
    if identity is None:
        raise SystemExit("this process is not in the process table")
    simulator = "--no-simulator" not in sys.argv[1:]
    with suppress(AlreadyRunningError), take_lock(settings.home):
        if (previous := read_snapshot(settings.home)) is not None and (left := end_leftovers(previous)):
            _log.warning("ended what a killed supervisor left behind", parts=left)
        try:
            require_startable(settings)
            parts = assemble(settings, make_secrets(settings), simulator=simulator)
        except StackError as error:
            failed = Snapshot(identity, "failed", recorded(settings), simulator, failure=str(error))
            write_snapshot(settings.home, failed)
            raise SystemExit(str(error)) from None
        # Now, because no job runs that could be writing what looks unused.
        flink_jobs(settings, flink_installation(settings)).prune()
        supervisor = Supervisor(settings, parts, identity, simulator=simulator)
        signal.signal(signal.SIGTERM, supervisor.ask_end)
        signal.signal(signal.SIGINT, supervisor.ask_end)
        signal.signal(signal.SIGCHLD, supervisor.wake)
        raise SystemExit(0 if supervisor.run() else 1)
    raise SystemExit("Plantwire is already running in this home")


if __name__ == "__main__":
    main()

"""What the supervisor is doing, as a file that every other command reads: HOME/run/state.json.

Out: `Snapshot`, replaced in one step on every change. Guarantees: a process is recognised by its pid and the
moment of its birth, so that a pid used again by someone else is never taken for ours.
Not here: deciding anything (supervisor.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import msgspec
import psutil

from plantwire.stack.files import write_atomically
from plantwire.stack.servers.process import kill_group

BIRTH_TOLERANCE_S = 0.05


class ProcessId(msgspec.Struct, frozen=True):
    """A process, beyond doubt."""

    pid: int
    born_s: float

    def is_alive(self) -> bool:
        """Whether that very process still runs."""
        try:
            process = psutil.Process(self.pid)
            return (
                abs(process.create_time() - self.born_s) < BIRTH_TOLERANCE_S
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False


class PartState(msgspec.Struct, frozen=True):
    """One part, as the supervisor sees it."""

    name: str
    state: str
    well: bool
    restarts: int
    process: ProcessId | None = None
    port: int | None = None
    reason: str | None = None
    """What is said against it now, or else why it was last started again."""
    started_after_s: float | None = None
    log: str | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """The stack at one moment."""

    supervisor: ProcessId
    phase: str
    """starting, ready, stopping, stopped, failed."""
    settings: dict[str, str | int | float]
    """What the stack was started with, so that other commands need no environment of their own."""
    simulator: bool
    parts: list[PartState] = []
    failure: str | None = None
    stopping: list[str] = []
    """What is being stopped just now."""

    @property
    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        return self.supervisor.is_alive()


def process_id(pid: int) -> ProcessId | None:
    """The identity of a running process; None when it is gone already."""
    try:
        return ProcessId(pid, psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def state_file(home: Path) -> Path:
    """Where the snapshot of this home is."""
    return home / "run" / "state.json"


def write_snapshot(home: Path, snapshot: Snapshot) -> None:
    """Replace the snapshot."""
    write_atomically(state_file(home), msgspec.json.format(msgspec.json.encode(snapshot)).decode())


def read_snapshot(home: Path) -> Snapshot | None:
    """The latest snapshot; None when there never was one or another version wrote it."""
    try:
        return msgspec.json.decode(state_file(home).read_bytes(), type=Snapshot)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def end_leftovers(snapshot: Snapshot) -> list[str]:
    """Kill what a dead supervisor left running; returns the names of those parts."""
    left = [part for part in snapshot.parts if part.process is not None and part.process.is_alive()]
    for part in left:
        assert part.process is not None  # noqa: S101 - chosen so, above
        kill_group(part.process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(part.process.pid, signal.SIGKILL)
    processes = [
        psutil.Process(part.process.pid) for part in left if part.process and part.process.is_alive()
    ]
    psutil.wait_procs(processes, timeout=5)
    return [part.name for part in left]

"""One supervised process: its command, its log file, when it is ready, how it ends.

In: what a subclass says (command, environment, probe). Out: a running process whose pid is known.
Guarantees: `start` never blocks on the server; `wait_ready` returns only when the server answers its own
protocol; after `stop` the whole process group is gone; a process dies with the one that started it.
Not here: which processes there are and what happens when one dies (supervisor.py).

The thread that calls `start` has to live as long as the process, because the kernel takes the end of that
thread for the death of the parent: call it from the main thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from plantwire.stack.environment import without_secrets
from plantwire.stack.errors import StackError

PROBE_INTERVAL_S = 0.05
LEASH = Path(__file__).resolve().parent.parent / "leash.py"


class ServerProcess:
    """A process of the stack. Subclasses give `command` and `probe`, and `prepare` where a first start
    needs more."""

    name: str
    """What people call it: `kafka`, `taskmanager-1`."""
    folder: Path | None = None
    """Where it starts, if that matters to it."""
    stop_signal: int = signal.SIGTERM
    orphan_signal: int = signal.SIGKILL
    stop_timeout_s: float = 10.0
    probe_interval_s: float = 5.0
    """How often a supervisor asks `probe` of a server that is ready."""

    def __init__(self, name: str, port: int | None, log_file: Path) -> None:
        self.name = name
        self.port = port
        self.log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Make what the server needs on disk. May take seconds, is safe to repeat, starts nothing."""

    def command(self) -> Sequence[str]:
        """The program and its arguments; it must stay in the foreground."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Variables on top of this process's own; of secret ones it has those that are given here."""
        return {}

    def probe(self) -> str | None:
        """None when the server does its work, else why not, in a few words. Takes 2 s at most."""
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def ended(self) -> str | None:
        """How it ended, in words; None while it runs."""
        code = self.exit_code
        return None if code is None else f"it ended with {describe_exit(code)}"

    @property
    def exit_code(self) -> int | None:
        """How it ended (minus the signal number where a signal ended it); None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the process, in a group of its own, appending to its log file. Call `prepare` before."""
        if self.pid is not None:
            return
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        leash = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), str(int(self.orphan_signal))]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*leash, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**without_secrets(), **self.environment()},
                cwd=self.folder,
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float) -> None:
        """Return when `probe` is content; raises StackError when the process ends or the time is over."""
        wait_until(self.probe, timeout_s, self.name, died=self.ended, log_file=self.log_file)

    def clear_away(self) -> None:
        """Kill what is left of the group of a process that ended, or that does not become ready."""
        if self._process is not None:
            kill_group(self._process.pid)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End the process politely, then not; returns when its whole group is gone."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):  # the group is killed below
                process.wait(self.stop_timeout_s)
        self.clear_away()


def wait_until(
    probe: Callable[[], str | None],
    timeout_s: float,
    name: str,
    *,
    died: Callable[[], str | None] = lambda: None,
    log_file: Path | None = None,
) -> None:
    """Ask `probe` again and again until it is content; raises StackError with its last reason."""
    deadline = time.monotonic() + timeout_s
    while True:
        if (death := died()) is not None:
            raise StackError(f"{name} did not start: {death}.{advice(log_file)}")
        if (reason := probe()) is None:
            return
        if time.monotonic() >= deadline:
            raise StackError(f"{name} is not ready after {timeout_s:.0f} s: {reason}.{advice(log_file)}")
        time.sleep(PROBE_INTERVAL_S)  # paces the probe; the condition is the probe


def kill_group(pid: int) -> None:
    """Kill -9 what is left of the process group that `pid` leads; nothing left is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def describe_exit(code: int) -> str:
    """An exit code in words: `exit code 1`, `signal SIGKILL`."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def advice(log_file: Path | None) -> str:
    """The last line that a process wrote, and where the others are; begins with a space, or is empty."""
    if log_file is None:
        return ""
    lines = [line for line in _tail(log_file) if line.strip()]
    last = f' Its last words: "{lines[-1].strip()[:200]}".' if lines else ""
    return f"{last} See {log_file}"


def _tail(path: Path, size_bytes: int = 8192) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size_bytes))
            return file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []

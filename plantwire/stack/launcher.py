"""Start the supervisor and follow it; end it and wait for its end.

In: settings. Out: snapshots, handed to whoever shows them. Guarantees: a second start finds the first and
changes nothing; in the foreground the supervisor ends with the command that started it, also by kill -9.
Not here: the supervisor's own work (supervisor.py), words for people (cli.py, progress.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from plantwire.stack.errors import StackError
from plantwire.stack.servers.process import LEASH
from plantwire.stack.settings import StackSettings
from plantwire.stack.snapshot import Snapshot, end_leftovers, read_snapshot

POLL_INTERVAL_S = 0.1
LAUNCH_TIMEOUT_S = 30.0
END_MARGIN_S = 60.0

Show = Callable[[Snapshot], None]


class Launch:
    """A supervisor that this process started."""

    def __init__(self, settings: StackSettings, *, simulator: bool, detach: bool) -> None:
        self._settings = settings
        self._simulator = simulator
        self._detach = detach
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the supervisor; returns at once."""
        log_file = self._settings.home / "logs" / "supervisor.log"
        log_file.parent.mkdir(parents=True, exist_ok=True)
        module = ["-m", "plantwire.stack.supervisor", *([] if self._simulator else ["--no-simulator"])]
        words = [sys.executable, *module]
        if not self._detach:
            ending = str(int(signal.SIGTERM))
            words = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), ending, *words]
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait_ready(self, show: Show) -> Snapshot:
        """Show the start until everything is ready; raises StackError with the reason when it fails."""
        launched_s = time.monotonic()
        while True:
            snapshot = self._snapshot()
            if snapshot is not None:
                show(snapshot)
                if snapshot.phase == "ready":
                    return snapshot
            if self._exit_code() is not None:
                snapshot = self._snapshot()
                failure = None if snapshot is None else snapshot.failure
                log = self._settings.home / "logs" / "supervisor.log"
                raise StackError(failure or f"The supervisor ended while starting. See {log}")
            if snapshot is None and time.monotonic() - launched_s > LAUNCH_TIMEOUT_S:
                raise StackError(f"The supervisor says nothing after {LAUNCH_TIMEOUT_S:.0f} s")
            time.sleep(POLL_INTERVAL_S)  # paces the look at a file that another process replaces

    def follow(self, show: Show) -> int:
        """Show what happens until the supervisor ends; returns its exit code."""
        while (code := self._exit_code()) is None:
            if (snapshot := self._snapshot()) is not None:
                show(snapshot)
            time.sleep(POLL_INTERVAL_S)
        return code

    def ask_end(self) -> None:
        """Ask the supervisor to end everything."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def _exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def _snapshot(self) -> Snapshot | None:
        snapshot = read_snapshot(self._settings.home)
        if snapshot is None or self._process is None or snapshot.supervisor.pid != self._process.pid:
            return None  # what an earlier supervisor left
        return snapshot


def running(settings: StackSettings) -> Snapshot | None:
    """The snapshot of the stack that runs in this home, if one does."""
    snapshot = read_snapshot(settings.home)
    return snapshot if snapshot is not None and snapshot.alive else None


def end(settings: StackSettings, show: Show) -> bool:
    """End the stack of this home, and whatever a killed supervisor left; False when nothing ran."""
    snapshot = read_snapshot(settings.home)
    if snapshot is None:
        return False
    if not snapshot.alive:
        return bool(end_leftovers(snapshot))
    os.kill(snapshot.supervisor.pid, signal.SIGTERM)
    deadline = time.monotonic() + settings.savepoint_timeout_s + END_MARGIN_S
    while snapshot.alive:
        if time.monotonic() > deadline:
            os.kill(snapshot.supervisor.pid, signal.SIGKILL)  # its children die with it
            break
        show(read_snapshot(settings.home) or snapshot)
        time.sleep(POLL_INTERVAL_S)
    end_leftovers(read_snapshot(settings.home) or snapshot)
    return True

"""Short commands that the stack runs to an end: Maven, initdb, Kafka's format, `flink run`.

In: a command and a time limit. Out: its exit code and output, both streams as one. Guarantees: it dies with
this process (leash.py), and `end_commands` ends all of them, so that a stop never waits for a download.
Not here: servers (servers/process.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from plantwire.stack.errors import StackError
from plantwire.stack.servers.process import LEASH, kill_group

DEATH_SIGNAL = "9"

_lock = threading.Lock()
_running: set[int] = set()
_ended = False


class Result(NamedTuple):
    """How a command ended."""

    code: int
    output: str


def run_command(
    command: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None
) -> Result:
    """Run to the end; raises StackError when it takes longer or everything is being stopped."""
    with _lock:
        if _ended:
            raise StackError(f"{command[0]} is not started, because the stack is stopping")
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), DEATH_SIGNAL, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=True,
        )
        _running.add(process.pid)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise StackError(f"{Path(command[0]).name} did not end within {timeout_s:.0f} s") from None
    finally:
        kill_group(process.pid)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        with _lock:
            _running.discard(process.pid)
    return Result(process.returncode, output.decode(errors="replace"))


def end_commands() -> None:
    """Kill every command that runs, and start none any more."""
    global _ended
    with _lock:
        _ended = True
        for pid in _running:
            kill_group(pid)

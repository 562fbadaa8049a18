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
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from plantwire.stack.environment import without_secrets
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
    command: Sequence[str],
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    *,
    folder: Path | None = None,
    text: str | None = None,
) -> Result:
    """Run to the end, in `folder`, with `text` as its input and `environment` on top of what is not secret.

    Raises StackError when it takes longer or everything is being stopped.
    """
    with _lock:
        if _ended:
            raise StackError(f"{command[0]} is not started, because the stack is stopping")
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), DEATH_SIGNAL, *command],
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**without_secrets(), **(environment or {})},
            cwd=folder,
            start_new_session=True,
        )
        _running.add(process.pid)
    try:
        output, _ = process.communicate(None if text is None else text.encode(), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise StackError(f"{Path(command[0]).name} did not end within {timeout_s:.0f} s") from None
    finally:
        kill_group(process.pid)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # what a command that ended did not read
                    stream.close()
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

"""Run a command that dies with its parent: the last guard against processes left behind.

In: `python -I -S leash.py PARENT_PID SIGNAL COMMAND [ARGUMENT...]`. Out: the command itself (exec), in the
same process, so that its pid is the one which the parent knows.
Guarantees: on Linux the kernel sends SIGNAL to the command when the parent dies, also by kill -9; a parent
that died before the command began counts too. Elsewhere the command simply runs, and what was left behind
is ended by the next `plantwire up` or `plantwire down`, which reads the state file.
Not here: grandchildren (each server ends its own), and ending politely (servers/process.py).

It stands alone, without importing plantwire, because it runs before every server and must start at once.
"""

from __future__ import annotations

import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind this process to its parent's life, then become the command."""
    parent_pid, death_signal, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        import ctypes  # a late import keeps other systems free of it

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent_pid:
            raise SystemExit(f"{command[0]}: not started, because the process that asked for it is gone")
    try:
        os.execvp(command[0], command)  # noqa: S606 - exec of our own argument list, no shell
    except OSError as error:
        raise SystemExit(f"{command[0]}: {error.strerror}") from None


if __name__ == "__main__":
    main()

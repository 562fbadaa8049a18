"""`plantwire simulate` as a real process, for the integration tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.gateway.gateway_rig import SECRET

END_TIMEOUT_S = 30


class Simulator:
    """`python -m plantwire.simulator`, its log in a file."""

    def __init__(self, log_file: Path, gateway_url: str, *arguments: str, **environment: str) -> None:
        self._log_file = log_file
        variables = {k: v for k, v in os.environ.items() if not k.startswith("PLANTWIRE_")}
        command = ["-W", "error", "-m", "plantwire.simulator", "--gateway", gateway_url, *arguments]
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                env={**variables, "PLANTWIRE_TOKEN_SECRET": SECRET, **environment},
                stdout=log,
                stderr=log,
            )

    def end(self, number: int | None = None) -> dict[str, object]:
        """Wait for the end, after a signal if one is given; the counts that it logged last."""
        if number is not None:
            self._process.send_signal(number)
        assert self._process.wait(END_TIMEOUT_S) == 0, self._log_file.read_text()
        last = json.loads(self._log_file.read_text().splitlines()[-1])
        assert last["event"] == "plant-stopped"
        return dict(last)

    def kill(self) -> None:
        """End it at once, if it is still there."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextmanager
def ended_at_last() -> Iterator[list[Simulator]]:
    """A list for those that a test starts; none outlives it."""
    started: list[Simulator] = []
    try:
        yield started
    finally:
        for simulator in started:
            simulator.kill()

"""One running stack for all end-to-end tests, started by the command that people use.

PLANTWIRE_TEST_HOME names the home of a stack that runs already; the tests then use that one and leave it
running, which saves its start while one test is being written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from plantwire.stack.ports import free_ports

PLANTWIRE = str(Path(sys.executable).parent / "plantwire")
UP_TIMEOUT_S = 240
PORTS = (
    "KAFKA",
    "KAFKA_CONTROLLER",
    "REDIS",
    "DATABASE",
    "MQTT",
    "FLINK",
    "FLINK_RPC",
    "GATEWAY",
    "DISTRIBUTION",
    "STORAGE",
    "LIGHT_DETECTION",
    "LIGHT_LIVE",
)


@dataclass(frozen=True)
class Stack:
    """A stack: its home, the environment that commands need, and where everything is."""

    home: Path
    environment: dict[str, str] = field(repr=False)

    def command(self, *arguments: str, timeout_s: float = UP_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """Run `plantwire <arguments>` for this stack."""
        return subprocess.run(
            [PLANTWIRE, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def up(self, *options: str) -> None:
        """`plantwire up --detach`; returns when everything is ready."""
        result = self.command("up", "--detach", *options)
        assert result.returncode == 0, result.stderr

    def status(self, wait_s: float = 0) -> dict[str, Any]:
        """`plantwire status --json`."""
        result = self.command("status", "--json", "--wait", str(wait_s), timeout_s=wait_s + 60)
        found: dict[str, Any] = json.loads(result.stdout)
        assert (result.returncode == 0) == found["healthy"]
        return found

    def part(self, name: str) -> dict[str, Any]:
        """One part of `status`."""
        parts: Sequence[dict[str, Any]] = self.status()["parts"]
        return next(part for part in parts if part["name"] == name)

    def token(
        self, user: str = "tester", devices: str = "*", role: str = "operator", lifetime: str = "1h"
    ) -> str:
        """`plantwire token`."""
        options = ["--user", user, "--devices", devices, "--role", role, "--lifetime", lifetime]
        result = self.command("token", *options, timeout_s=60)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def address(self, name: str) -> str:
        """Where `kafka`, `redis`, `database`, `mqtt`, `flink`, `gateway` or the `dashboard` is."""
        return str(self.status()["addresses"][name])

    def processes(self) -> list[psutil.Process]:
        """Every process of the stack: the supervisor, its children, and theirs."""
        pids = [self.status()["supervisor_pid"]]
        supervisor = psutil.Process(pids[0])
        return [supervisor, *supervisor.children(recursive=True)]


def stack_in(home: Path) -> Stack:
    """A stack that is not started yet, on free ports, without the tests' own settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLANTWIRE_")}
    ports = zip(PORTS, free_ports(len(PORTS)), strict=True)
    environment |= {f"PLANTWIRE_{name}_PORT": str(port) for name, port in ports}
    return Stack(home, {**environment, "PLANTWIRE_HOME": str(home)})


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A healthy stack without the simulated plant. Whoever disturbs it leaves it healthy again."""
    if running_home := os.environ.get("PLANTWIRE_TEST_HOME"):
        running = Stack(Path(running_home), {**os.environ, "PLANTWIRE_HOME": running_home})
        assert running.status(wait_s=60)["healthy"]
        yield running
        return
    own = stack_in(tmp_path_factory.mktemp("stack"))
    try:
        own.up("--no-simulator")
        yield own
    finally:
        own.command("down")

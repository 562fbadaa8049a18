"""The stack that `bench.latency` measures: its own, or one that runs already.

In: a folder, or the environment of a running stack. Out: addresses, tokens, processes by part.
Guarantees: an own stack has free ports and a home of its own, and is taken down again, also on an error.
Not here: how the stack works (`plantwire.stack`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
import psutil

from bench.cpu import family
from plantwire.platform.settings import default_home
from plantwire.stack.ports import free_ports
from plantwire.stack.secret import password_file
from plantwire.stack.servers.postgres import ROLE

PLANTWIRE: Final = Path(sys.executable).parent / "plantwire"
COMMAND_TIMEOUT_S: Final = 300.0
REST_TIMEOUT_S: Final = 5.0
PORTS: Final = (
    "KAFKA_PORT",
    "KAFKA_CONTROLLER_PORT",
    "REDIS_PORT",
    "DATABASE_PORT",
    "MQTT_PORT",
    "FLINK_PORT",
    "FLINK_RPC_PORT",
    "GATEWAY_PORT",
    "DISTRIBUTION_PORT",
    "STORAGE_PORT",
    "LIGHT_DETECTION_PORT",
    "LIGHT_LIVE_PORT",
)
RUNNING: Final = "RUNNING"
LIGHT_PARTS: Final = ("alarm-detection", "live-state")
LIGHT_LAG: Final = "plantwire_light_lag_records "


class BenchError(Exception):
    """The measurement cannot go on; the text is fit for people."""


class Addresses(msgspec.Struct, frozen=True):
    """What is needed of `plantwire status --json`."""

    kafka: str
    database: str
    flink: str
    gateway: str
    dashboard: str


class PartStatus(msgspec.Struct, frozen=True):
    """A part of the stack."""

    name: str
    pid: int | None = None
    port: int | None = None


class Status(msgspec.Struct, frozen=True):
    """`plantwire status --json`, as far as it is needed."""

    healthy: bool
    addresses: Addresses
    parts: list[PartStatus]
    supervisor_pid: int | None = None


class Stack:
    """A running stack, spoken to by its command line and its REST interface."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._status: Status | None = None

    def command(self, *arguments: str) -> str:
        """Run `plantwire ARGUMENTS`; returns what it printed. Raises BenchError with its words."""
        try:
            result = subprocess.run(
                [PLANTWIRE, *arguments],
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise BenchError(
                f"`plantwire {arguments[0]}` did not end within {COMMAND_TIMEOUT_S:.0f} s"
            ) from None
        if result.returncode != 0:
            words = (result.stderr.strip() or result.stdout.strip())[-1_000:]
            raise BenchError(f"`plantwire {' '.join(arguments[:2])}` failed: {words}")
        return result.stdout

    @property
    def status(self) -> Status:
        """The stack's parts and addresses, asked once."""
        if self._status is None:
            try:
                self._status = msgspec.json.decode(self.command("status", "--json"), type=Status)
            except msgspec.ValidationError as error:
                raise BenchError(f"`plantwire status --json` is not as expected: {error}") from None
        return self._status

    def token(self, user: str, role: str) -> str:
        """A token for all devices."""
        return self.command("token", "--user", user, "--devices", "*", "--role", role).strip()

    def database(self) -> str:
        """The database's address, with the password that this home's embedded one asks for."""
        if external := self._environment.get("PLANTWIRE_DATABASE"):
            return external
        home = Path(self._environment.get("PLANTWIRE_HOME") or default_home())
        password = quote(password_file(home).read_text().strip(), safe="")
        scheme, _, place = self.status.addresses.database.partition("://")
        return f"{scheme}://{ROLE}:{password}@{place}"

    def parts(self) -> dict[str, list[psutil.Process]]:
        """The processes of every part; TaskManagers are named after the job that they run."""
        jobs = {} if self.is_light else self._job_of_task_manager()
        found: dict[str, list[psutil.Process]] = {}
        for part in self.status.parts:
            if part.pid is None:
                continue
            name = part.name
            if name.startswith("taskmanager"):
                name = f"TaskManager {jobs.get(name, 'spare')}"
            found.setdefault(name, []).extend(family(part.pid))
        if self.status.supervisor_pid is not None:
            found["supervisor"] = [psutil.Process(self.status.supervisor_pid)]
        return found

    @property
    def is_light(self) -> bool:
        """Whether it runs without Flink."""
        return not any(part.name in ("jobmanager", "flink") for part in self.status.parts)

    def pending_records(self) -> int:
        """Records that the engine has not read yet, as of its last look."""
        if self.is_light:
            return sum(self._lag(part.port) for part in self.status.parts if part.name in LIGHT_PARTS)
        total = 0
        for job, vertex in self._vertices():
            path = f"/jobs/{job}/vertices/{vertex}/metrics"
            names = [m["id"] for m in self._rest(path) if m["id"].endswith(".pendingRecords")]
            if names:
                values = self._rest(f"{path}?get={','.join(names)}")
                total += sum(int(float(value["value"])) for value in values)
        return total

    def _lag(self, port: int | None) -> int:
        try:
            lines = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=REST_TIMEOUT_S).text.splitlines()
        except httpx.HTTPError as error:
            raise BenchError(f"The light engine does not answer: {error}") from None
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(LIGHT_LAG))

    def _vertices(self) -> Iterator[tuple[str, str]]:
        for job in self._rest("/jobs/overview")["jobs"]:
            if job["state"] == RUNNING:
                for vertex in self._rest(f"/jobs/{job['jid']}")["vertices"]:
                    yield job["jid"], vertex["id"]

    def _job_of_task_manager(self) -> dict[str, str]:
        names = {job["jid"]: job["name"] for job in self._rest("/jobs/overview")["jobs"]}
        return {
            subtask["taskmanager-id"]: names[job]
            for job, vertex in self._vertices()
            for subtask in self._rest(f"/jobs/{job}/vertices/{vertex}")["subtasks"]
        }

    def _rest(self, path: str) -> Any:
        try:
            answer = httpx.get(self.status.addresses.flink + path, timeout=REST_TIMEOUT_S)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise BenchError(f"Flink does not answer: {error}") from None
        return answer.json()


@contextmanager
def own_stack(folder: Path, rules_file: Path, engine: str = "flink") -> Iterator[Stack]:
    """A stack in `folder` on free ports, without the simulated plant, with `rules_file` in force."""
    ports = {f"PLANTWIRE_{name}": str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PLANTWIRE_")}
    stack = Stack({**inherited, **ports, "PLANTWIRE_HOME": str(folder)})
    try:
        stack.command("up", "--detach", "--no-simulator", "--engine", engine)
        stack.command("status", "--wait", "120")
        stack.command("rules", "apply", str(rules_file))
        yield stack
    finally:
        stack.command("down")


@contextmanager
def running_stack(rules_file: Path) -> Iterator[Stack]:
    """The stack of this environment (PLANTWIRE_HOME); it stays as it is, but for the bench's rules."""
    stack = Stack(os.environ)
    stack.command("status")
    stack.command("rules", "apply", str(rules_file))
    yield stack


def merged(*parts: Mapping[str, Iterable[psutil.Process]]) -> dict[str, list[psutil.Process]]:
    """Several groups of processes as one."""
    return {name: list(processes) for group in parts for name, processes in group.items()}

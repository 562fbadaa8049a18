"""The stack as people run it: up, harmless twice, back after every kind of death, down without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import psutil
import pytest

from plantwire.stack.assembly import JOBS
from tests.e2e.conftest import PLANTWIRE, UP_TIMEOUT_S, Stack, stack_in

RECOVERY_S = 120
PARTS = [
    "kafka",
    "redis",
    "database",
    "mqtt",
    "jobmanager",
    "taskmanager-1",
    "taskmanager-2",
    "taskmanager-3",
    "taskmanager-4",
    "topics",
    "rules",
    "gateway",
    "distribution",
    "storage",
    "alarm-detection",
    "live-state",
    "telemetry-aggregation",
]


def _assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert [process.name() for process in alive] == []


def _restored_from(stack: Stack, job: str) -> str | None:
    """The savepoint or checkpoint that the running job came from."""
    flink = stack.address("flink")
    jobs = httpx.get(f"{flink}/jobs/overview").json()["jobs"]
    (running,) = [entry for entry in jobs if entry["name"] == job and entry["state"] == "RUNNING"]
    restored = httpx.get(f"{flink}/jobs/{running['jid']}/checkpoints").json()["latest"]["restored"]
    return None if restored is None else str(restored["external_path"])


def _savepoints(stack: Stack) -> dict[str, str]:
    remembered = json.loads((stack.home / "flink" / "jobs.json").read_text())
    return {job: entry["savepoint"] for job, entry in remembered.items()}


def test_every_part_is_there_and_healthy(stack: Stack) -> None:
    found = stack.status(wait_s=RECOVERY_S)
    assert found["healthy"]
    assert [part["name"] for part in found["parts"]] == PARTS
    for address in ("gateway", "dashboard"):
        assert httpx.get(f"{found['addresses'][address]}/readyz").status_code == 200


def test_a_second_up_is_harmless_and_says_so(stack: Stack) -> None:
    before = {part["name"]: part["pid"] for part in stack.status()["parts"]}
    result = stack.command("up", "--detach")
    assert result.returncode == 0
    assert "already running" in result.stderr
    assert {part["name"]: part["pid"] for part in stack.status()["parts"]} == before


def test_a_port_in_use_is_one_clear_line(stack: Stack, tmp_path: Path) -> None:
    port = stack.part("redis")["port"]
    other = stack_in(tmp_path)
    other.environment["PLANTWIRE_REDIS_PORT"] = str(port)
    result = other.command("up", "--detach")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"plantwire: Port {port}, needed for redis, is in use")
    assert "PLANTWIRE_REDIS_PORT" in line


def test_a_missing_jdk_is_one_clear_line(tmp_path: Path) -> None:
    other = stack_in(tmp_path)
    other.environment["JAVA_HOME"] = str(tmp_path)
    result = other.command("up", "--detach")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"plantwire: JAVA_HOME is {tmp_path}, which has no bin/java. Install a JDK 17")


def test_a_running_stack_is_not_reset(stack: Stack) -> None:
    result = stack.command("reset", "--yes")
    assert result.returncode == 1
    assert "plantwire down" in result.stderr


@pytest.mark.parametrize("part", ["gateway", "distribution", "redis", "mqtt", "taskmanager-1", "kafka"])
def test_a_killed_process_comes_back(stack: Stack, part: str) -> None:
    before = stack.part(part)
    process = psutil.Process(before["pid"])
    process.kill()
    _assert_gone([process])
    _await_restart(stack, part, before["restarts"])
    assert stack.status(wait_s=RECOVERY_S)["healthy"]
    assert stack.part(part)["pid"] != before["pid"]


def _await_restart(stack: Stack, part: str, restarts: int) -> None:
    deadline = time.monotonic() + 30
    while stack.part(part)["restarts"] <= restarts:
        assert time.monotonic() < deadline, f"{part} was not started again"


def test_jobs_come_back_after_the_jobmanager_was_killed(stack: Stack) -> None:
    restarts = {part["name"]: part["restarts"] for part in stack.status()["parts"]}
    before = stack.part("jobmanager")
    os.kill(before["pid"], signal.SIGKILL)
    _await_restart(stack, "jobmanager", before["restarts"])
    found = stack.status(wait_s=RECOVERY_S)
    assert found["healthy"], found
    submitted_again = {part["name"] for part in found["parts"] if part["restarts"] > restarts[part["name"]]}
    assert set(JOBS) <= submitted_again


def test_down_leaves_nothing_and_the_next_up_goes_on(stack: Stack) -> None:
    processes = stack.processes()
    assert len(processes) >= 10
    result = stack.command("down")
    assert result.returncode == 0, result.stderr
    _assert_gone(processes)
    assert stack.command("down").stderr.strip() == "Plantwire was not running."
    savepoints = _savepoints(stack)
    assert sorted(savepoints) == sorted(JOBS)
    stack.up("--no-simulator")
    assert {job: _restored_from(stack, job) for job in savepoints} == savepoints


def test_nothing_survives_a_killed_supervisor(stack: Stack) -> None:
    processes = stack.processes()
    os.kill(stack.status()["supervisor_pid"], signal.SIGKILL)
    _assert_gone(processes)
    assert stack.status()["phase"] == "down"
    stack.up("--no-simulator")
    assert stack.status(wait_s=RECOVERY_S)["healthy"]


def test_in_the_foreground_ctrl_c_stops_everything(stack: Stack) -> None:
    stack.command("down")
    command = [PLANTWIRE, "up", "--no-simulator"]
    foreground = subprocess.Popen(command, env=stack.environment, stderr=subprocess.PIPE, text=True)
    try:
        assert stack.status(wait_s=UP_TIMEOUT_S)["healthy"]
        processes = stack.processes()
        foreground.send_signal(signal.SIGINT)
        _, stderr = foreground.communicate(timeout=90)
    finally:
        foreground.kill()
        foreground.wait()
    assert foreground.returncode == 0, stderr
    assert "#token=" in stderr
    assert stderr.rstrip().endswith("Plantwire is down.")
    _assert_gone(processes)
    stack.up("--no-simulator")

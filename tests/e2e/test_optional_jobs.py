"""Anomaly scores and telemetry patterns with the whole stack: two settings, and both are on the API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from plantwire.domain.anomaly.metric_scorer import WARM_UP
from plantwire.simulator.signals import gaussian
from plantwire.stack.assembly import PATTERNS_JOB, SCORING_JOB
from tests.e2e.conftest import Stack, stack_in

# A stack of its own with two jobs more.
pytestmark = pytest.mark.long

EFFECT_S = 120
SCORING = 'scoring:\n  - {devices: "scored-*", metric: torque}\n'
PATTERNS = """\
patterns:
  - {id: spiky, version: 1, devices: "spiky-*", metric: flow, severity: medium,
     spikes: {count: 3, above: 90, within_s: 60}}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "scoring.yaml").write_text(SCORING)
    (folder / "patterns.yaml").write_text(PATTERNS)
    return folder


def stack_with(home: Path, scoring: Path, patterns: Path) -> Stack:
    stack = stack_in(home)
    stack.environment["PLANTWIRE_SCORING_FILE"] = str(scoring)
    stack.environment["PLANTWIRE_PATTERNS"] = str(patterns)
    # What a job needs to run is one TaskManager.
    stack.environment["PLANTWIRE_FLINK_SPARE_TASK_MANAGERS"] = "0"
    return stack


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[Stack]:
    plant = stack_with(tmp_path_factory.mktemp("plant"), files / "scoring.yaml", files / "patterns.yaml")
    try:
        plant.up("--no-simulator")
        yield plant
    finally:
        plant.command("down")


class Api:
    """The stack's HTTP interfaces."""

    def __init__(self, stack: Stack) -> None:
        self._gateway, self._dashboard = stack.address("gateway"), stack.address("dashboard")
        self._device = {"Authorization": f"Bearer {stack.token(role='device')}"}
        self._operator = {"Authorization": f"Bearer {stack.token()}"}

    def post(self, device: str, metric: str, values: list[float]) -> None:
        """A frame for each value, in one request, the last of now."""
        start_ms = time.time_ns() // 1_000_000 - len(values) + 1
        frames = [{"timestamp": start_ms + n, "metrics": {metric: value}} for n, value in enumerate(values)]
        answer = httpx.post(
            f"{self._gateway}/api/v1/devices/{device}/telemetry",
            json=frames,
            headers=self._device,
            timeout=20,
        )
        assert answer.status_code == 202, answer.text

    def latest(self, device: str) -> dict[str, Any]:
        """The device's latest values."""
        answer = httpx.get(
            f"{self._dashboard}/api/devices/telemetry/latest", headers=self._operator, timeout=20
        )
        found = [entry["data"] for entry in answer.json() if entry["deviceId"] == device]
        return found[0] if found else {}

    def alarms(self) -> list[dict[str, Any]]:
        """The active alarms."""
        answer = httpx.get(f"{self._dashboard}/api/alarms", headers=self._operator, timeout=20)
        alarms: list[dict[str, Any]] = answer.json()["alarms"]
        return alarms


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + EFFECT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {EFFECT_S} s: {what}"
        time.sleep(0.2)  # paces the question


def test_the_jobs_run_and_scores_and_patterns_are_told(plant: Stack) -> None:
    status = plant.status(wait_s=EFFECT_S)
    assert status["healthy"]
    assert {SCORING_JOB, PATTERNS_JOB} <= {part["name"] for part in status["parts"]}
    api = Api(plant)

    api.post("scored-1", "torque", [gaussian(1, n) for n in range(WARM_UP)] + [60.0])
    wait_for(lambda: "anomaly/level/torque" in api.latest("scored-1"), "the value is scored")
    assert api.latest("scored-1")["anomaly/level/torque"] > 3
    wait_for(lambda: [a for a in api.alarms() if a["ruleId"] == "unusual-level"], "the score is an alarm")

    tries = 0

    def found() -> list[dict[str, Any]]:
        # The job looks at what is sent from some moment after its start on, and finds what is over when
        # later frames come.
        nonlocal tries
        tries += 1
        api.post(f"spiky-{tries}", "flow", [95, 0, 95, 0, 95, 0])
        return [alarm for alarm in api.alarms() if alarm["ruleId"] == "pattern:spiky"]

    wait_for(found, "the pattern is an alarm")
    alarm = found()[0]
    assert (alarm["metric"], alarm["value"], alarm["limit"]) == ("flow", 95, 90)
    assert alarm["severity"] == "MEDIUM"
    # A task that has read the alarm log to its end makes nobody unwell.
    assert plant.status()["healthy"]


@pytest.mark.parametrize(
    ("unsound", "line"), [("scoring.yaml", 2), ("patterns.yaml", 2)], ids=["scoring", "patterns"]
)
def test_unsound_files_start_nothing_and_are_told_by_line(
    tmp_path: Path, files: Path, unsound: str, line: int
) -> None:
    named = {name: files / name for name in ("scoring.yaml", "patterns.yaml")}
    named[unsound] = tmp_path / unsound
    named[unsound].write_text((files / unsound).read_text().replace("devices", "device"))
    refusing = stack_with(tmp_path / "home", named["scoring.yaml"], named["patterns.yaml"])
    result = refusing.command("up", "--detach")
    assert result.returncode == 1
    (told,) = result.stderr.splitlines()
    assert told.startswith(f"plantwire: {named[unsound]} is not sound. {named[unsound]}:{line}: ")
    assert not (tmp_path / "home" / "kafka").exists()

"""A small site: `plantwire up --engine light`, from a device's request to the API, also over a kill -9."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from plantwire.platform.topic_reader import read_to_end
from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC
from tests.e2e.conftest import Stack, stack_in

EFFECT_S = 20
RULES = """
rules:
  - id: hot
    devices: "light-*"
    metric: temperature
    limits:
      critical: {{above: {above}, deadband: 2}}
    message: "{{device}} {{metric}} at {{value}}, limit {{limit}}"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    site = stack_in(tmp_path_factory.mktemp("site"))
    try:
        site.up("--no-simulator", "--engine", "light")
        yield site
    finally:
        site.command("down")


def apply_rules(site: Stack, folder: Path, above: int) -> None:
    file = folder / "rules.yaml"
    file.write_text(RULES.format(above=above))
    applied = site.command("rules", "apply", str(file))
    assert applied.returncode == 0, applied.stderr


class Api:
    """The site's HTTP interfaces; each command of the stack takes a second, so addresses are asked once."""

    def __init__(self, site: Stack) -> None:
        self._frames = f"{site.address('gateway')}/api/v1/devices"
        self._alarms = f"{site.address('dashboard')}/api/alarms"
        self._device = {"Authorization": f"Bearer {site.token(role='device')}"}
        self._operator = {"Authorization": f"Bearer {site.token()}"}

    def post(self, device: str, value: float) -> None:
        """A device's frame."""
        frame = {"metrics": {"temperature": value}}
        answer = httpx.post(
            f"{self._frames}/{device}/telemetry", json=frame, headers=self._device, timeout=20
        )
        assert answer.status_code == 202, answer.text

    def alarms(self, device: str) -> list[dict[str, Any]]:
        """The device's active alarms."""
        answer = httpx.get(self._alarms, headers=self._operator, timeout=20)
        return [alarm for alarm in answer.json()["alarms"] if alarm["deviceId"] == device]


@pytest.fixture(scope="module")
def api(site: Stack) -> Api:
    return Api(site)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + EFFECT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {EFFECT_S} s: {what}"
        time.sleep(0.1)  # paces the question


def test_there_is_no_flink_and_all_is_healthy(site: Stack) -> None:
    status = site.status()
    names = [part["name"] for part in status["parts"]]
    assert status["healthy"]
    assert {"alarm-detection", "live-state", "storage"} <= set(names)
    assert not [name for name in names if "manager" in name]
    assert not [p for p in site.processes() if "org.apache.flink" in " ".join(p.cmdline())]


def test_a_critical_value_is_on_the_api_and_rules_change_hot(site: Stack, api: Api, tmp_path: Path) -> None:
    apply_rules(site, tmp_path, above=100)
    wait_for(lambda: api.post("light-1", 101.5) or api.alarms("light-1"), "the alarm is on the API")
    (alarm,) = api.alarms("light-1")
    assert (alarm["severity"], alarm["value"], alarm["ruleId"]) == ("CRITICAL", 101.5, "hot")
    assert alarm["hops"]["published"] >= alarm["hops"]["detectIn"] > 0
    apply_rules(site, tmp_path, above=200)
    wait_for(lambda: api.post("light-1", 101.5) or not api.alarms("light-1"), "the new rule clears it")
    listed = site.command("rules", "list")
    assert "hot" in listed.stdout
    assert listed.returncode == 0


def test_a_killed_engine_comes_back_and_loses_nothing(site: Stack, api: Api, tmp_path: Path) -> None:
    apply_rules(site, tmp_path, above=100)
    wait_for(lambda: api.post("light-2", 101.5) or api.alarms("light-2"), "the rule is in force")
    before = site.part("alarm-detection")
    os.kill(before["pid"], signal.SIGKILL)
    api.post("light-2", 50)
    api.post("light-3", 101.5)
    wait_for(lambda: api.alarms("light-3") and not api.alarms("light-2"), "all of it is judged")
    events = [
        ALARM_CODEC.decode(r.body or b"") for r in read_to_end(site.address("kafka"), topics.ALARMS_FIRE, 10)
    ]
    for device, kinds in (("light-2", ["CLEARED", "RAISED"]), ("light-3", ["RAISED"])):
        own = {(e.alarm_id, e.revision): e for e in events if e.device_id == device}
        assert sorted(e.kind for e in own.values()) == kinds
        assert len({e.alarm_id for e in own.values()}) == 1
    after = site.status(wait_s=30)
    assert after["healthy"]
    part = next(part for part in after["parts"] if part["name"] == "alarm-detection")
    assert part["restarts"] == before["restarts"] + 1
    assert part["pid"] != before["pid"]


def test_what_needs_flink_says_so(tmp_path: Path) -> None:
    other = stack_in(tmp_path)
    other.environment["PLANTWIRE_SCORING_FILE"] = str(tmp_path / "scoring.yaml")
    refused = other.command("up", "--detach", "--engine", "light")
    assert refused.returncode == 1
    assert "need Flink" in refused.stderr

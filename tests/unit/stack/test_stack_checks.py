"""Findings before a start: ports, and who holds them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from plantwire.stack import checks
from plantwire.stack.errors import StackError
from plantwire.stack.ports import free_ports, is_free
from plantwire.stack.settings import RecordedSettings, StackSettings

SETTINGS = (
    "kafka_port",
    "kafka_controller_port",
    "redis_port",
    "database_port",
    "mqtt_port",
    "flink_port",
    "flink_rpc_port",
    "gateway_port",
    "distribution_port",
    "storage_port",
)


@pytest.fixture
def settings() -> StackSettings:
    return RecordedSettings.model_validate(dict(zip(SETTINGS, free_ports(len(SETTINGS)), strict=True)))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(is_free(port) for port in ports)


def test_free_ports_are_well(settings: StackSettings) -> None:
    ports = [finding for finding in checks.examine(settings, frozenset()) if finding.name.startswith("Port")]
    assert len(ports) == len(SETTINGS)
    assert all(finding.well for finding in ports)


def test_a_port_in_use_stops_the_start_with_advice(
    settings: StackSettings, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks.java, "java_executable", lambda: "java")
    monkeypatch.setattr(checks.java, "cache_directory", lambda: settings.home.parent)
    port = listener.getsockname()[1]
    taken = settings.model_copy(update={"redis_port": port})
    with pytest.raises(StackError, match=rf"Port {port}, needed for redis, is in use.*PLANTWIRE_REDIS_PORT"):
        checks.require_startable(taken)


@pytest.mark.parametrize("setting", ["scoring_file", "patterns"])
def test_a_file_of_a_job_that_is_not_sound_stops_the_start_with_line_and_reason(
    settings: StackSettings, setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks.java, "java_executable", lambda: "java")
    monkeypatch.setattr(checks.java, "cache_directory", lambda: settings.home.parent)
    file = tmp_path / "file.yaml"
    named = settings.model_copy(update={setting: file})

    def refusal(text: str | None) -> str:
        if text is not None:
            file.write_text(text)
        with pytest.raises(StackError) as refused:
            checks.require_startable(named)
        return str(refused.value)

    top = "scoring" if setting == "scoring_file" else "patterns"
    assert f"{file}:1: cannot be read: No such file" in refusal(None)
    assert f"{file}:2: " in refusal(f"{top}:\n  - {{devices: 'x'}}\n")
    assert f"Unset PLANTWIRE_{setting.upper()}" in refusal(f"{top}: []\n")


def test_sound_files_of_jobs_are_well(settings: StackSettings, tmp_path: Path) -> None:
    scoring, patterns = tmp_path / "scoring.yaml", tmp_path / "patterns"
    scoring.write_text("scoring:\n  - {devices: '*', metric: t}\n")
    patterns.mkdir()
    (patterns / "a.yaml").write_text(
        "patterns:\n  - {id: a, version: 1, devices: '*', metric: t, severity: low, stuck: {for_s: 9}}\n"
    )
    named = settings.model_copy(update={"scoring_file": scoring, "patterns": patterns})
    found = {finding.name: finding for finding in checks.examine(named, frozenset())}
    for name, path in (("PLANTWIRE_SCORING_FILE", scoring), ("PLANTWIRE_PATTERNS", patterns)):
        assert (found[name].well, found[name].found) == (True, f"{path} has 1 entries")


def test_a_port_that_the_stack_itself_holds_is_well(
    settings: StackSettings, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    monkeypatch.setattr(checks, "_listener", lambda _port: psutil.Process(os.getpid()))
    port = listener.getsockname()[1]
    taken = settings.model_copy(update={"redis_port": port})
    (finding,) = [
        f for f in checks.examine(taken, frozenset({os.getpid()})) if f.name == f"Port {port} (redis)"
    ]
    assert (finding.well, finding.found) == (True, "in use by Plantwire itself")


def test_two_parts_on_one_port_are_refused(settings: StackSettings) -> None:
    same = settings.model_copy(update={"mqtt_port": settings.redis_port})
    findings = [finding for finding in checks.examine(same, frozenset()) if "are both" in finding.found]
    assert len(findings) == 1
    assert "PLANTWIRE_REDIS_PORT" in findings[0].found
    assert "PLANTWIRE_MQTT_PORT" in findings[0].found

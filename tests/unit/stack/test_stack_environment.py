"""Which process is told which secret, and that no other finds it in its environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr

from plantwire.distribution.settings import DistributionSettings
from plantwire.gateway.settings import GatewaySettings
from plantwire.jobs.settings import JobSettings
from plantwire.platform.settings import SharedSettings
from plantwire.simulator.settings import SimulatorSettings
from plantwire.stack.assembly import assemble
from plantwire.stack.environment import SECRET_VARIABLES, without_secrets
from plantwire.stack.parts import Job, Part
from plantwire.stack.secret import Secrets
from plantwire.stack.servers.process import ServerProcess
from plantwire.stack.settings import StackSettings, load_settings

TOKEN_KEY = "signing-key-signing-key-signing-key"
DATABASE_PASSWORD = "database-password"
SECRETS = Secrets(token=TOKEN_KEY, database=DATABASE_PASSWORD)
MQTT_PASSWORD = "mqtt-password"
DEVICE_TOKEN = "device-token"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Part]:
    for name in [name for name in os.environ if name.startswith("PLANTWIRE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PLANTWIRE_HOME", str(tmp_path))
    monkeypatch.setenv("PLANTWIRE_TOKEN_SECRET", TOKEN_KEY)
    monkeypatch.setenv("plantwire_mqtt_password", MQTT_PASSWORD)
    monkeypatch.setenv("PLANTWIRE_TOKEN", DEVICE_TOKEN)
    monkeypatch.setenv("PLANTWIRE_REDIS", "redis://:redis-password@cache:6379/0")
    return {part.name: part for part, _ in assemble(load_settings(), SECRETS, simulator=True)}


def _told(part: Part) -> dict[str, str]:
    if isinstance(part, Job):
        return {**without_secrets(), **part._variables}
    assert isinstance(part, ServerProcess)
    return {**without_secrets(), **part.environment()}


@pytest.mark.parametrize(
    ("part", "known"),
    [
        ("gateway", {TOKEN_KEY, MQTT_PASSWORD}),
        ("distribution", {TOKEN_KEY, DATABASE_PASSWORD, "redis-password"}),
        ("storage", {DATABASE_PASSWORD}),
        ("simulator", {TOKEN_KEY, MQTT_PASSWORD, DEVICE_TOKEN}),
        ("alarm-detection", {DATABASE_PASSWORD, "redis-password"}),
        ("live-state", {DATABASE_PASSWORD, "redis-password"}),
        *((name, set()) for name in ("kafka", "database", "mqtt", "jobmanager", "taskmanager-1")),
    ],
)
def test_a_process_is_told_what_it_needs_and_no_other_secret(
    parts: dict[str, Part], part: str, known: set[str]
) -> None:
    told = "\n".join(_told(parts[part]).values())
    secrets = {TOKEN_KEY, MQTT_PASSWORD, DEVICE_TOKEN, DATABASE_PASSWORD, "redis-password"}
    assert {secret for secret in secrets if secret in told} == known


def test_a_process_finds_everything_that_is_not_secret(parts: dict[str, Part]) -> None:
    told = _told(parts["taskmanager-1"])
    assert told["PLANTWIRE_KAFKA"] == "127.0.0.1:9092"
    assert told["PATH"]
    assert _told(parts["distribution"])["PLANTWIRE_DATABASE"] == (
        f"postgresql://plantwire:{DATABASE_PASSWORD}@127.0.0.1:5432/plantwire"
    )


def test_secrets_are_not_in_their_own_words() -> None:
    assert TOKEN_KEY not in repr(SECRETS)
    assert DATABASE_PASSWORD not in repr(SECRETS)


def test_every_secret_setting_is_known_as_one() -> None:
    kinds = (SharedSettings, StackSettings, GatewaySettings, SimulatorSettings, JobSettings)
    for kind in (*kinds, DistributionSettings):
        prefix = kind.model_config.get("env_prefix", "")
        for name, field in kind.model_fields.items():
            if field.annotation is SecretStr or SecretStr in get_args(field.annotation):
                assert f"{prefix}{name}".upper() in SECRET_VARIABLES

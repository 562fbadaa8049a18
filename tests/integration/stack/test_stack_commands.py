"""The commands that need no running stack, run as people run them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from plantwire.distribution.settings import DistributionSettings
from plantwire.gateway.settings import GatewaySettings
from plantwire.platform.tokens import Role, TokenAuthority, TokenError
from plantwire.stack.settings import StackSettings

PLANTWIRE = str(Path(sys.executable).parent / "plantwire")


class Command:
    """`plantwire` in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("PLANTWIRE_")}
        self.environment |= {"PLANTWIRE_HOME": str(home), "COLUMNS": "200"}

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PLANTWIRE, *arguments],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def plantwire(tmp_path: Path) -> Command:
    return Command(tmp_path / "home")


def _authority(secret: str) -> TokenAuthority:
    return TokenAuthority(secret, "plantwire", "plantwire")


def test_a_token_is_what_was_asked_for(plantwire: Command) -> None:
    result = plantwire("token", "--user", "anna", "--devices", "press-1, press-2", "--role", "device")
    assert result.returncode == 0, result.stderr
    key = plantwire.home / "secrets" / "token.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text() not in result.stdout + result.stderr
    claims = _authority(key.read_text()).verify(result.stdout.strip())
    assert (claims.subject, claims.role, claims.devices) == ("anna", Role.DEVICE, {"press-1", "press-2"})
    assert claims.expires_at_s == pytest.approx(time.time() + 12 * 3600, abs=60)


def test_the_key_stays_the_same_and_every_home_has_its_own(plantwire: Command, tmp_path: Path) -> None:
    options = ("token", "--user", "anna", "--devices", "*", "--lifetime", "30m")
    first, second = plantwire(*options).stdout.strip(), plantwire(*options).stdout.strip()
    key = (plantwire.home / "secrets" / "token.key").read_text()
    for token in (first, second):
        assert _authority(key).verify(token).every_device
    foreign = Command(tmp_path / "other")(*options).stdout.strip()
    with pytest.raises(TokenError):
        _authority(key).verify(foreign)


def test_a_key_from_the_environment_goes_first(plantwire: Command) -> None:
    secret = "k" * 40
    result = plantwire("token", "--user", "anna", "--devices", "*", PLANTWIRE_TOKEN_SECRET=secret)
    assert jwt.decode(
        result.stdout.strip(), secret, algorithms=["HS256"], audience="plantwire", issuer="plantwire"
    )
    assert not (plantwire.home / "secrets").exists()


def test_a_key_that_others_can_read_is_refused(plantwire: Command) -> None:
    options = ("token", "--user", "anna", "--devices", "*")
    plantwire(*options)
    (plantwire.home / "secrets" / "token.key").chmod(0o644)
    result = plantwire(*options)
    assert result.returncode == 1
    assert "chmod 600" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--user", "anna", "--devices", "*", "--role", "king"),
        ("--user", "anna", "--devices", " , "),
        ("--user", "anna", "--devices", "*", "--lifetime", "0h"),
        ("--user", "anna", "--devices", "*", "--lifetime", "soon"),
    ],
)
def test_a_wrong_token_request_is_refused(plantwire: Command, options: tuple[str, ...]) -> None:
    result = plantwire("token", *options)
    assert result.returncode == 2
    assert result.stdout == ""


def test_without_a_stack_status_and_down_say_so(plantwire: Command) -> None:
    status = plantwire("status")
    assert status.returncode == 1
    assert "Plantwire is down" in status.stderr
    assert '"phase": "down"' in plantwire("status", "--json").stdout
    down = plantwire("down")
    assert (down.returncode, down.stderr.strip()) == (0, "Plantwire was not running.")


def test_config_shows_every_setting_and_no_secret(plantwire: Command) -> None:
    shown = plantwire("config", PLANTWIRE_TOKEN_SECRET="x" * 40, PLANTWIRE_REDIS_PORT="16379").stdout
    names = [
        f"PLANTWIRE_{name.upper()}" for name in (*StackSettings.model_fields, *GatewaySettings.model_fields)
    ]
    names += [f"PLANTWIRE_DISTRIBUTION_{name.upper()}" for name in DistributionSettings.model_fields]
    assert [name for name in names if f"{name} = " not in shown] == []
    assert "PLANTWIRE_REDIS_PORT = 16379  default 6379" in shown
    assert "x" * 40 not in shown


def test_config_shows_addresses_without_their_passwords(plantwire: Command) -> None:
    shown = plantwire(
        "config",
        PLANTWIRE_DATABASE="postgresql://plant:hidden-1@db/plant",
        PLANTWIRE_REDIS="redis://:hidden-2@cache:6379/0",
        PLANTWIRE_MQTT="mqtts://plant:hidden-3@broker:8883",
        PLANTWIRE_MQTT_PASSWORD="hidden-4",
    ).stdout
    assert "PLANTWIRE_DATABASE = postgresql://db/plant" in shown
    assert "PLANTWIRE_MQTT = mqtts://broker:8883" in shown
    assert "hidden" not in shown


def test_reset_deletes_data_and_keeps_the_key(plantwire: Command) -> None:
    plantwire("token", "--user", "anna", "--devices", "*")
    (plantwire.home / "kafka" / "data").mkdir(parents=True)
    (plantwire.home / "mine.txt").write_text("not Plantwire's")
    assert plantwire("reset").returncode == 1  # nobody answers the question
    assert (plantwire.home / "kafka").exists()
    assert plantwire("reset", "--yes").returncode == 0
    assert sorted(path.name for path in plantwire.home.iterdir()) == ["mine.txt", "secrets"]


def test_doctor_tells_what_to_do(plantwire: Command, tmp_path: Path) -> None:
    result = plantwire("doctor", JAVA_HOME=str(tmp_path))
    assert result.returncode == 1
    assert "Install a JDK 17" in result.stderr


def test_logs_of_one_part(plantwire: Command) -> None:
    folder = plantwire.home / "logs" / "flink"
    folder.mkdir(parents=True)
    (folder / "taskmanager-1.log").write_text("one\ntwo\n")
    (folder / "taskmanager-10.log").write_text("ten\n")
    assert plantwire("logs", "taskmanager-1", "-n", "1").stdout == "two\n"
    assert "taskmanager-10.log" in plantwire("logs").stdout
    missing = plantwire("logs", "press")
    assert missing.returncode == 1
    assert "no log of press" in missing.stderr


def test_every_command_explains_itself(plantwire: Command) -> None:
    help_text = plantwire("--help").stdout
    for command in (
        "up",
        "down",
        "status",
        "doctor",
        "token",
        "reset",
        "logs",
        "config",
        "rules",
        "simulate",
    ):
        assert command in help_text
        assert plantwire(command, "--help").returncode == 0

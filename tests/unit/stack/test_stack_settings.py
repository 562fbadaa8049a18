"""The stack's settings: embedded or external, ports, what other commands recover."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plantwire.stack.assembly import JOBS, PATTERNS_JOB, SCORING_JOB, assemble
from plantwire.stack.errors import StackError
from plantwire.stack.parts import Export, Job, Part
from plantwire.stack.secret import Secrets
from plantwire.stack.settings import RecordedSettings, StackSettings, load_settings, redact
from plantwire.stack.supervisor import recorded


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PLANTWIRE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PLANTWIRE_HOME", str(tmp_path))


def test_everything_is_embedded_on_the_ports_of_the_contract() -> None:
    settings = load_settings()
    addresses = settings.addresses()
    assert addresses.kafka == "127.0.0.1:9092"
    assert addresses.redis == "redis://127.0.0.1:6379/0"
    assert addresses.database == "postgresql://plantwire@127.0.0.1:5432/plantwire"
    assert addresses.mqtt == "mqtt://127.0.0.1:1883"
    assert addresses.flink == "http://127.0.0.1:8081"
    assert {part for part, _ in settings.ports().values()} == {
        "kafka",
        "redis",
        "database",
        "mqtt",
        "flink",
        "gateway",
        "distribution",
        "storage",
    }


def test_a_server_that_is_named_is_external_even_at_the_default_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLANTWIRE_REDIS", "redis://127.0.0.1:6379/0")
    settings = load_settings()
    assert settings.is_external("redis")
    assert not settings.is_external("kafka")
    assert "redis_port" not in settings.ports()


def test_a_port_moves_the_address_and_what_processes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTWIRE_KAFKA_PORT", "19092")
    settings = load_settings()
    assert settings.addresses().kafka == "127.0.0.1:19092"
    assert settings.variables()["PLANTWIRE_KAFKA"] == "127.0.0.1:19092"


def test_the_record_restores_the_addresses_in_another_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLANTWIRE_REDIS_PORT", "16379")
    monkeypatch.setenv("PLANTWIRE_MQTT", "mqtts://plant:pass@broker:8883")
    monkeypatch.setenv("PLANTWIRE_TOKEN_SECRET", "s" * 40)
    settings = load_settings()
    record = recorded(settings)
    assert "s" * 40 not in str(record)
    monkeypatch.setenv("PLANTWIRE_REDIS_PORT", "26379")
    restored = RecordedSettings.model_validate({**record, "home": tmp_path})
    assert restored.addresses() == settings.addresses()
    assert restored.is_external("mqtt")


def test_the_record_lets_others_ask_a_broker_with_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLANTWIRE_MQTT_USERNAME", "plant")
    monkeypatch.setenv("PLANTWIRE_MQTT_PASSWORD", "pass")
    monkeypatch.setenv("PLANTWIRE_MQTT_TLS_CA", "ca.pem")
    monkeypatch.chdir(tmp_path)
    record = recorded(load_settings())
    for name in ("USERNAME", "PASSWORD", "TLS_CA"):
        monkeypatch.delenv(f"PLANTWIRE_MQTT_{name}")
    restored = RecordedSettings.model_validate({**record, "home": tmp_path})
    assert restored.mqtt_password is not None
    assert (restored.mqtt_username, restored.mqtt_password.get_secret_value()) == ("plant", "pass")
    assert restored.mqtt_tls_ca == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    ("setting", "added_job"), [("scoring_file", SCORING_JOB), ("patterns", PATTERNS_JOB)]
)
def test_with_its_file_a_job_runs_with_a_slot_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str, added_job: str
) -> None:
    variable = f"PLANTWIRE_{setting.upper()}"

    def parts(settings: StackSettings) -> dict[str, tuple[Part, frozenset[str]]]:
        assembled = assemble(settings, Secrets(token="t" * 32, database="d"), simulator=False)
        return {part.name: (part, needs) for part, needs in assembled}

    without = parts(load_settings())
    monkeypatch.setenv(variable, "file.yaml")
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    found = parts(settings)
    added = set(found) - set(without)
    slots = len(JOBS) + 1
    assert added == {added_job, f"taskmanager-{slots + settings.flink_spare_task_managers}"}
    job, needs = found[added_job]
    assert {f"taskmanager-{number}" for number in range(1, slots + 1)} <= needs
    assert isinstance(job, Job)
    assert job._variables[variable] == str(tmp_path / "file.yaml")
    # Others that ask the running stack see the same parts, wherever they are.
    record = recorded(settings)
    monkeypatch.delenv(variable)
    monkeypatch.chdir("/")
    restored = RecordedSettings.model_validate({**record, "home": tmp_path})
    assert set(parts(restored)) == set(found)
    assert getattr(restored, setting) == tmp_path / "file.yaml"


def test_with_the_address_of_an_influxdb_the_sink_runs_and_alone_is_told_its_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def parts(settings: StackSettings) -> dict[str, tuple[Part, frozenset[str]]]:
        assembled = assemble(settings, Secrets(token="t" * 32, database="d"), simulator=True)
        return {part.name: (part, needs) for part, needs in assembled}

    without = parts(load_settings())
    monkeypatch.setenv("PLANTWIRE_INFLUX_URL", "http://influx.example:8086")
    monkeypatch.setenv("PLANTWIRE_INFLUX_TOKEN", "to-influx")
    monkeypatch.setenv("PLANTWIRE_INFLUX_STATUS_PORT", "18083")
    settings = load_settings()
    found = parts(settings)
    assert set(found) - set(without) == {"influx"}
    assert settings.ports()["influx_status_port"] == ("influx", 18083)
    sink, needs = found["influx"]
    assert isinstance(sink, Export)
    assert (sink.port, needs) == (18083, {"topics"})
    assert sink.environment()["PLANTWIRE_INFLUX_TOKEN"] == "to-influx"
    assert "PLANTWIRE_DATABASE" not in sink.environment()
    told = [
        part.name for part, _ in found.values() if "to-influx" in getattr(part, "_variables", {}).values()
    ]
    assert told == ["influx"]
    # Others that ask the running stack see it too, without being told where InfluxDB is.
    record = recorded(settings)
    assert "to-influx" not in record.values()
    monkeypatch.delenv("PLANTWIRE_INFLUX_URL")
    monkeypatch.delenv("PLANTWIRE_INFLUX_TOKEN")
    restored = RecordedSettings.model_validate({**record, "home": tmp_path})
    assert set(parts(restored)) == set(found)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("mqtts://plant:pass@broker:8883", "mqtts://broker:8883"),
        ("postgresql://a:b@c@db/plant", "postgresql://db/plant"),
        ("127.0.0.1:9092", "127.0.0.1:9092"),
        ("redis://:a/b@cache:6379/0", "redis://cache:6379/0"),
        ("postgresql://db/plant?user=a&password=b%20c&x=1", "postgresql://db/plant?user=a&password=***&x=1"),
        ("host=db password='b c' user=a", "host=db password=*** user=a"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert redact(address) == shown


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTWIRE_GATEWAY_PORT", "eighty")
    with pytest.raises(StackError, match=r"PLANTWIRE_GATEWAY_PORT is not valid: .*eighty"):
        load_settings()

"""Options of `plantwire simulate` and what they make."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from plantwire.simulator.cli import Options, Transport, app, build_senders
from plantwire.simulator.credentials import GivenToken
from plantwire.simulator.http_outlet import HttpOutlet
from plantwire.simulator.mqtt_outlet import BrokerAddress, MqttOutlet
from plantwire.simulator.settings import SimulatorSettings


def options(transport: Transport, devices: int = 40, nab_samples_per_s: float = 5.0) -> Options:
    return Options(
        gateway_url="http://127.0.0.1:1",
        broker=BrokerAddress("mqtt://127.0.0.1:1", SimulatorSettings()),
        transport=transport,
        devices=devices,
        rate_hz=2.0,
        speed=1.0,
        seed=1,
        nab_samples_per_s=nab_samples_per_s,
        duration_s=0.0,
    )


@pytest.mark.parametrize(
    ("transport", "expected"),
    [
        (Transport.BOTH, {"http": 21, "mqtt": 20}),
        (Transport.HTTP, {"http": 41}),
        (Transport.MQTT, {"mqtt": 41}),
    ],
)
async def test_devices_are_shared_between_the_transports(
    transport: Transport, expected: dict[str, int]
) -> None:
    chosen = options(transport)
    async with HttpOutlet(chosen.gateway_url, GivenToken("x")) as http:
        senders = build_senders(chosen, http, MqttOutlet(chosen.broker))
    assert Counter(sender.outlet.name for sender in senders) == expected
    if transport is Transport.BOTH:
        ways = {(s.device.device_id.rsplit("-", 1)[0], s.outlet.name) for s in senders}
        assert len(ways) == 8 * 2 + 1
    assert {sender.device.period_s for sender in senders} == {0.5, 0.2}


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["--gateway", "ftp://x"], 2, "http://host"),
        (["--mqtt", "tcp://x:1883"], 2, "mqtt://host"),
        (["--devices", "0", "--nab-speed", "0"], 2, "nothing to simulate"),
        (["--devices", "-1"], 2, "--devices"),
        (["--rate", "0"], 2, "--rate"),
        (["--transport", "pigeon"], 2, "--transport"),
        ([], 1, "PLANTWIRE_TOKEN or --token-file"),
    ],
)
def test_a_start_that_cannot_work_says_why(
    arguments: list[str], status: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PLANTWIRE_TOKEN", "PLANTWIRE_TOKEN_SECRET", "PLANTWIRE_MQTT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PLANTWIRE_HOME", str(tmp_path))
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(app, arguments)
    assert result.exit_code == status, result.output
    assert reason in result.output


def test_addresses_follow_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLANTWIRE_MQTT", raising=False)
    monkeypatch.setenv("PLANTWIRE_GATEWAY_PORT", "18080")
    monkeypatch.setenv("PLANTWIRE_MQTT_PORT", "11883")
    assert SimulatorSettings().gateway_url() == "http://127.0.0.1:18080"
    assert SimulatorSettings().mqtt_url() == "mqtt://127.0.0.1:11883"
    monkeypatch.setenv("PLANTWIRE_MQTT", "mqtts://user:p%40ss@broker.example")
    address = BrokerAddress(SimulatorSettings().mqtt_url(), SimulatorSettings())
    assert (address.host, address.port, address.is_tls) == ("broker.example", 8883, True)
    assert (address.username, address.password) == ("user", "p@ss")
    monkeypatch.setenv("PLANTWIRE_MQTT_PASSWORD", "better")
    assert BrokerAddress("mqtt://u:x@h", SimulatorSettings()).password == "better"

"""Options of `plantwire simulate` and what they make."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from plantwire.simulator.broker import BrokerAddress
from plantwire.simulator.cli import app
from plantwire.simulator.credentials import GivenToken
from plantwire.simulator.fleet import Options, Protocol, build_fleet
from plantwire.simulator.http_outlet import HttpOutlet
from plantwire.simulator.settings import SimulatorSettings
from plantwire.simulator.sparkplug.outlet import SparkplugOutlet

ALL = frozenset(Protocol)


def options(protocols: frozenset[Protocol] = ALL, **changes: Any) -> Options:
    defaults = Options(
        gateway_url="http://127.0.0.1:1",
        broker=BrokerAddress("mqtt://127.0.0.1:1", SimulatorSettings()),
        protocols=protocols,
        devices=40,
        edge_nodes=1,
        node_devices=4,
        sparkplug_host="plantwire",
        sensors=4,
        sensor_interval_s=10.0,
        rate_hz=2.0,
        speed=1.0,
        seed=1,
        nab_samples_per_s=5.0,
        duration_s=0.0,
    )
    return replace(defaults, **changes)


@pytest.mark.parametrize(
    ("protocols", "expected", "connections"),
    [
        (ALL, {"http": 21, "mqtt": 20, "sparkplug": 5, "chirpstack": 4}, 3),
        ({Protocol.HTTP, Protocol.MQTT}, {"http": 21, "mqtt": 20}, 1),
        ({Protocol.HTTP}, {"http": 41}, 0),
        ({Protocol.MQTT}, {"mqtt": 41}, 1),
        ({Protocol.SPARKPLUG}, {"sparkplug": 5}, 1),
        ({Protocol.CHIRPSTACK}, {"chirpstack": 4}, 1),
    ],
)
async def test_devices_are_shared_between_the_protocols(
    protocols: set[Protocol], expected: dict[str, int], connections: int
) -> None:
    chosen = options(frozenset(protocols))
    async with HttpOutlet(chosen.gateway_url, GivenToken("x")) as http:
        fleet = build_fleet(chosen, http)
    assert Counter(sender.outlet.name for sender in fleet.senders) == expected
    assert len(fleet.connections) == connections
    assert len({sender.device.device_id for sender in fleet.senders}) == len(fleet.senders)
    plain = [s for s in fleet.senders if s.outlet.name in ("http", "mqtt")]
    if len(protocols) > 1:
        assert len({(s.device.device_id.rsplit("-", 1)[0], s.outlet.name) for s in plain}) == 8 * 2 + 1
    assert {sender.device.period_s for sender in plain} <= {0.5, 0.2}


async def test_counts_are_heeded() -> None:
    chosen = options(devices=3, edge_nodes=2, node_devices=3, sensors=5, nab_samples_per_s=0.0)
    async with HttpOutlet(chosen.gateway_url, GivenToken("x")) as http:
        fleet = build_fleet(chosen, http)
    names = Counter(sender.outlet.name for sender in fleet.senders)
    assert names == {"http": 2, "mqtt": 1, "sparkplug": 2 * 4, "chirpstack": 5}
    assert len([c for c in fleet.connections if isinstance(c, SparkplugOutlet)]) == 2


@pytest.mark.parametrize(
    ("changes", "is_empty"),
    [
        ({"devices": 0, "nab_samples_per_s": 0.0, "edge_nodes": 0, "sensors": 0}, True),
        ({"protocols": frozenset({Protocol.SPARKPLUG}), "edge_nodes": 0}, True),
        ({"protocols": frozenset({Protocol.CHIRPSTACK}), "sensors": 0}, True),
        ({"devices": 0, "nab_samples_per_s": 0.0, "edge_nodes": 0}, False),
        ({"devices": 0, "edge_nodes": 0, "sensors": 0}, False),
    ],
)
def test_a_run_without_devices_is_known(changes: dict[str, Any], is_empty: bool) -> None:
    assert options(**changes).is_empty() is is_empty


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["--gateway", "ftp://x"], 2, "http://host"),
        (["--mqtt", "tcp://x:1883"], 2, "mqtt://host"),
        (["--protocol", "http", "--devices", "0", "--nab-speed", "0"], 2, "nothing to simulate"),
        (["--protocol", "sparkplug", "--edge-nodes", "0"], 2, "nothing to simulate"),
        (["--sparkplug-host", "a/b"], 2, "--sparkplug-host"),
        (["--devices", "-1"], 2, "--devices"),
        (["--rate", "0"], 2, "--rate"),
        (["--protocol", "pigeon"], 2, "--protocol"),
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

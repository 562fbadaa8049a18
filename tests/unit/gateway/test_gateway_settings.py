"""The gateway's settings: defaults, bounds, and that secrets do not show."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from plantwire.gateway.mqtt_connection import BrokerAddress
from plantwire.gateway.settings import GatewaySettings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PLANTWIRE_MQTT", "PLANTWIRE_GATEWAY_PORT", "PLANTWIRE_GATEWAY_HOST"):
        monkeypatch.delenv(name, raising=False)


def test_it_listens_on_the_contract_s_port_of_the_loopback_address() -> None:
    settings = GatewaySettings()
    assert (settings.gateway_host, settings.gateway_port) == ("127.0.0.1", 8080)


def test_a_setting_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTWIRE_GATEWAY_PORT", "18080")
    assert GatewaySettings().gateway_port == 18080


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_PORT", "0"),
        ("GATEWAY_ACK_TIMEOUT_MS", "1"),
        ("GATEWAY_IN_FLIGHT_MAX", "999"),
        ("GATEWAY_BODY_MEMORY_BYTES", "1000"),
        ("GATEWAY_METRICS_PER_REQUEST_MAX", "999"),
        ("MQTT_CLIENT_ID", "a b"),
        ("MQTT_TLS_KEY", "/key-without-a-certificate.pem"),
    ],
)
def test_a_value_out_of_range_stops_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PLANTWIRE_{name}", value)
    with pytest.raises(ValidationError):
        GatewaySettings()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://127.0.0.1:1884", ("127.0.0.1", 1884, False, None, None)),
        ("mqtt://broker", ("broker", 1883, False, None, None)),
        ("mqtts://u:p%40ss@broker", ("broker", 8883, True, "u", "p@ss")),
    ],
)
def test_the_broker_s_address(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: tuple[object, ...]
) -> None:
    monkeypatch.setenv("PLANTWIRE_MQTT", url)
    address = BrokerAddress.of(GatewaySettings())
    assert (address.host, address.port, address.tls, address.username, address.password) == expected


def test_the_password_of_its_own_setting_goes_first_and_does_not_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLANTWIRE_MQTT", "mqtts://u:p@broker")
    monkeypatch.setenv("PLANTWIRE_MQTT_PASSWORD", "secret-word")
    settings = GatewaySettings()
    assert BrokerAddress.of(settings).password == "secret-word"
    assert "secret-word" not in repr(settings)


@pytest.mark.parametrize("url", ["http://broker", "broker:1883", "mqtt://"])
def test_another_url_stops_the_start(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("PLANTWIRE_MQTT", url)
    with pytest.raises(SystemExit, match="PLANTWIRE_MQTT"):
        BrokerAddress.of(GatewaySettings())

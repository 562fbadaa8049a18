"""TLS and credentials at a real broker: what works, and how what does not is said, without secrets."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Message
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from plantwire.stack.ports import free_ports
from plantwire.stack.servers.process import wait_until
from tests.conftest import running
from tests.integration.gateway.gateway_rig import GatewayProcess, Topic, frames_of
from tests.integration.gateway.secured_broker_rig import HOST, Certificates, SecuredBroker

WRONG_PASSWORD = "a-password-that-is-not-the-right-one"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    folder = tmp_path_factory.mktemp("secured-broker")
    certificates = Certificates(folder / "certificates")
    certificates.make()
    users = ("gateway", "press-1", "press-2", "blind")
    secured = SecuredBroker(folder, *free_ports(2), certificates, users)
    with running(secured):
        yield secured


@contextmanager
def gateway_at(broker: SecuredBroker, kafka: str, log_file: Path, **changes: str) -> Iterator[GatewayProcess]:
    """A gateway with the right settings but for `changes`."""
    right = {
        "PLANTWIRE_MQTT": broker.url,
        "PLANTWIRE_MQTT_TLS_CA": str(broker.certificates.authority),
        "PLANTWIRE_MQTT_USERNAME": "gateway",
        "PLANTWIRE_MQTT_PASSWORD": broker.passwords["gateway"],
    }
    settings = {**right, **changes}
    gateway = GatewayProcess(kafka, settings["PLANTWIRE_MQTT"], log_file, **settings)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()


@contextmanager
def device_at(broker: SecuredBroker, user: str) -> Iterator[paho.Client]:
    """A device's own client, connected over TLS with its own password."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=user, reconnect_on_failure=False)
    client.tls_set_context(ssl.create_default_context(cafile=broker.certificates.authority))
    client.username_pw_set(user, broker.passwords[user])
    client.connect(HOST, broker.port or 0)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def telemetry(value: int) -> bytes:
    return json.dumps({"sequence": value, "metrics": {"t": value}}).encode()


def numbers(messages: Sequence[Message], device_id: str) -> list[int]:
    """Of the frames of a device those of this module: others use the topic too, without numbers."""
    return [frame.sequence for frame in frames_of(messages, device_id) if frame.sequence is not None]


def test_frames_arrive_over_tls_from_who_may_send_them(
    broker: SecuredBroker, kafka: str, raw: Topic, tmp_path: Path
) -> None:
    with gateway_at(broker, kafka, tmp_path / "gateway.log") as gateway:
        gateway.wait_ready(30)
        with device_at(broker, "press-1") as press_1:
            press_1.publish("devices/press-1/telemetry", telemetry(1), 1).wait_for_publish(10)
            # Another device's topic: MQTT 3.1.1 knows no refusal, so the broker ends the connection.
            press_1.publish("devices/press-2/telemetry", telemetry(2), 1)
            wait_until(lambda: "still connected" if press_1.is_connected() else None, 10, "the broker")
        with device_at(broker, "press-2") as press_2:
            press_2.publish("devices/press-2/telemetry", telemetry(3), 1).wait_for_publish(10)
        raw.read_until(lambda m: bool(numbers(m, "press-1") and numbers(m, "press-2")))
        assert numbers(raw.messages, "press-1") == [1]
        assert numbers(raw.messages, "press-2") == [3]


def test_a_broker_that_wants_a_certificate_gets_ours(
    broker: SecuredBroker, kafka: str, tmp_path: Path
) -> None:
    certificate = {
        "PLANTWIRE_MQTT": broker.mutual_url,
        "PLANTWIRE_MQTT_TLS_CERT": str(broker.certificates.client_certificate),
        "PLANTWIRE_MQTT_TLS_KEY": str(broker.certificates.client_key),
    }
    with gateway_at(broker, kafka, tmp_path / "gateway.log", **certificate) as gateway:
        gateway.wait_ready(30)


def _foreign_authority(broker: SecuredBroker) -> dict[str, str]:
    return {"PLANTWIRE_MQTT_TLS_CA": str(broker.certificates.foreign_authority)}


def _other_name(broker: SecuredBroker) -> dict[str, str]:
    return {"PLANTWIRE_MQTT": broker.url.replace(HOST, "127.0.0.1")}


def _no_tls(broker: SecuredBroker) -> dict[str, str]:
    return {"PLANTWIRE_MQTT": broker.url.replace("mqtts:", "mqtt:")}


def _wrong_password(broker: SecuredBroker) -> dict[str, str]:
    return {"PLANTWIRE_MQTT_PASSWORD": WRONG_PASSWORD}


def _wrong_password_in_the_url(broker: SecuredBroker) -> dict[str, str]:
    url = broker.url.replace("mqtts://", f"mqtts://gateway:{WRONG_PASSWORD}@")
    return {"PLANTWIRE_MQTT": url, "PLANTWIRE_MQTT_USERNAME": "", "PLANTWIRE_MQTT_PASSWORD": ""}


def _may_not_subscribe(broker: SecuredBroker) -> dict[str, str]:
    return {"PLANTWIRE_MQTT_USERNAME": "blind", "PLANTWIRE_MQTT_PASSWORD": broker.passwords["blind"]}


def _no_certificate(broker: SecuredBroker) -> dict[str, str]:
    return {"PLANTWIRE_MQTT": broker.mutual_url}


def _missing_certificate(broker: SecuredBroker) -> dict[str, str]:
    return {
        "PLANTWIRE_MQTT": broker.mutual_url,
        "PLANTWIRE_MQTT_TLS_CERT": str(broker.certificates.folder / "none.pem"),
    }


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (_foreign_authority, "certificate verify failed"),
        (_other_name, "certificate is not valid for '127.0.0.1'"),
        (_no_tls, "it may want TLS (mqtts://)"),
        (_wrong_password, "the broker refuses us"),
        (_wrong_password_in_the_url, "the broker refuses us"),
        (_may_not_subscribe, "the broker refuses the subscription"),
        (_no_certificate, "it may want a client's certificate"),
        (_missing_certificate, "none.pem) cannot be used"),
    ],
)
def test_what_is_amiss_is_said_and_no_secret_with_it(
    broker: SecuredBroker,
    kafka: str,
    tmp_path: Path,
    change: Callable[[SecuredBroker], dict[str, str]],
    finding: str,
) -> None:
    log_file = tmp_path / "gateway.log"
    with gateway_at(broker, kafka, log_file, **change(broker)) as gateway:
        wait_until(lambda: None if finding in (gateway.probe() or "") else gateway.probe(), 30, "finding")
        answer = gateway.probe() or ""
    log = log_file.read_text()
    # Other lines are Python's own: paho leaves the socket of a failed handshake to the collector.
    entries = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    details = [entry["detail"] for entry in entries if entry["event"] == "mqtt_unreachable"]
    assert any(finding in f"no MQTT broker: {detail}" for detail in details)
    said = answer + log
    for secret in (WRONG_PASSWORD, *broker.passwords.values(), broker.certificates.password):
        assert secret not in said

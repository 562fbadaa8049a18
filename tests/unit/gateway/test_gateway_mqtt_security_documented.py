"""docs/mqtt-security.md: its access lists cover what the gateway subscribes to, and its examples work."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from paho.mqtt.client import topic_matches_sub

from plantwire.gateway.mqtt_json import JsonSource
from plantwire.gateway.mqtt_source import Decoded
from plantwire.gateway.mqtt_sources import build_sources
from plantwire.gateway.settings import GatewaySettings

DOCUMENT = (Path(__file__).parents[3] / "docs" / "mqtt-security.md").read_text("utf-8")
SETTINGS = GatewaySettings()
FILTERS = {one for source in build_sources(SETTINGS) for one in source.filters}


def block(containing: str) -> str:
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return str(found)


def mosquitto_acl() -> dict[str, set[tuple[str, str]]]:
    """(access, topic) by user; patterns under %u."""
    access: dict[str, set[tuple[str, str]]] = {"%u": set()}
    user = ""
    for line in block("pattern write").splitlines():
        words = line.split()
        if words[:1] == ["user"]:
            user = words[1]
            access[user] = set()
        elif words[:1] == ["topic"]:
            access[user].add((words[1], words[2]))
        elif words[:1] == ["pattern"]:
            access["%u"].add((words[1], words[2]))
    return access


def hivemq_acl() -> dict[str, set[tuple[str, str]]]:
    root = ET.fromstring(block("file-rbac").replace("…", ""))  # noqa: S314 - our own document
    words = {"PUBLISH": "write", "SUBSCRIBE": "read"}
    return {
        role.findtext("id", ""): {
            (words[one.findtext("activity", "")], one.findtext("topic", "").replace("${{username}}", "%u"))
            for one in role.iter("permission")
        }
        for role in root.iter("role")
    }


@pytest.mark.parametrize("acl", [mosquitto_acl(), hivemq_acl()], ids=["mosquitto", "hivemq"])
def test_the_gateway_may_do_what_it_does(acl: dict[str, set[tuple[str, str]]]) -> None:
    gateway = acl["gateway"]
    assert {("read", one) for one in FILTERS} <= gateway
    assert ("read", "spBv1.0/#") in gateway
    assert ("write", f"spBv1.0/STATE/{SETTINGS.sparkplug_host_id}") in gateway


def test_both_brokers_and_the_table_say_the_same() -> None:
    mosquitto, hivemq = mosquitto_acl(), hivemq_acl()
    assert mosquitto["gateway"] == hivemq["gateway"]
    assert mosquitto["%u"] == hivemq["device"]
    for name, user in (("the gateway", "gateway"), ("ChirpStack", "chirpstack"), ("a device", "%u")):
        (publish, subscribe) = re.findall(rf"^\| {name} \| (.*?) \| (.*?) \|$", DOCUMENT, re.MULTILINE)[0]
        listed = {("write", topic) for topic in re.findall(r"`(.*?)`", publish)}
        listed |= {("read", topic) for topic in re.findall(r"`(.*?)`", subscribe)}
        named = {
            (access, topic.replace("{its id}", "%u").replace("{host id}", "plantwire"))
            for access, topic in listed
        }
        assert named == mosquitto[user], name


def test_a_device_may_not_use_another_s_topics() -> None:
    for acl in (mosquitto_acl()["%u"], hivemq_acl()["device"]):
        for _, topic in acl:
            assert not topic_matches_sub(topic.replace("%u", "press-1"), "devices/press-2/telemetry")
            assert not re.search(r"[+#]", topic)


def test_the_micropython_example_sends_what_the_gateway_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, str, int]] = []

    class Client:
        def __init__(self, *arguments: Any, **named: Any) -> None: ...

        def connect(self) -> None: ...

        def publish(self, topic: str, payload: str, qos: int) -> None:
            sent.append((topic, payload, qos))

        def disconnect(self) -> None: ...

    tls = SimpleNamespace(load_verify_locations=lambda cafile: None)
    fakes = {
        "machine": SimpleNamespace(deepsleep=lambda ms: None),
        "ntptime": SimpleNamespace(settime=lambda: None),
        "ssl": SimpleNamespace(SSLContext=lambda protocol: tls, PROTOCOL_TLS_CLIENT=0, CERT_REQUIRED=2),
        "umqtt.simple": SimpleNamespace(MQTTClient=Client),
        "umqtt": ModuleType("umqtt"),
    }
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, name, fake)  # type: ignore[arg-type]
    scope = {"open": lambda name: SimpleNamespace(read=lambda: "secret")}
    exec(block("umqtt.simple"), scope)  # noqa: S102 - our own document
    ((topic, payload, qos),) = sent
    assert qos == 1
    received_us = json.loads(payload)["timestamp"] * 1000
    outcome = JsonSource(SETTINGS.decode_limits()).decode(topic, payload.encode(), int(received_us))
    assert isinstance(outcome, Decoded), outcome


def test_the_arduino_example_sends_what_the_gateway_takes() -> None:
    (begin, end) = re.findall(r'String\("(.*?)"\) \+ temperatureRead\(\) \+ "(.*?)";', block("MQTT.h"))[0]
    payload = (begin + "21.50" + end).replace('\\"', '"')
    (topic,) = re.findall(r'publish\("(.*?)", body, false, 1\)', block("MQTT.h"))
    outcome = JsonSource(SETTINGS.decode_limits()).decode(topic, payload.encode(), 1_700_000_000_000_000)
    assert isinstance(outcome, Decoded), outcome

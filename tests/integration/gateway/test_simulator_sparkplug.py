"""A simulated edge node at a real broker, seen by a client that knows nothing of it."""

from __future__ import annotations

import json
import queue
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from tests.integration.gateway.simulator_rig import Simulator, ended_at_last

TIMEOUT_S = 20
HOST = "test-host"
STATE = f"spBv1.0/STATE/{HOST}"
NO_GATEWAY = "http://127.0.0.1:1"


class Host:
    """Sees everything below spBv1.0, says whether it is online, sends commands."""

    def __init__(self, url: str) -> None:
        address, port = url.removeprefix("mqtt://").split(":")
        self._messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _client, _data, message: self._messages.put(message)
        subscribed = queue.Queue[Any]()
        self._client.on_subscribe = lambda *arguments: subscribed.put(arguments)
        self._client.connect(address, int(port))
        self._client.loop_start()
        self._client.subscribe("spBv1.0/line-1/#", 1)
        subscribed.get(timeout=TIMEOUT_S)

    def say(self, *, online: bool, at_ms: int) -> None:
        body = json.dumps({"online": online, "timestamp": at_ms})
        self._client.publish(STATE, body, qos=1, retain=True).wait_for_publish(TIMEOUT_S)

    def command(self, topic: str, name: str, **value: Any) -> None:
        payload = pb.Payload(timestamp=time.time_ns() // 1_000_000)
        payload.metrics.add(name=name, **value)
        self._client.publish(topic, payload.SerializeToString(), qos=0).wait_for_publish(TIMEOUT_S)

    def next(self, wanted: Callable[[str, pb.Payload], bool]) -> tuple[str, pb.Payload, paho.MQTTMessage]:
        """The next message that is wanted; fails when none comes."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            message = self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
            kind = message.topic.split("/")[2]
            payload = pb.Payload.FromString(message.payload)
            if wanted(kind, payload):
                return kind, payload, message

    def seen(self) -> list[str]:
        """Topics of what came and was not looked at."""
        return [self._messages.get().topic for _ in range(self._messages.qsize())]

    def close(self) -> None:
        self._client.publish(STATE, b"", qos=1, retain=True).wait_for_publish(TIMEOUT_S)
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def host(mqtt_url: str) -> Iterator[Host]:
    started = Host(mqtt_url)
    yield started
    started.close()


@pytest.fixture
def simulator(mqtt_url: str, tmp_path: Path) -> Iterator[Simulator]:
    """An edge node with two machines that live fast: the first stop comes soon."""
    with ended_at_last() as started:
        started.append(
            Simulator(
                tmp_path / "log",
                NO_GATEWAY,
                *("--mqtt", mqtt_url, "--protocol", "sparkplug", "--node-devices", "2"),
                *("--rate", "20", "--sparkplug-host", HOST, "--speed", "20"),
            )
        )
        yield started[0]


def number_of(payload: pb.Payload) -> int:
    (metric,) = (m for m in payload.metrics if m.name == "bdSeq")
    return metric.long_value


@pytest.mark.sparkplug(
    "tck-id-message-flow-edge-node-birth-publish-connect",
    "tck-id-topics-nbirth-mqtt",
    "tck-id-topics-dbirth-mqtt",
    "tck-id-topics-ndata-mqtt",
    "tck-id-topics-ddata-mqtt",
    "tck-id-topics-ddeath-mqtt",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-retained",
    "tck-id-message-flow-device-birth-publish-dbirth-retained",
    "tck-id-message-flow-edge-node-birth-publish-will-message-will-retained",
    "tck-id-payloads-nbirth-retain",
    "tck-id-payloads-dbirth-retain",
    "tck-id-payloads-ndata-retain",
    "tck-id-payloads-ddata-retain",
    "tck-id-payloads-ndeath-will-message-retain",
    "tck-id-operational-behavior-edge-node-intentional-disconnect-packet",
)
def test_a_life_of_an_edge_node(host: Host, simulator: Simulator, mqtt_url: str) -> None:
    at_ms = time.time_ns() // 1_000_000
    host.say(online=False, at_ms=at_ms)
    host.say(online=True, at_ms=at_ms + 1)

    # Births, then data in one sequence, a machine that stops and comes back; nothing of it retained.
    kind, birth, message = host.next(lambda kind, _: True)
    assert (kind, birth.seq, message.qos) == ("NBIRTH", 0, 0)
    aliases = {m.alias: m.name for m in birth.metrics if m.HasField("alias")}
    kinds: list[str] = []
    expected = 1
    while len(kinds) < 300 or "NDATA" not in kinds or kinds.count("DBIRTH") < 3:
        kind, payload, message = host.next(lambda kind, _: True)
        kinds.append(kind)
        assert payload.seq == expected % 256
        assert (message.qos, message.retain) == (0, False)
        expected += 1
        if kind == "DBIRTH":
            aliases |= {m.alias: m.name for m in payload.metrics}
        if kind in ("NDATA", "DDATA"):
            assert all(m.alias in aliases and not m.name for m in payload.metrics)
    assert kinds[:2] == ["DBIRTH", "DBIRTH"]
    assert kinds.count("DDEATH") == 1

    # A write shows in the data.
    topic = "spBv1.0/line-1/DCMD/plc/mixer-01"
    (setpoint,) = (alias for alias, name in aliases.items() if name == "speed_setpoint_rpm")
    host.command(topic, "speed_setpoint_rpm", int_value=77)
    host.next(lambda _, payload: any(m.alias == setpoint and m.int_value == 77 for m in payload.metrics))

    # A rebirth keeps bdSeq.
    host.command("spBv1.0/line-1/NCMD/plc", "Node Control/Rebirth", boolean_value=True)
    _, again, _ = host.next(lambda kind, _: kind == "NBIRTH")
    assert (again.seq, number_of(again)) == (0, number_of(birth))

    # The host goes away: death, a new connection, and birth when it is back.
    host.say(online=False, at_ms=at_ms + 1)
    _, death, _ = host.next(lambda kind, _: kind == "NDEATH")
    assert number_of(death) == number_of(birth)
    assert not death.HasField("seq")
    assert host.seen() == []
    host.say(online=True, at_ms=at_ms + 2)
    _, third, _ = host.next(lambda kind, _: True)
    assert number_of(third) == number_of(birth) + 1

    # Asked to end, it says goodbye; the broker publishes no will after that.
    counts = simulator.end(signal.SIGTERM)
    _, death, _ = host.next(lambda kind, _: kind == "NDEATH")
    assert number_of(death) == number_of(third)
    assert counts["rejected"] == {}
    accepted, dropped = counts["accepted"], counts["dropped"]
    assert isinstance(accepted, dict)
    assert isinstance(dropped, dict)
    assert accepted["sparkplug"] > 200
    assert dropped.keys() <= {"sparkplug: host-offline", "sparkplug: broker-away"}

    later = Host(mqtt_url)
    assert later.seen() == []
    later.close()
    assert host.seen() == []


@pytest.mark.sparkplug("tck-id-message-flow-edge-node-birth-publish-will-message")
def test_a_killed_edge_node_leaves_its_will(host: Host, simulator: Simulator) -> None:
    host.say(online=True, at_ms=time.time_ns() // 1_000_000)
    _, birth, _ = host.next(lambda kind, _: kind == "NBIRTH")
    simulator.kill()
    _, death, message = host.next(lambda kind, _: kind == "NDEATH")
    assert number_of(death) == number_of(birth)
    assert (message.qos, message.retain) == (1, False)

"""The packets that the host application sends, one by one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from plantwire.gateway.forwarder import DeadLetter, Obstacle, UnavailableError
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.sparkplug.commands import CommandRefusedError
from plantwire.gateway.sparkplug.host import SparkplugHost
from plantwire.gateway.sparkplug.outcome import EdgeNodeId, SparkplugLimits
from plantwire.schemas.records import QUALITY_GOOD, QUALITY_STALE, TelemetryFrame
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from tests.integration.gateway.sparkplug.recording_broker import (
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBLISH,
    SUBSCRIBE,
    Packet,
    RecordingBroker,
)

STATE = "spBv1.0/STATE/plant-7"
PRESS = EdgeNodeId("G", "Press")


class Intake:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.frames: list[TelemetryFrame] = []
        self.letters: list[DeadLetter] = []
        self.refuses = False

    def put(self, frames: Sequence[TelemetryFrame]) -> asyncio.Future[None]:
        if self.refuses:
            raise UnavailableError(Obstacle.IN_FLIGHT_FULL, "full")
        self.frames += frames
        return self._done()

    def put_or_drop(self, frames: Sequence[TelemetryFrame]) -> None:
        self.frames += frames

    def put_dead_letter(self, letter: DeadLetter) -> asyncio.Future[None]:
        if self.refuses:
            raise UnavailableError(Obstacle.IN_FLIGHT_FULL, "full")
        self.letters.append(letter)
        return self._done()

    def _done(self) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


class Rig:
    """A host, its broker and its intake."""

    def __init__(self, broker: RecordingBroker, **settings: Any) -> None:
        self.broker = broker
        self.intake = Intake()
        self.metrics = GatewayMetrics()
        self.host = SparkplugHost(
            GatewaySettings(
                mqtt=broker.url,
                mqtt_client_id="gateway-1",
                sparkplug_host_id="plant-7",
                gateway_mqtt_backoff_max_s=0.2,
                **settings,
            ),
            self.intake,
            self.metrics,
        )
        self.running = asyncio.create_task(self.host.run())

    async def online(self, connection: int = 1) -> Packet:
        """Our birth on that connection, once the host calls itself ready."""
        await self.broker.wait_for(lambda _: self.broker.published(STATE, connection))
        while await self.host.ready() is not None:  # noqa: ASYNC110 - it tells nobody of itself
            await asyncio.sleep(0.005)
        return self.broker.published(STATE, connection)[0]

    async def until(self, condition: Any, timeout_s: float = 5) -> None:
        """What the host makes of a delivered message shows in its memory alone."""
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - it tells nobody of itself
                await asyncio.sleep(0.005)

    def note(self, note: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "plantwire_gateway_sparkplug_notes_total", {"note": note}
        )
        return value or 0.0

    async def close(self) -> None:
        await self.host.close(1.0)
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running


@pytest.fixture
async def broker() -> AsyncIterator[RecordingBroker]:
    server = RecordingBroker()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def rig(broker: RecordingBroker) -> AsyncIterator[Rig]:
    made = Rig(broker)
    yield made
    await made.close()


def of_kind(broker: RecordingBroker, kind: int) -> list[Packet]:
    return [packet for packet in broker.packets if packet.kind == kind]


def birth(sequence: int = 0, bd_seq: int = 0) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    payload = pb.Payload(timestamp=now_ms, seq=sequence)
    payload.metrics.add(name="bdSeq", datatype=pb.Int64, timestamp=now_ms, long_value=bd_seq)
    payload.metrics.add(
        name="Node Control/Rebirth", datatype=pb.Boolean, timestamp=now_ms, boolean_value=False
    )
    payload.metrics.add(name="Speed", alias=1, datatype=pb.Double, timestamp=now_ms, double_value=5.0)
    return payload.SerializeToString()


def device_birth(sequence: int) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    payload = pb.Payload(timestamp=now_ms, seq=sequence)
    payload.metrics.add(name="Valve", alias=2, datatype=pb.Boolean, timestamp=now_ms, boolean_value=False)
    payload.metrics.add(name="Level", datatype=pb.Int16, timestamp=now_ms, int_value=3)
    return payload.SerializeToString()


def data(sequence: int, value: float) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    payload = pb.Payload(timestamp=now_ms, seq=sequence)
    payload.metrics.add(alias=1, timestamp=now_ms, double_value=value)
    return payload.SerializeToString()


@pytest.mark.sparkplug(
    "tck-id-message-flow-phid-sparkplug-clean-session-311",
    "tck-id-host-topic-phid-death-required",
    "tck-id-host-topic-phid-death-topic",
    "tck-id-host-topic-phid-death-qos",
    "tck-id-host-topic-phid-death-retain",
    "tck-id-host-topic-phid-death-payload",
    "tck-id-host-topic-phid-death-payload-timestamp-connect",
    "tck-id-operational-behavior-host-application-connect-will",
    "tck-id-operational-behavior-host-application-connect-will-topic",
    "tck-id-operational-behavior-host-application-connect-will-payload",
    "tck-id-operational-behavior-host-application-connect-will-qos",
    "tck-id-operational-behavior-host-application-connect-will-retained",
    "tck-id-payloads-state-will-message",
    "tck-id-payloads-state-will-message-qos",
    "tck-id-payloads-state-will-message-retain",
    "tck-id-payloads-state-will-message-payload",
)
async def test_connect_has_a_clean_session_and_the_death_as_will(rig: Rig, broker: RecordingBroker) -> None:
    await rig.online()
    (connect,) = of_kind(broker, CONNECT)
    assert connect.protocol == ("MQTT", 4)
    assert connect.client_id == "gateway-1-sparkplug"
    assert connect.clean_session
    topic, payload, qos, retain = connect.will
    assert (topic, qos, retain) == (STATE, 1, True)
    said = json.loads(payload)
    assert said.keys() == {"online", "timestamp"}
    assert said["online"] is False
    assert abs(said["timestamp"] - time.time() * 1000) < 5000


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-primary-application-state-with-multiple-servers-state-subs",
    "tck-id-message-flow-phid-sparkplug-subscription",
    "tck-id-message-flow-phid-sparkplug-state-publish",
    "tck-id-message-flow-phid-sparkplug-state-publish-payload",
    "tck-id-message-flow-phid-sparkplug-state-publish-payload-timestamp",
    "tck-id-host-topic-phid-birth-message",
    "tck-id-host-topic-phid-birth-topic",
    "tck-id-host-topic-phid-birth-qos",
    "tck-id-host-topic-phid-birth-retain",
    "tck-id-host-topic-phid-birth-payload",
    "tck-id-host-topic-phid-birth-payload-timestamp",
    "tck-id-host-topic-phid-birth-sub-required",
    "tck-id-host-topic-phid-birth-required",
    "tck-id-principles-birth-certificates-order",
    "tck-id-operational-behavior-host-application-connect-birth",
    "tck-id-operational-behavior-host-application-connect-birth-topic",
    "tck-id-operational-behavior-host-application-connect-birth-payload",
    "tck-id-operational-behavior-host-application-connect-birth-qos",
    "tck-id-operational-behavior-host-application-connect-birth-retained",
    "tck-id-payloads-state-subscribe",
    "tck-id-payloads-state-birth",
    "tck-id-payloads-state-birth-payload",
)
async def test_it_subscribes_and_then_says_that_it_is_online(rig: Rig, broker: RecordingBroker) -> None:
    await rig.online()
    assert [packet.kind for packet in broker.packets[:3]] == [CONNECT, SUBSCRIBE, PUBLISH]
    connect, subscribe, first = broker.packets[:3]
    assert subscribe.filters == [(STATE, 1), ("spBv1.0/#", 1)]
    assert (first.topic, first.qos, first.retain) == (STATE, 1, True)
    will = json.loads(connect.will[1])
    assert json.loads(first.payload) == {"online": True, "timestamp": will["timestamp"]}


async def test_only_the_groups_that_are_set_are_subscribed(broker: RecordingBroker) -> None:
    rig = Rig(broker, sparkplug_groups="Plant 1, Hall")
    await rig.online()
    (subscribe,) = of_kind(broker, SUBSCRIBE)
    assert subscribe.filters == [(STATE, 1), ("spBv1.0/Plant 1/#", 1), ("spBv1.0/Hall/#", 1)]
    await rig.close()


@pytest.mark.sparkplug("tck-id-message-flow-hid-sparkplug-state-message-delivered")
@pytest.mark.parametrize(
    "otherwise", [b'{"online":false,"timestamp":%d}', b'{"timestamp":0,"online":false}', b"OFFLINE", b""]
)
async def test_whoever_says_that_it_is_offline_is_answered(
    rig: Rig, broker: RecordingBroker, otherwise: bytes
) -> None:
    first = await rig.online()
    if b"%d" in otherwise:
        otherwise = otherwise % json.loads(first.payload)["timestamp"]
    broker.deliver(STATE, otherwise, qos=1)
    await broker.wait_for(lambda _: len(broker.published(STATE)) == 2)
    again = broker.published(STATE)[1]
    assert (again.payload, again.qos, again.retain) == (first.payload, 1, True)
    await broker.wait_for(lambda _: of_kind(broker, PUBACK))  # and acknowledged


async def test_online_messages_and_other_hosts_are_left_alone(rig: Rig, broker: RecordingBroker) -> None:
    first = await rig.online()
    broker.deliver(STATE, first.payload, qos=1)
    broker.deliver(STATE, b'{"online":true,"timestamp":1}', qos=1)
    broker.deliver("spBv1.0/STATE/other", b'{"online":false,"timestamp":1}', retain=True)
    broker.deliver("spBv1.0/STATE/other", b"whatever")
    broker.deliver("spBv1.0/G/NCMD/Press", b"\xff\xff", qos=0)
    broker.deliver("spBv1.0/G/DCMD/Press/Motor", b"\xff\xff")
    broker.deliver("spBv1.0/G/NBIRTH/Press", birth())
    await rig.until(lambda: rig.intake.frames)
    assert broker.published() == [first]
    assert rig.intake.letters == []
    assert rig.note("command-seen") == 2
    assert rig.note("state-seen") == 1


@pytest.mark.sparkplug(
    "tck-id-host-topic-phid-death-payload-timestamp-disconnect-clean",
    "tck-id-operational-behavior-host-application-termination",
    "tck-id-operational-behavior-host-application-death-topic",
    "tck-id-operational-behavior-host-application-death-payload",
    "tck-id-operational-behavior-host-application-death-qos",
    "tck-id-operational-behavior-host-application-death-retained",
    "tck-id-operational-behavior-host-application-disconnect-intentional",
)
async def test_a_stop_publishes_the_death_and_then_disconnects(rig: Rig, broker: RecordingBroker) -> None:
    first = await rig.online()
    broker.deliver("spBv1.0/G/NBIRTH/Press", birth())
    await rig.until(lambda: rig.intake.frames)
    stopped_ms = time.time_ns() // 1_000_000
    await rig.close()
    await broker.wait_for(lambda packets: packets[-1].kind == DISCONNECT)
    _, death = broker.published(STATE)
    assert (death.qos, death.retain) == (1, True)
    said = json.loads(death.payload)
    assert said["online"] is False
    assert said.keys() == {"online", "timestamp"}
    assert stopped_ms <= said["timestamp"] <= time.time() * 1000
    assert said["timestamp"] > json.loads(first.payload)["timestamp"]
    assert broker.packets.index(death) < len(broker.packets) - 1
    assert {m.quality for m in rig.intake.frames[-1].metrics} == {QUALITY_STALE}
    assert await rig.host.ready() is not None


@pytest.mark.sparkplug("tck-id-operational-behavior-primary-application-state-with-multiple-servers-state")
async def test_a_lost_broker_makes_everything_stale_and_is_found_again(
    rig: Rig, broker: RecordingBroker
) -> None:
    first = await rig.online()
    broker.deliver("spBv1.0/G/NBIRTH/Press", birth())
    broker.deliver("spBv1.0/G/DBIRTH/Press/Motor", device_birth(1))
    await rig.until(lambda: len(rig.intake.frames) == 2)
    await asyncio.sleep(0.002)  # so that the next time stamp differs
    broker.cut()
    second = await rig.online(connection=2)
    stale = rig.intake.frames[2:]
    assert {frame.device_id for frame in stale} == {"G:Press", "G:Press:Motor"}
    assert {m.quality for frame in stale for m in frame.metrics} == {QUALITY_STALE}
    # A new connection has a time stamp of its own, in the will too, and our STATE goes first.
    assert json.loads(second.payload)["timestamp"] > json.loads(first.payload)["timestamp"]
    connect = of_kind(broker, CONNECT)[1]
    assert json.loads(connect.will[1])["timestamp"] == json.loads(second.payload)["timestamp"]
    await broker.wait_for(lambda _: len(broker.published(connection=2)) == 2)
    state, request = broker.published(connection=2)
    assert state.topic == STATE
    assert request.topic == "spBv1.0/G/NCMD/Press"
    broker.deliver("spBv1.0/G/NBIRTH/Press", birth())
    await rig.until(lambda: rig.intake.frames[-1].metrics[0].quality == QUALITY_GOOD)


@pytest.mark.sparkplug(
    "tck-id-topics-ncmd-mqtt",
    "tck-id-payloads-ncmd-qos",
    "tck-id-payloads-ncmd-retain",
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-verb",
)
async def test_a_node_that_is_not_known_is_asked_for_its_birth_once(
    rig: Rig, broker: RecordingBroker
) -> None:
    await rig.online()
    for number in range(5):
        broker.deliver("spBv1.0/G/NDATA/Press", data(number, 1.0))
    await rig.until(lambda: len(rig.intake.letters) == 5)
    await broker.wait_for(lambda _: len(broker.published()) == 2)
    request = broker.published()[1]
    assert (request.topic, request.qos, request.retain) == ("spBv1.0/G/NCMD/Press", 0, False)
    payload = pb.Payload.FromString(request.payload)
    assert [(m.name, m.boolean_value) for m in payload.metrics] == [("Node Control/Rebirth", True)]
    assert {letter.rejected.reason.value for letter in rig.intake.letters} == {"not-born"}
    assert rig.intake.letters[0].source == "sparkplug:spBv1.0/G/NDATA/Press"
    assert len(broker.published()) == 2


async def test_many_nodes_are_asked_one_after_the_other(broker: RecordingBroker) -> None:
    rig = Rig(broker, sparkplug_rebirths_per_s=20)
    await rig.online()
    for number in range(50):
        broker.deliver(f"spBv1.0/G/NDATA/Node{number}", data(7, 1.0))
    begun_s = time.monotonic()
    await broker.wait_for(lambda _: len(broker.published()) == 51)
    assert time.monotonic() - begun_s > 1.2  # 20 at once, 30 at 20 a second
    asked = [packet.topic for packet in broker.published()[1:]]
    assert asked == [f"spBv1.0/G/NCMD/Node{number}" for number in range(50)]
    await rig.close()


async def test_a_node_that_was_born_meanwhile_is_not_asked(broker: RecordingBroker) -> None:
    rig = Rig(broker, sparkplug_rebirths_per_s=1)
    await rig.online()
    for node in ("A", "B", "C"):
        broker.deliver(f"spBv1.0/G/NDATA/{node}", data(7, 1.0))
    broker.deliver("spBv1.0/G/NBIRTH/B", birth())
    await broker.wait_for(lambda _: len(broker.published()) == 3)
    assert [packet.topic for packet in broker.published()[1:]] == ["spBv1.0/G/NCMD/A", "spBv1.0/G/NCMD/C"]
    await rig.close()


async def test_nothing_is_asked_before_our_state_is_out(broker: RecordingBroker) -> None:
    broker.acknowledges_publishes = False
    rig = Rig(broker)
    await broker.wait_for(lambda _: broker.published(STATE))
    broker.deliver("spBv1.0/G/NDATA/Press", data(7, 1.0))
    await rig.until(lambda: rig.intake.letters)
    (state,) = broker.published()
    assert await rig.host.ready() == "not connected yet"
    broker.acknowledge(state)
    await broker.wait_for(lambda _: broker.published("spBv1.0/G/NCMD/Press"))
    broker.acknowledges_publishes = True
    await rig.close()


async def test_our_own_death_is_not_answered(broker: RecordingBroker) -> None:
    rig = Rig(broker)
    await rig.online()
    broker.acknowledges_publishes = False
    closing = asyncio.create_task(rig.close())
    await broker.wait_for(lambda _: len(broker.published(STATE)) == 2)
    death = broker.published(STATE)[1]
    broker.deliver(STATE, death.payload, qos=1)  # as a broker does, and before it acknowledges
    await broker.wait_for(lambda _: of_kind(broker, PUBACK))
    broker.acknowledge(death)
    await closing
    await broker.wait_for(lambda packets: packets[-1].kind == DISCONNECT)
    assert json.loads(broker.published(STATE)[-1].payload)["online"] is False


async def test_retained_messages_of_edge_nodes_are_old_news(rig: Rig, broker: RecordingBroker) -> None:
    await rig.online()
    broker.deliver("spBv1.0/G/NBIRTH/Dead", birth(), retain=True)
    broker.deliver("spBv1.0/G/NBIRTH/Press", birth())
    await rig.until(lambda: rig.intake.frames)
    assert {frame.device_id for frame in rig.intake.frames} == {"G:Press"}
    sample = rig.metrics.registry.get_sample_value
    assert sample("plantwire_gateway_sparkplug_retained_ignored_total") == 1
    assert sample("plantwire_gateway_sparkplug_edge_nodes", {"state": "born"}) == 1


async def test_a_refused_subscription_is_said_and_tried_again(broker: RecordingBroker) -> None:
    broker.refuses_subscriptions = True
    rig = Rig(broker)
    await broker.wait_for(lambda _: len(of_kind(broker, CONNECT)) == 2)
    assert "subscription" in str(await rig.host.ready())
    assert broker.published() == []
    broker.refuses_subscriptions = False
    await broker.wait_for(lambda _: broker.published(STATE))
    await rig.close()


async def test_a_node_that_is_silent_for_long_is_asked_and_then_forgotten(
    broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plantwire.gateway.sparkplug.host._HOUSEKEEPING_S", 0.05)
    monkeypatch.setattr("plantwire.gateway.sparkplug.edge_nodes._SILENCE_GRACE_MS", 300)
    monkeypatch.setattr(
        "plantwire.gateway.sparkplug.host.limits_of", lambda _settings: SparkplugLimits(silent_forget_ms=200)
    )
    rig = Rig(broker)
    await rig.online()
    broker.deliver("spBv1.0/G/NBIRTH/Press", birth())
    await broker.wait_for(lambda _: broker.published("spBv1.0/G/NCMD/Press"))
    await rig.until(lambda: rig.intake.frames[-1].metrics[0].quality == QUALITY_STALE)
    known = {"state": "known"}
    assert rig.metrics.registry.get_sample_value("plantwire_gateway_sparkplug_edge_nodes", known) == 0
    await rig.close()


async def test_an_intake_without_room_stops_nothing(rig: Rig, broker: RecordingBroker) -> None:
    await rig.online()
    rig.intake.refuses = True
    broker.deliver("spBv1.0/G/NBIRTH/Press", birth())
    broker.deliver("spBv1.0/G/NDATA/Press", b"\xff\xff")
    sample = rig.metrics.registry.get_sample_value
    refused = {"transport": "sparkplug", "reason": "in-flight-full"}
    await rig.until(lambda: sample("plantwire_gateway_unavailable_total", refused) == 1)
    broker.cut()
    await rig.online(connection=2)


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-data-commands-ncmd-verb",
    "tck-id-operational-behavior-data-commands-ncmd-metric-name",
    "tck-id-operational-behavior-data-commands-ncmd-metric-value",
    "tck-id-operational-behavior-data-commands-dcmd-verb",
    "tck-id-operational-behavior-data-commands-dcmd-metric-name",
    "tck-id-operational-behavior-data-commands-dcmd-metric-value",
    "tck-id-topics-dcmd-mqtt",
    "tck-id-payloads-dcmd-qos",
    "tck-id-payloads-dcmd-retain",
    "tck-id-topics-ncmd-topic",
    "tck-id-topics-dcmd-topic",
)
async def test_commands_write_metrics_of_living_births(rig: Rig, broker: RecordingBroker) -> None:
    await rig.online()
    broker.deliver("spBv1.0/G/NBIRTH/Press", birth())
    broker.deliver("spBv1.0/G/DBIRTH/Press/Motor", device_birth(1))
    await rig.until(lambda: len(rig.intake.frames) == 2)
    assert await rig.host.send_command(PRESS, None, {"Speed": 7})
    assert await rig.host.send_command(PRESS, "Motor", {"Valve": True, "Level": -4})
    await broker.wait_for(lambda _: len(broker.published()) == 3)
    _, ncmd, dcmd = broker.published()
    assert (ncmd.topic, ncmd.qos, ncmd.retain) == ("spBv1.0/G/NCMD/Press", 0, False)
    assert (dcmd.topic, dcmd.qos, dcmd.retain) == ("spBv1.0/G/DCMD/Press/Motor", 0, False)
    (speed,) = pb.Payload.FromString(ncmd.payload).metrics
    assert (speed.alias, speed.double_value, speed.name) == (1, 7.0, "")
    valve, level = pb.Payload.FromString(dcmd.payload).metrics
    assert (valve.alias, valve.boolean_value) == (2, True)
    assert (level.name, level.int_value) == ("Level", 2**16 - 4)

    for node, device, values, message in (
        (PRESS, None, {"Valve": True}, "no metric Valve"),
        (PRESS, "Motor", {"Speed": 1}, "no metric Speed"),
        (PRESS, "Pump", {"Valve": True}, "G/Press/Pump is not alive"),
        (EdgeNodeId("G", "Other"), None, {"Speed": 1}, "G/Other is not alive"),
        (PRESS, "Motor", {"Level": 40_000}, "outside"),
        (PRESS, "Motor", {"Valve": 1}, "true or false"),
        (PRESS, "Motor", {}, "at least one"),
    ):
        with pytest.raises(CommandRefusedError, match=message):
            rig.host.send_command(node, device, values)  # type: ignore[arg-type]
    broker.deliver("spBv1.0/G/DDEATH/Press/Motor", pb.Payload(timestamp=1, seq=2).SerializeToString())
    await rig.until(lambda: rig.intake.frames[-1].metrics[0].quality == QUALITY_STALE)
    with pytest.raises(CommandRefusedError, match="not alive"):
        rig.host.send_command(PRESS, "Motor", {"Valve": True})
    await rig.close()
    with pytest.raises(CommandRefusedError, match="not connected"):
        rig.host.send_command(PRESS, None, {"Speed": 1})

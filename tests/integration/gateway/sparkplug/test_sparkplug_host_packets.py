"""The packets that the host application sends of itself, one by one."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from plantwire.schemas.records import QUALITY_GOOD, QUALITY_STALE
from tests.integration.gateway.sparkplug.host_rig import (
    STATE,
    Rig,
    birth,
    device_birth,
    of_kind,
)
from tests.integration.gateway.sparkplug.recording_broker import (
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBLISH,
    SUBSCRIBE,
    RecordingBroker,
)


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


@pytest.mark.parametrize("ahead_ms", [1, 3_600_000])
async def test_it_comes_again_with_a_later_time_where_it_is_offline_as_of_later(
    rig: Rig, broker: RecordingBroker, ahead_ms: int
) -> None:
    first = json.loads((await rig.online()).payload)
    seen_ms = first["timestamp"] + ahead_ms
    broker.deliver(STATE, b'{"online":false,"timestamp":%d}' % seen_ms, qos=1, retain=True)
    again = json.loads((await rig.online(connection=2)).payload)
    assert again["online"]
    assert again["timestamp"] > seen_ms
    will = json.loads(of_kind(broker, CONNECT)[1].will[1])
    assert will == {"online": False, "timestamp": again["timestamp"]}
    # The first session ended in order, by a death that is not newer than its birth: whoever has our id
    # need not answer it.
    _, death = broker.published(STATE, connection=1)
    assert json.loads(death.payload) == {"online": False, "timestamp": first["timestamp"]}
    assert len(of_kind(broker, DISCONNECT)) == 1
    await rig.close()
    await broker.wait_for(lambda packets: packets[-1].kind == DISCONNECT)
    last = json.loads(broker.published(STATE)[-1].payload)
    assert last["online"] is False
    assert last["timestamp"] >= again["timestamp"], "edge nodes leave out a death older than the birth"


async def test_a_retained_death_of_a_later_time_may_come_before_the_birth(broker: RecordingBroker) -> None:
    later_ms = time.time_ns() // 1_000_000 + 3_600_000
    broker.retained = (STATE, b'{"online":false,"timestamp":%d}' % later_ms)
    rig = Rig(broker)
    await broker.wait_for(lambda _: broker.published(STATE, connection=2))
    assert json.loads(broker.published(STATE, connection=2)[0].payload)["timestamp"] == later_ms + 1
    await rig.online(connection=2)
    assert len(of_kind(broker, CONNECT)) == 2
    await rig.close()


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


async def test_a_refused_subscription_is_said_and_tried_again(broker: RecordingBroker) -> None:
    broker.refuses_subscriptions = True
    rig = Rig(broker)
    await broker.wait_for(lambda _: len(of_kind(broker, CONNECT)) == 2)
    assert "subscription" in str(await rig.host.ready())
    assert broker.published() == []
    broker.refuses_subscriptions = False
    await broker.wait_for(lambda _: broker.published(STATE))
    await rig.close()

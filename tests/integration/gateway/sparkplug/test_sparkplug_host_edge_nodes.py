"""What the host application asks of edge nodes, packet by packet, and what it makes of what they say."""

from __future__ import annotations

import time

import pytest

from plantwire.gateway.sparkplug.commands import CommandRefusedError
from plantwire.gateway.sparkplug.outcome import EdgeNodeId, SparkplugLimits
from plantwire.schemas.records import QUALITY_STALE
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from tests.integration.gateway.sparkplug.host_rig import (
    PRESS,
    STATE,
    Rig,
    birth,
    data,
    device_birth,
)
from tests.integration.gateway.sparkplug.recording_broker import (
    RecordingBroker,
)


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


async def test_retained_messages_of_edge_nodes_are_old_news(rig: Rig, broker: RecordingBroker) -> None:
    await rig.online()
    broker.deliver("spBv1.0/G/NBIRTH/Dead", birth(), retain=True)
    broker.deliver("spBv1.0/G/NBIRTH/Press", birth())
    await rig.until(lambda: rig.intake.frames)
    assert {frame.device_id for frame in rig.intake.frames} == {"G:Press"}
    sample = rig.metrics.registry.get_sample_value
    assert sample("plantwire_gateway_sparkplug_retained_ignored_total") == 1
    assert sample("plantwire_gateway_sparkplug_edge_nodes", {"state": "born"}) == 1


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
    # What went stale meanwhile is told as soon as there is room.
    told = len(rig.intake.frames)
    rig.intake.refuses = False
    await rig.until(lambda: len(rig.intake.frames) > told)
    assert {m.quality for m in rig.intake.frames[-1].metrics} == {QUALITY_STALE}


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

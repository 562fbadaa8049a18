"""An edge node of an independent implementation against the real gateway, broker and Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from plantwire.schemas import topics
from plantwire.schemas.records import QUALITY_GOOD, QUALITY_STALE, Metric, TelemetryFrame
from tests.integration.gateway.gateway_rig import GatewayProcess, Topic, frames_of
from tests.integration.gateway.sparkplug.conftest import NodeMaker
from tests.integration.gateway.sparkplug.witness import Witness

REBIRTH = {"name": "Node Control/Rebirth", "datatype": "BOOLEAN", "value": False}
NODE = [REBIRTH, {"name": "Uptime", "datatype": "INT64", "value": 5, "alias": 1}]
MOTOR = [
    {"name": "Temperature", "datatype": "DOUBLE", "value": 20.5, "alias": 2},
    {"name": "Mode", "datatype": "STRING", "value": "auto", "alias": 3},
    {"name": "Torque", "datatype": "INT16", "value": -5, "alias": 4},
]
REBIRTH_TOPIC = "spBv1.0/{}/NCMD/Press"


def temperature(value: float, **more: Any) -> dict[str, Any]:
    return {"alias": 2, "datatype": "DOUBLE", "value": value, **more}


def latest(frames: Sequence[TelemetryFrame]) -> dict[str, Metric]:
    return {metric.name: metric for frame in frames for metric in frame.metrics}


def await_metrics(
    raw: Topic, device_id: str, done: Callable[[dict[str, Metric]], bool]
) -> list[TelemetryFrame]:
    """The device's frames, once its latest metrics are as wanted."""
    raw.read_until(lambda messages: done(latest(frames_of(messages, device_id))))
    return frames_of(raw.messages, device_id)


def is_value(name: str, number: float) -> Callable[[dict[str, Metric]], bool]:
    return lambda now: name in now and (now[name].number, now[name].quality) == (number, QUALITY_GOOD)


def all_stale(now: dict[str, Metric]) -> bool:
    return bool(now) and all(metric.quality == QUALITY_STALE for metric in now.values())


def test_births_and_data_by_alias_appear(
    sparkplug_gateway: GatewayProcess, make_node: NodeMaker, group: str, raw: Topic, witness: Witness
) -> None:
    started_ms = int(time.time() * 1000)
    node = make_node(group, "Press", NODE, devices={"Motor": MOTOR})
    node.connect()
    device_id = f"{group}:Press:Motor"
    (birth,) = await_metrics(raw, device_id, lambda now: "Temperature" in now)
    assert (birth.site, birth.protocol, birth.historical) == (group, "sparkplug-b", False)
    assert {m.name: m.text if m.number is None else m.number for m in birth.metrics} == {
        "Temperature": 20.5,
        "Mode": "auto",
        "Torque": -5.0,
    }
    assert started_ms <= birth.event_time_ms <= time.time() * 1000
    assert is_value("Uptime", 5)(latest(await_metrics(raw, f"{group}:Press", is_value("Uptime", 5))))

    at_ms = int(time.time() * 1000) - 50
    node.data("Motor", temperature(33.25, timestamp=at_ms), {"alias": 4, "datatype": "INT16", "value": -300})
    (seen,) = witness.wait_for(f"spBv1.0/{group}/DDATA/Press/Motor")
    for metric in seen.decoded().metrics:
        assert metric.HasField("alias")
        assert not metric.HasField("name")
    now = latest(await_metrics(raw, device_id, is_value("Temperature", 33.25)))
    assert now["Torque"].number == -300.0


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-offline",
    "tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-tags-stale",
)
def test_a_device_that_dies_is_stale_at_the_payloads_time_and_recovers(
    sparkplug_gateway: GatewayProcess, make_node: NodeMaker, group: str, raw: Topic, witness: Witness
) -> None:
    node = make_node(group, "Press", NODE, devices={"Motor": MOTOR})
    node.connect()
    device_id = f"{group}:Press:Motor"
    await_metrics(raw, device_id, is_value("Temperature", 20.5))
    node.do("device_death", device_id="Motor")
    (death,) = witness.wait_for(f"spBv1.0/{group}/DDEATH/Press/Motor")
    frame = await_metrics(raw, device_id, all_stale)[-1]
    assert frame.event_time_ms == death.decoded().timestamp
    assert {m.name: (m.number, m.text) for m in frame.metrics} == {  # the last values, marked
        "Temperature": (20.5, None),
        "Mode": (None, "auto"),
        "Torque": (-5.0, None),
    }
    node.data(None, {"alias": 1, "datatype": "INT64", "value": 6})
    now = latest(await_metrics(raw, f"{group}:Press", is_value("Uptime", 6)))
    assert now["Uptime"].quality == QUALITY_GOOD  # the node lives on
    node.do("device_birth", device_id="Motor", metrics=MOTOR)
    await_metrics(raw, device_id, is_value("Temperature", 20.5))


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-offline",
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-tags-stale",
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-offline",
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-tags-stale",
)
def test_a_node_whose_connection_is_cut_is_stale_with_its_devices_and_recovers(
    sparkplug_gateway: GatewayProcess, make_node: NodeMaker, group: str, raw: Topic
) -> None:
    node = make_node(group, "Press", NODE, devices={"Motor": MOTOR})
    node.connect()
    await_metrics(raw, f"{group}:Press:Motor", is_value("Temperature", 20.5))
    cut_ms = int(time.time() * 1000)
    node.kill()
    for device_id in (f"{group}:Press", f"{group}:Press:Motor"):
        frame = await_metrics(raw, device_id, all_stale)[-1]
        # The will was made at the CONNECT: its time says nothing, so the host's own counts.
        assert cut_ms <= frame.event_time_ms <= time.time() * 1000
    again = make_node(group, "Press", NODE, devices={"Motor": MOTOR}, sessions_before=1)
    again.connect()
    await_metrics(raw, f"{group}:Press", is_value("Uptime", 5))
    await_metrics(raw, f"{group}:Press:Motor", is_value("Temperature", 20.5))


def test_a_node_that_leaves_in_order_is_stale(
    sparkplug_gateway: GatewayProcess, make_node: NodeMaker, group: str, raw: Topic
) -> None:
    node = make_node(group, "Press", NODE, devices={"Motor": MOTOR})
    node.connect()
    await_metrics(raw, f"{group}:Press:Motor", is_value("Temperature", 20.5))
    node.do("disconnect")
    await_metrics(raw, f"{group}:Press", all_stale)
    await_metrics(raw, f"{group}:Press:Motor", all_stale)


def test_a_late_death_of_an_earlier_session_changes_nothing(
    sparkplug_gateway: GatewayProcess, make_node: NodeMaker, group: str, raw: Topic
) -> None:
    node = make_node(group, "Press", NODE, devices={"Motor": MOTOR}, sessions_before=7)
    node.connect()
    await_metrics(raw, f"{group}:Press:Motor", is_value("Temperature", 20.5))
    ignored = sparkplug_gateway.counted("sparkplug_notes_total", note="death-ignored")
    node.do("death", bd_seq=6)
    node.data("Motor", temperature(21.0))
    frames = await_metrics(raw, f"{group}:Press:Motor", is_value("Temperature", 21.0))
    assert all(m.quality == QUALITY_GOOD for frame in frames for m in frame.metrics)
    assert sparkplug_gateway.counted("sparkplug_notes_total", note="death-ignored") == ignored + 1
    node.do("death", bd_seq=7)
    await_metrics(raw, f"{group}:Press:Motor", all_stale)


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-host-reordering-param",
    "tck-id-operational-behavior-host-reordering-start",
    "tck-id-operational-behavior-host-reordering-rebirth",
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-verb",
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-name",
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-value",
    "tck-id-topics-ncmd-mqtt",
    "tck-id-payloads-ncmd-qos",
)
def test_a_gap_leads_to_a_rebirth_and_holds_nothing_up(
    sparkplug_gateway: GatewayProcess, make_node: NodeMaker, group: str, raw: Topic, witness: Witness
) -> None:
    node = make_node(group, "Press", NODE, devices={"Motor": MOTOR})
    node.connect()
    device_id = f"{group}:Press:Motor"
    await_metrics(raw, device_id, is_value("Temperature", 20.5))
    node.data("Motor", temperature(30.0), hold=True)
    sent_us = time.time_ns() // 1000
    node.data("Motor", temperature(31.0))
    frame = await_metrics(raw, device_id, is_value("Temperature", 31.0))[-1]
    assert frame.gateway_out_us - sent_us < 400_000  # it did not wait for the timer of 500 ms

    (request,) = witness.wait_for(REBIRTH_TOPIC.format(group))
    assert time.time_ns() // 1000 - sent_us >= 500_000
    assert request.qos == 0
    payload = request.decoded()
    assert (payload.metrics[0].name, payload.metrics[0].boolean_value) == ("Node Control/Rebirth", True)
    assert abs(payload.timestamp - time.time() * 1000) < 5000
    assert not payload.HasField("seq")
    heard = node.wait_for_event(lambda event: event["event"] == "NCMD")
    assert heard["metrics"] == [{"name": "Node Control/Rebirth", "alias": None, "value": True}]
    # The births that it asked for are taken, and data goes on.
    witness.wait_for(f"spBv1.0/{group}/DBIRTH/Press/Motor", lambda seen: len(seen) == 2)
    node.data("Motor", temperature(32.0))
    await_metrics(raw, device_id, is_value("Temperature", 32.0))
    assert len(witness.of(REBIRTH_TOPIC.format(group))) == 1


@pytest.mark.sparkplug("tck-id-operational-behavior-host-reordering-success")
def test_a_message_that_comes_late_but_in_time_stops_the_timer(
    sparkplug_gateway: GatewayProcess, make_node: NodeMaker, group: str, raw: Topic, witness: Witness
) -> None:
    node = make_node(group, "Press", NODE, devices={"Motor": MOTOR})
    node.connect()
    device_id = f"{group}:Press:Motor"
    await_metrics(raw, device_id, is_value("Temperature", 20.5))
    other = make_node(group, "Other", NODE, devices={"Motor": MOTOR})
    other.connect()
    await_metrics(raw, f"{group}:Other:Motor", is_value("Temperature", 20.5))
    filled = sparkplug_gateway.counted("sparkplug_notes_total", note="sequence-filled")
    node.data("Motor", {"alias": 4, "datatype": "INT16", "value": 7}, hold=True)
    node.data("Motor", temperature(31.0))
    node.do("release")
    await_metrics(raw, device_id, is_value("Torque", 7))
    assert sparkplug_gateway.counted("sparkplug_notes_total", note="sequence-filled") == filled + 1
    # A gap that begins later and is not filled: when its timer has ended, the first one's would have too.
    other.data("Motor", temperature(30.0), hold=True)
    other.data("Motor", temperature(31.0))
    witness.wait_for(f"spBv1.0/{group}/NCMD/Other")
    node.data("Motor", temperature(32.0))
    await_metrics(raw, device_id, is_value("Temperature", 32.0))
    assert witness.of(REBIRTH_TOPIC.format(group)) == []


def test_an_unknown_alias_is_a_dead_letter_and_leads_to_a_rebirth(
    sparkplug_gateway: GatewayProcess, make_node: NodeMaker, group: str, raw: Topic, dlq: Topic
) -> None:
    node = make_node(group, "Press", NODE, devices={"Motor": MOTOR})
    node.connect()
    device_id = f"{group}:Press:Motor"
    await_metrics(raw, device_id, is_value("Temperature", 20.5))
    node.data("Motor", {"alias": 77, "datatype": "DOUBLE", "value": 1.0}, temperature(25.0))
    source = f"sparkplug:spBv1.0/{group}/DDATA/Press/Motor"
    assert reasons_of(dlq, source) == ["unknown-metric"]
    node.wait_for_event(lambda event: event["event"] == "NCMD")

    def temperatures(messages: Sequence[Any]) -> list[float | None]:
        return [latest([frame])["Temperature"].number for frame in frames_of(messages, device_id)]

    # What is known of it is taken; then come the births.
    raw.read_until(lambda messages: temperatures(messages) == [20.5, 25.0, 20.5])


def test_bytes_that_are_no_payload_are_a_dead_letter_and_lead_to_a_rebirth(
    sparkplug_gateway: GatewayProcess,
    make_node: NodeMaker,
    group: str,
    raw: Topic,
    dlq: Topic,
    witness: Witness,
) -> None:
    node = make_node(group, "Press", NODE, devices={"Motor": MOTOR})
    node.connect()
    await_metrics(raw, f"{group}:Press:Motor", is_value("Temperature", 20.5))
    topic = f"spBv1.0/{group}/DDATA/Press/Motor"
    witness.publish(topic, b"\xff\xff not protobuf")
    assert reasons_of(dlq, f"sparkplug:{topic}") == ["not-protobuf"]
    node.wait_for_event(lambda event: event["event"] == "NCMD")
    node.data("Motor", temperature(26.0))
    await_metrics(raw, f"{group}:Press:Motor", is_value("Temperature", 26.0))


def reasons_of(dlq: Topic, source: str, count: int = 1) -> list[str]:
    """The reasons of the dead letters from one source, once there are so many."""

    def reasons(messages: Sequence[Any]) -> list[str]:
        headers = [dict(message.headers() or []) for message in messages]
        return [
            h[topics.HEADER_REASON].decode() for h in headers if h[topics.HEADER_SOURCE].decode() == source
        ]

    return reasons(dlq.read_until(lambda messages: len(reasons(messages)) >= count))

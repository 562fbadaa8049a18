"""What a host may do to a simulated edge node: commands, STATE, and whatever else it sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from plantwire.simulator.sparkplug.payload import BDSEQ, REBIRTH, MetricSpec
from plantwire.simulator.sparkplug.session import EdgeNodeSession, Ignored, Leave, Phase, Written
from tests.unit.simulator.edge_node_sessions import (
    HOST,
    NODE,
    NOW,
    PRESS,
    STATE,
    born,
    command,
    metric,
    node,
    payload_of,
    published,
    state,
    topics,
)


@pytest.mark.parametrize(
    "payload", [command(name=REBIRTH, boolean_value=False), command(name=REBIRTH, int_value=1)]
)
def test_a_rebirth_that_is_not_true_is_none(payload: bytes) -> None:
    assert born().receive("spBv1.0/g/NCMD/n", payload, NOW) == []


def test_a_write_reaches_the_output_and_shows_in_the_data() -> None:
    session = node()
    session.connect(NOW)
    births = published(session.subscribed(NOW))
    alias = metric(payload_of(births[1]), "setpoint").alias
    for written, value in ((7, 7), (2**32 - 7, -7)):
        actions = session.receive("spBv1.0/g/DCMD/n/press-1", command(alias=alias, int_value=written), NOW)
        assert actions[0] == Written("press-1", "setpoint", value)
        (data,) = published(actions)
        assert data.topic == "spBv1.0/g/DDATA/n/press-1"
        assert payload_of(data).metrics[0].int_value == written
    by_name = session.receive("spBv1.0/g/DCMD/n/press-2", command(name="setpoint", int_value=1), NOW)
    assert by_name[0] == Written("press-2", "setpoint", 1)


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("DCMD/n/press-1", command(name="temperature", double_value=1.0), "no such output"),
        ("DCMD/n/press-1", command(name="unheard", int_value=1), "no such output"),
        ("DCMD/n/press-1", command(alias=999, int_value=1), "no such output"),
        ("DCMD/n/press-1", command(name="setpoint", boolean_value=True), "no value for setpoint"),
        ("DCMD/n/press-1", command(name="setpoint", is_null=True), "no value for setpoint"),
        ("DCMD/n/press-1", b"\xff\xff", "malformed payload"),
        ("DCMD/n/press-9", command(name="setpoint", int_value=1), "not for this node"),
        ("DCMD/other/press-1", command(name="setpoint", int_value=1), "not for this node"),
        ("NCMD/n", command(name="uptime_s", long_value=1), "no such output"),
    ],
)
def test_a_command_that_cannot_be_carried_out_changes_nothing(
    topic: str, payload: bytes, reason: str
) -> None:
    session = born()
    (action,) = session.receive(f"spBv1.0/g/{topic}", payload, NOW)
    assert action == Ignored(f"spBv1.0/g/{topic}", reason)
    assert session.phase is Phase.ONLINE


@pytest.mark.sparkplug(
    "tck-id-message-flow-edge-node-birth-publish-phid-wait",
    "tck-id-message-flow-edge-node-birth-publish-phid-wait-id",
    "tck-id-message-flow-edge-node-birth-publish-phid-wait-online",
    "tck-id-operational-behavior-edge-node-birth-sequence-wait",
)
def test_births_wait_for_the_primary_host() -> None:
    session = node(HOST)
    session.connect(NOW)
    assert session.subscribed(NOW) == []
    assert session.report(None, {"uptime_s": 1}, NOW) == []
    assert session.receive(STATE, state(online=False, at_ms=NOW), NOW) == []
    other = session.receive("spBv1.0/STATE/other", state(online=True, at_ms=NOW), NOW)
    assert isinstance(other[0], Ignored)
    assert session.phase is Phase.WAITING
    assert topics(session.receive(STATE, state(online=True, at_ms=NOW + 1), NOW))[0] == "NBIRTH/n"
    assert session.receive(STATE, state(online=True, at_ms=NOW + 1), NOW) == []


@pytest.mark.sparkplug("tck-id-message-flow-edge-node-birth-publish-phid-wait-timestamp")
def test_an_old_online_state_is_not_believed() -> None:
    session = node(HOST)
    session.connect(NOW)
    session.subscribed(NOW)
    session.receive(STATE, state(online=False, at_ms=NOW), NOW)
    (action,) = session.receive(STATE, state(online=True, at_ms=NOW - 1), NOW)
    assert isinstance(action, Ignored)
    assert session.phase is Phase.WAITING
    # A new connection does not make it newer.
    session.lost()
    session.connect(NOW)
    session.subscribed(NOW)
    assert isinstance(session.receive(STATE, state(online=True, at_ms=NOW - 1), NOW)[0], Ignored)
    assert session.receive(STATE, state(online=True, at_ms=NOW), NOW)
    assert session.phase is Phase.ONLINE


@pytest.mark.sparkplug(
    "tck-id-message-flow-edge-node-birth-publish-phid-offline",
    "tck-id-operational-behavior-edge-node-termination-host-offline",
    "tck-id-operational-behavior-edge-node-termination-host-offline-reconnect",
    "tck-id-operational-behavior-edge-node-termination-host-offline-timestamp",
)
def test_when_the_primary_host_goes_offline_the_node_dies_and_starts_over() -> None:
    session = born(HOST)
    (old,) = session.receive(STATE, state(online=False, at_ms=NOW - 1), NOW)
    assert isinstance(old, Ignored)
    assert session.phase is Phase.ONLINE
    actions = session.receive(STATE, state(online=False, at_ms=NOW), NOW)
    assert topics(actions) == ["NDEATH/n"]
    assert isinstance(actions[-1], Leave)
    assert session.report(None, {"uptime_s": 1}, NOW) == []
    session.connect(NOW)
    session.subscribed(NOW)
    assert session.receive(STATE, state(online=False, at_ms=NOW), NOW) == []
    births = session.receive(STATE, state(online=True, at_ms=NOW + 1), NOW)
    assert metric(payload_of(published(births)[0]), BDSEQ).long_value == 1


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath",
    "tck-id-payloads-ndeath-will-message-publisher",
    "tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt311",
)
def test_a_node_that_leaves_says_so_first() -> None:
    session = node()
    will = session.connect(NOW)
    session.subscribed(NOW)
    (death,) = published(session.leave(NOW))
    assert (death.topic, payload_of(death).metrics) == (will.topic, payload_of(will).metrics)
    assert not payload_of(death).HasField("seq")
    assert death.qos == 1
    assert session.leave(NOW) == []


@given(st.binary(max_size=60) | st.just(b'{"online": 1, "timestamp": 1}') | st.just(b'{"online": true}'))
def test_a_state_that_is_none_changes_nothing(payload: bytes) -> None:
    session = node(HOST)
    session.connect(NOW)
    session.subscribed(NOW)
    assert [type(action) for action in session.receive(STATE, payload, NOW)] == [Ignored]
    assert session.phase is Phase.WAITING


@given(st.sampled_from(["NCMD/n", "DCMD/n/press-1", "DCMD/n/", "DCMD/n", "NDATA/n"]), st.binary(max_size=80))
def test_no_bytes_upset_it(topic: str, payload: bytes) -> None:
    session = born()
    session.receive(f"spBv1.0/g/{topic}", payload, NOW)
    assert session.phase is Phase.ONLINE


@pytest.mark.sparkplug(
    "tck-id-topic-structure-namespace-valid-group-id",
    "tck-id-topic-structure-namespace-valid-edge-node-id",
    "tck-id-topic-structure-namespace-valid-device-id",
    "tck-id-case-sensitivity-metric-names",
)
@pytest.mark.parametrize("name", ["", "a/b", "a+", "#"])
def test_names_that_the_standard_does_not_allow_are_refused(name: str) -> None:
    for arguments in ((name, "n", {}), ("g", name, {}), ("g", "n", {name: PRESS})):
        with pytest.raises(ValueError, match="Sparkplug id"):
            EdgeNodeSession(arguments[0], arguments[1], NODE, arguments[2], None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="metric names"):
        EdgeNodeSession("g", "n", (MetricSpec("a", pb.Int8), MetricSpec("A", pb.Int8)), {}, None)

"""A simulated edge node says what the Sparkplug B 3.0 standard asks of one, and when it asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from plantwire.simulator.sparkplug.payload import BDSEQ, REBIRTH
from tests.unit.simulator.edge_node_sessions import (
    HOST,
    NOW,
    STATE,
    born,
    command,
    metric,
    node,
    payload_of,
    published,
    topics,
)


@pytest.mark.sparkplug(
    "tck-id-message-flow-edge-node-birth-publish-will-message",
    "tck-id-message-flow-edge-node-birth-publish-will-message-topic",
    "tck-id-message-flow-edge-node-birth-publish-will-message-payload",
    "tck-id-message-flow-edge-node-birth-publish-will-message-payload-bdSeq",
    "tck-id-message-flow-edge-node-birth-publish-will-message-qos",
    "tck-id-topics-ndeath-topic",
    "tck-id-topics-ndeath-payload",
    "tck-id-topics-ndeath-seq",
    "tck-id-payloads-ndeath-seq",
    "tck-id-payloads-ndeath-will-message",
    "tck-id-payloads-ndeath-will-message-qos",
    "tck-id-payloads-ndeath-bdseq",
)
def test_the_will_is_the_death_of_the_session_that_the_connect_begins() -> None:
    session = node()
    will = session.connect(NOW)
    assert (will.topic, will.qos) == ("spBv1.0/g/NDEATH/n", 1)
    death = payload_of(will)
    assert not death.HasField("seq")
    (only,) = death.metrics
    assert (only.name, only.datatype, only.WhichOneof("value"), only.long_value) == (
        BDSEQ,
        pb.Int64,
        "long_value",
        0,
    )


@pytest.mark.sparkplug(
    "tck-id-topics-nbirth-bdseq-increment",
    "tck-id-topics-nbirth-bdseq-included",
    "tck-id-topics-nbirth-bdseq-matching",
    "tck-id-payloads-nbirth-bdseq",
    "tck-id-payloads-nbirth-bdseq-repeat",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-payload-bdSeq",
)
def test_bdseq_grows_with_every_connect_and_the_birth_repeats_it() -> None:
    session = node()
    numbers = []
    for _ in range(258):
        death = payload_of(session.connect(NOW))
        birth = payload_of(published(session.subscribed(NOW))[0])
        assert metric(birth, BDSEQ).long_value == death.metrics[0].long_value
        assert metric(birth, BDSEQ).datatype == pb.Int64
        numbers.append(death.metrics[0].long_value)
        session.lost()
    assert numbers == [*range(256), 0, 1]


@pytest.mark.sparkplug(
    "tck-id-message-flow-edge-node-ncmd-subscribe",
    "tck-id-message-flow-device-dcmd-subscribe",
    "tck-id-operational-behavior-primary-application-state-with-multiple-servers-state-subs",
)
def test_commands_and_the_primary_hosts_state_are_subscribed_at_qos_1() -> None:
    assert node(HOST).subscriptions() == [
        ("spBv1.0/g/NCMD/n", 1),
        ("spBv1.0/g/DCMD/n/+", 1),
        (STATE, 1),
    ]
    assert len(node().subscriptions()) == 2


@pytest.mark.sparkplug(
    "tck-id-message-flow-edge-node-birth-publish-nbirth-topic",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-payload",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-qos",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-payload-seq",
    "tck-id-message-flow-device-birth-publish-dbirth-topic",
    "tck-id-message-flow-device-birth-publish-dbirth-match-edge-node-topic",
    "tck-id-message-flow-device-birth-publish-dbirth-payload",
    "tck-id-message-flow-device-birth-publish-dbirth-qos",
    "tck-id-message-flow-device-birth-publish-dbirth-payload-seq",
    "tck-id-message-flow-device-birth-publish-nbirth-wait",
    "tck-id-topics-nbirth-topic",
    "tck-id-topics-nbirth-seq-num",
    "tck-id-topics-nbirth-timestamp",
    "tck-id-topics-dbirth-topic",
    "tck-id-topics-dbirth-seq",
    "tck-id-topics-dbirth-timestamp",
    "tck-id-payloads-nbirth-seq",
    "tck-id-payloads-nbirth-timestamp",
    "tck-id-payloads-nbirth-qos",
    "tck-id-payloads-dbirth-seq",
    "tck-id-payloads-dbirth-seq-inc",
    "tck-id-payloads-dbirth-timestamp",
    "tck-id-payloads-dbirth-qos",
    "tck-id-payloads-dbirth-order",
    "tck-id-payloads-sequence-num-req-nbirth",
)
def test_births_come_node_first_then_each_device() -> None:
    session = node()
    session.connect(NOW)
    assert session.report("press-1", {"temperature": 20.5}, NOW) == []
    actions = session.subscribed(NOW + 5)
    assert topics(actions) == ["NBIRTH/n", "DBIRTH/n/press-1", "DBIRTH/n/press-2"]
    payloads = [payload_of(message) for message in published(actions)]
    assert [payload.seq for payload in payloads] == [0, 1, 2]
    assert {payload.timestamp for payload in payloads} == {NOW + 5}
    assert {message.qos for message in published(actions)} == {0}


@pytest.mark.sparkplug(
    "tck-id-topics-nbirth-metric-reqs",
    "tck-id-topics-nbirth-metrics",
    "tck-id-topics-nbirth-rebirth-metric",
    "tck-id-topics-dbirth-metric-reqs",
    "tck-id-topics-dbirth-metrics",
    "tck-id-operational-behavior-data-publish-nbirth",
    "tck-id-operational-behavior-data-publish-nbirth-values",
    "tck-id-operational-behavior-data-publish-nbirth-order",
    "tck-id-operational-behavior-data-publish-dbirth",
    "tck-id-operational-behavior-data-publish-dbirth-values",
    "tck-id-operational-behavior-data-commands-rebirth-name",
    "tck-id-operational-behavior-data-commands-rebirth-name-aliases",
    "tck-id-operational-behavior-data-commands-rebirth-datatype",
    "tck-id-operational-behavior-data-commands-rebirth-value",
    "tck-id-payloads-nbirth-rebirth-req",
    "tck-id-payloads-alias-uniqueness",
    "tck-id-payloads-alias-birth-requirement",
    "tck-id-payloads-name-birth-data-requirement",
    "tck-id-payloads-metric-datatype-req",
    "tck-id-payloads-metric-datatype-value",
)
def test_births_declare_every_metric_with_its_value_or_none() -> None:
    session = node()
    session.connect(NOW)
    session.report("press-1", {"temperature": 20.5, "is_open": False}, NOW)
    births = [payload_of(message) for message in published(session.subscribed(NOW))]
    assert [[m.name for m in birth.metrics] for birth in births] == [
        [BDSEQ, REBIRTH, "uptime_s"],
        ["temperature", "setpoint", "is_open"],
        ["temperature", "setpoint", "is_open"],
    ]
    everything = [m for birth in births for m in birth.metrics]
    assert all(m.name and m.HasField("datatype") and m.timestamp == NOW for m in everything)
    assert all(m.is_null != (m.WhichOneof("value") is not None) for m in everything)
    aliases = [m.alias for m in everything if m.HasField("alias")]
    assert len(aliases) == len(set(aliases)) == len(everything) - 2
    rebirth = metric(births[0], REBIRTH)
    assert (rebirth.datatype, rebirth.boolean_value, rebirth.HasField("alias")) == (pb.Boolean, False, False)
    assert metric(births[1], "temperature").double_value == 20.5
    assert metric(births[1], "is_open").WhichOneof("value") == "boolean_value"
    assert metric(births[1], "setpoint").is_null


@pytest.mark.sparkplug(
    "tck-id-topics-ndata-topic",
    "tck-id-topics-ndata-timestamp",
    "tck-id-topics-ndata-payload",
    "tck-id-topics-ddata-topic",
    "tck-id-topics-ddata-timestamp",
    "tck-id-topics-ddata-payload",
    "tck-id-payloads-ndata-timestamp",
    "tck-id-payloads-ndata-qos",
    "tck-id-payloads-ddata-timestamp",
    "tck-id-payloads-ddata-qos",
    "tck-id-payloads-alias-data-cmd-requirement",
    "tck-id-payloads-metric-datatype-not-req",
    "tck-id-operational-behavior-data-publish-nbirth-change",
    "tck-id-operational-behavior-data-publish-dbirth-change",
)
def test_data_has_what_changed_by_alias() -> None:
    session = node()
    session.connect(NOW)
    session.report("press-1", {"temperature": 20.5, "setpoint": -3}, NOW)
    births = {m.topic.rsplit("/", 1)[1]: payload_of(m) for m in published(session.subscribed(NOW))}
    alias = metric(births["press-1"], "temperature").alias
    (message,) = published(session.report("press-1", {"temperature": 21.0, "setpoint": -3}, NOW + 7))
    assert (message.topic, message.qos) == ("spBv1.0/g/DDATA/n/press-1", 0)
    data = payload_of(message)
    (only,) = data.metrics
    assert (only.alias, only.name, only.HasField("datatype"), only.double_value) == (alias, "", False, 21.0)
    assert data.timestamp == only.timestamp == NOW + 7
    assert session.report("press-1", {"temperature": 21.0}, NOW + 8) == []
    assert topics(session.report(None, {"uptime_s": 9}, NOW + 9)) == ["NDATA/n"]


@pytest.mark.sparkplug(
    "tck-id-topics-ndata-seq-num",
    "tck-id-topics-ddata-seq-num",
    "tck-id-topics-ddeath-seq-num",
    "tck-id-payloads-ndata-seq",
    "tck-id-payloads-ndata-seq-inc",
    "tck-id-payloads-ddata-seq",
    "tck-id-payloads-ddata-seq-inc",
    "tck-id-payloads-ddeath-seq",
    "tck-id-payloads-ddeath-seq-inc",
    "tck-id-payloads-ddeath-seq-number",
    "tck-id-payloads-sequence-num-always-included",
    "tck-id-payloads-sequence-num-incrementing",
)
@given(
    st.lists(st.sampled_from(["node", "press-1", "press-2", "lose press-1", "lose press-2"]), max_size=600)
)
def test_numbers_run_over_the_node_and_its_devices(steps: Sequence[str]) -> None:
    session = node()
    session.connect(NOW)
    sent = published(session.subscribed(NOW))
    for count, step in enumerate(steps):
        if step == "node":
            sent += published(session.report(None, {"uptime_s": count}, NOW))
        elif step.startswith("lose "):
            sent += published(session.device_lost(step.removeprefix("lose "), NOW))
        else:
            sent += published(session.report(step, {"temperature": float(count)}, NOW))
    numbers = [payload_of(message).seq for message in sent]
    assert numbers[0] == 0
    assert all(after == (before + 1) % 256 for before, after in pairwise(numbers))


@pytest.mark.sparkplug(
    "tck-id-payloads-sequence-num-incrementing",
    "tck-id-payloads-ndata-order",
    "tck-id-payloads-ddata-order",
)
def test_the_number_after_255_is_0() -> None:
    session = born()
    numbers = [
        payload_of(message).seq
        for count in range(300)
        for message in published(session.report(None, {"uptime_s": count}, NOW))
    ]
    assert numbers == [(number + 3) % 256 for number in range(300)]


@pytest.mark.sparkplug(
    "tck-id-topics-ddeath-topic",
    "tck-id-payloads-ddeath-timestamp",
    "tck-id-operational-behavior-device-ddeath",
)
def test_a_lost_device_dies_once_and_is_born_again() -> None:
    session = born()
    (death,) = published(session.device_lost("press-1", NOW + 1))
    assert death.topic == "spBv1.0/g/DDEATH/n/press-1"
    assert (payload_of(death).timestamp, payload_of(death).seq, len(payload_of(death).metrics)) == (
        NOW + 1,
        3,
        0,
    )
    assert session.device_lost("press-1", NOW + 2) == []
    # A node that is born again meanwhile says nothing of it.
    assert "DBIRTH/n/press-1" not in topics(
        session.receive("spBv1.0/g/NCMD/n", command(name=REBIRTH, boolean_value=True), NOW)
    )
    (birth,) = published(session.report("press-1", {"temperature": 1.0}, NOW + 3))
    assert birth.topic == "spBv1.0/g/DBIRTH/n/press-1"
    assert metric(payload_of(birth), "temperature").double_value == 1.0
    assert topics(session.report("press-1", {"temperature": 2.0}, NOW + 4)) == ["DDATA/n/press-1"]


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-data-commands-rebirth-action-1",
    "tck-id-operational-behavior-data-commands-rebirth-action-2",
    "tck-id-operational-behavior-data-commands-rebirth-action-3",
)
def test_a_rebirth_request_brings_all_births_with_the_same_bdseq() -> None:
    session = node()
    bdseq = payload_of(session.connect(NOW)).metrics[0].long_value
    session.subscribed(NOW)
    session.report(None, {"uptime_s": 1}, NOW)
    actions = session.receive("spBv1.0/g/NCMD/n", command(name=REBIRTH, boolean_value=True), NOW)
    assert topics(actions) == ["NBIRTH/n", "DBIRTH/n/press-1", "DBIRTH/n/press-2"]
    births = [payload_of(message) for message in published(actions)]
    assert [birth.seq for birth in births] == [0, 1, 2]
    assert metric(births[0], BDSEQ).long_value == bdseq
    assert metric(births[0], "uptime_s").long_value == 1

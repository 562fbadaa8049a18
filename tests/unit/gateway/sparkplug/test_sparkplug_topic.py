"""Sparkplug topics and the device ids made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.sparkplug.names import device_id_of
from plantwire.gateway.sparkplug.outcome import EdgeNodeId
from plantwire.gateway.sparkplug.topic import MessageType, StateTopic, Topic, parse_topic
from plantwire.schemas.identifiers import is_device_id, is_metric_name

NODE = EdgeNodeId("Sparkplug B Devices", "Raspberry Pi")


@pytest.mark.sparkplug("tck-id-topic-structure", "tck-id-topic-structure-namespace-a")
@pytest.mark.parametrize("kind", ["NBIRTH", "NDEATH", "NDATA", "NCMD"])
def test_a_node_message(kind: str) -> None:
    parsed = parse_topic(f"spBv1.0/Sparkplug B Devices/{kind}/Raspberry Pi")
    assert parsed == Topic(MessageType(kind), NODE, None)


@pytest.mark.sparkplug("tck-id-topic-structure-namespace-device-id-associated-message-types")
@pytest.mark.parametrize("kind", ["DBIRTH", "DDEATH", "DDATA", "DCMD"])
def test_a_device_message(kind: str) -> None:
    parsed = parse_topic(f"spBv1.0/Sparkplug B Devices/{kind}/Raspberry Pi/Pibrella")
    assert parsed == Topic(MessageType(kind), NODE, "Pibrella")
    assert isinstance(parse_topic(f"spBv1.0/Sparkplug B Devices/{kind}/Raspberry Pi"), Rejected)


@pytest.mark.sparkplug("tck-id-topic-structure-namespace-device-id-non-associated-message-types")
@pytest.mark.parametrize("kind", ["NBIRTH", "NDEATH", "NDATA", "NCMD"])
def test_a_node_message_has_no_device(kind: str) -> None:
    assert isinstance(parse_topic(f"spBv1.0/g/{kind}/n/d"), Rejected)


def test_state_topics() -> None:
    assert parse_topic("spBv1.0/STATE/scada 1") == StateTopic("scada 1")
    # A group may be called STATE.
    assert parse_topic("spBv1.0/STATE/NDATA/n") == Topic(MessageType.NDATA, EdgeNodeId("STATE", "n"), None)


@pytest.mark.sparkplug(
    "tck-id-topic-structure-namespace-valid-group-id",
    "tck-id-topic-structure-namespace-valid-edge-node-id",
    "tck-id-topic-structure-namespace-valid-device-id",
)
@pytest.mark.parametrize(
    "topic",
    [
        "",
        "spBv1.0",
        "spBv1.0/",
        "spBv1.0/g",
        "spBv1.0/g/NDATA",
        "spBv1.0//NDATA/n",
        "spBv1.0/g/NDATA/",
        "spBv1.0/g/DDATA/n/",
        "spBv1.0/g/DDATA/n/d/e",
        "spBv1.0/g+/NDATA/n",
        "spBv1.0/g/NDATA/n#",
        "spBv1.0/g/DDATA/n/+",
        "spBv1.0/g/ndata/n",
        "spBv1.0/g/STATE/n",
        "spBv1.0/STATE/",
        "spAv1.0/g/NDATA/n",
        "spBv1.0/g\n/NDATA/n",
        "spBv1.0/g/NDATA/\ud800",
        "spBv1.0/g/NDATA/" + "n" * 600,
    ],
)
def test_what_is_no_sparkplug_topic(topic: str) -> None:
    parsed = parse_topic(topic)
    assert isinstance(parsed, Rejected)
    assert parsed.reason is Reason.INVALID_TOPIC


@given(st.text(max_size=80) | st.lists(st.text(max_size=8), max_size=7).map("/".join))
def test_no_topic_raises_and_what_is_taken_is_printable(topic: str) -> None:
    for text in (topic, f"spBv1.0/{topic}"):
        parsed = parse_topic(text)
        if isinstance(parsed, Topic):
            assert all(is_metric_name(part) for part in parsed.edge_node)
            assert (parsed.device is not None) is (parsed.message.value[0] == "D")


@pytest.mark.parametrize(
    ("group", "node", "device", "expected"),
    [
        ("plant", "line-1", None, "plant:line-1"),
        ("plant", "line_1", "press.7", "plant:line_1:press.7"),
        ("Sparkplug B Devices", "Raspberry Pi", None, "Sparkplug@20B@20Devices:Raspberry@20Pi"),
        ("p:q", "a@b", "c", "p@3Aq:a@40b:c"),
        ("Übersee", "n", None, "0@@C3@9Cbersee:n"),
        ("_p", "n", None, "0@_p:n"),
        ("0", "Ü", None, "0:@C3@9C"),
    ],
)
def test_device_ids(group: str, node: str, device: str | None, expected: str) -> None:
    assert device_id_of(EdgeNodeId(group, node), device) == expected


@pytest.mark.parametrize(
    ("group", "node", "device"),
    [("g" * 128, "n", None), ("g", "Ü" * 22, None), ("", "n", None), ("g", "n", ""), ("g", "\ud800", None)],
)
def test_what_makes_no_device_id(group: str, node: str, device: str | None) -> None:
    refused = device_id_of(EdgeNodeId(group, node), device)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.INVALID_DEVICE_ID


_PART = st.text(max_size=6) | st.sampled_from(["0", "0@", "@", ":", "a:b", "@20", " ", "C3", "_"])
_IDS = st.tuples(_PART, _PART, st.none() | _PART)


@pytest.mark.sparkplug(
    "tck-id-topic-structure-namespace-unique-edge-node-descriptor",
    "tck-id-topic-structure-namespace-duplicate-device-id-across-edge-node",
)
@given(_IDS, _IDS)
def test_a_device_id_stands_for_one_node_or_device(
    one: tuple[str, str, str | None], other: tuple[str, str, str | None]
) -> None:
    ids = [device_id_of(EdgeNodeId(group, node), device) for group, node, device in (one, other)]
    assert all(isinstance(made, Rejected) or is_device_id(made) for made in ids)
    if isinstance(ids[0], str) and one != other:
        assert ids[0] != ids[1]

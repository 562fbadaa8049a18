"""The STATE messages of the host application."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.sparkplug.state_topic import HostState, parse_state, state_payload, state_topic


@pytest.mark.sparkplug(
    "tck-id-host-topic-phid-birth-topic",
    "tck-id-host-topic-phid-death-topic",
    "tck-id-operational-behavior-host-application-connect-birth-topic",
    "tck-id-operational-behavior-host-application-death-topic",
)
def test_the_topic_names_the_host() -> None:
    assert state_topic("plant-7") == "spBv1.0/STATE/plant-7"


@pytest.mark.sparkplug(
    "tck-id-host-topic-phid-birth-payload",
    "tck-id-host-topic-phid-death-payload",
    "tck-id-payloads-state-birth-payload",
    "tck-id-payloads-state-will-message-payload",
    "tck-id-operational-behavior-host-application-death-payload",
)
@pytest.mark.parametrize("online", [True, False])
def test_the_payload_is_json_with_a_boolean_and_a_number(online: bool) -> None:
    payload = state_payload(online, 1_668_114_759_262)
    assert json.loads(payload.decode("utf-8")) == {"online": online, "timestamp": 1_668_114_759_262}
    assert parse_state(payload) == HostState(online, 1_668_114_759_262)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"OFFLINE",
        b"null",
        b"[]",
        b'{"online": 1, "timestamp": 1}',
        b'{"online": "false", "timestamp": 1}',
        b'{"online": false}',
        b'{"timestamp": 1}',
        b'{"online": false, "timestamp": "1"}',
        b'{"online": false, "timestamp": 1.5}',
        b'{"online": false, "timestamp": -1}',
        b'{"online": false, "timestamp": 9007199254740992}',
        b'\xff{"online": false, "timestamp": 1}',
        b'{"online": false, "timestamp": 1, "x": "' + b"x" * 5000 + b'"}',
    ],
)
def test_what_is_no_state_is_none(payload: bytes) -> None:
    assert parse_state(payload) is None


def test_further_keys_do_not_disturb() -> None:
    assert parse_state(b'{"timestamp": 5, "uptime": 1, "online": false}') == HostState(False, 5)


@given(st.binary(max_size=200))
def test_no_bytes_raise(payload: bytes) -> None:
    assert parse_state(payload) is None or isinstance(parse_state(payload), HostState)

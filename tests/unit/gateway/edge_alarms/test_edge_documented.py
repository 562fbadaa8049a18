"""docs/edge-alarms.md names every event and every way to be let go."""

from __future__ import annotations

import re
from pathlib import Path

from plantwire.gateway.edge_alarms import local_socket
from plantwire.gateway.edge_alarms.local_socket import (
    AT_CAPACITY,
    EVENT_INITIAL_STATE,
    EVENT_OF_KIND,
    EVENT_SESSION_ENDED,
    NAMESPACE,
)
from plantwire.gateway.edge_alarms.settings import EdgeAlarmSettings
from plantwire.gateway.parts import RULES_FILE
from plantwire.platform import socket_channel

DOCUMENT = (Path(__file__).parents[4] / "docs" / "edge-alarms.md").read_text("utf-8")


def test_every_event() -> None:
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", DOCUMENT, re.MULTILINE))
    assert documented == {EVENT_INITIAL_STATE, EVENT_SESSION_ENDED, *EVENT_OF_KIND.values()}


def test_every_close_code() -> None:
    codes = {
        code
        for module in (socket_channel, local_socket)
        for name, code in vars(module).items()
        if name.startswith("CLOSE_")
    }
    assert {int(code) for code in re.findall(r"\b(1\d{3}|4\d{3})\b", DOCUMENT)} == codes


def test_names_that_a_reader_needs() -> None:
    for name in (NAMESPACE, AT_CAPACITY, RULES_FILE, "alarms.rules", "edge_state"):
        assert name in DOCUMENT
    named = set(re.findall(r"PLANTWIRE_(GATEWAY_EDGE_[A-Z_]+)", DOCUMENT))
    assert {name.lower() for name in named} == EdgeAlarmSettings.model_fields.keys()

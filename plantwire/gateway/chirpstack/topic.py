"""ChirpStack's event topics: {prefix}application/{applicationId}/device/{devEui}/event/{event}.

In: a topic. Out: its parts, or None where it is no event topic. Pure.
Not here: the payload (`events`).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_FILTER_LEVELS: Final = "application/+/device/+/event/+"
_DEV_EUI: Final = re.compile(r"[0-9A-Fa-f]{16}\Z")
_LEVELS: Final = 6


class EventTopic(msgspec.Struct, frozen=True):
    """The parts of an event topic; `dev_eui` is 16 lower-case hex digits."""

    application_id: str
    dev_eui: str
    event: str


def topic_filter(prefix: str) -> str:
    """The filter of every event; `prefix` goes before `application/`, slash included."""
    return prefix + _FILTER_LEVELS


def parse_topic(topic: str, prefix: str) -> EventTopic | None:
    """The parts of `topic`, or None where it is no event topic or its devEui is none (EUI-64, in hex)."""
    if not topic.startswith(prefix):
        return None
    levels = topic[len(prefix) :].split("/")
    if len(levels) != _LEVELS:
        return None
    application, application_id, device, dev_eui, event_word, event = levels
    if (application, device, event_word) != ("application", "device", "event"):
        return None
    if not _DEV_EUI.match(dev_eui):
        return None
    return EventTopic(application_id, dev_eui.lower(), event)

"""Sparkplug topics → what they say, or why they say nothing. Pure.

In: a topic below ``spBv1.0/``. Out: `Topic`, `StateTopic`, or `Rejected`.
Guarantees: never raises; ids in what is returned are printable and not empty, and the device is there
exactly where the message type has one (tck-id-topic-structure-namespace-device-id-*).
Not here: the device ids that Plantwire makes of them (`names`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.sparkplug.outcome import EdgeNodeId
from plantwire.schemas.identifiers import is_metric_name

NAMESPACE: Final = "spBv1.0"
TOPIC_MAX_CHARACTERS: Final = 512
"""Far above what fits into a device id; so nothing hostile is looked at closely."""
_RESERVED: Final = frozenset("+#")


class MessageType(StrEnum):
    """The message_type element, STATE excepted."""

    NBIRTH = "NBIRTH"
    NDEATH = "NDEATH"
    NDATA = "NDATA"
    NCMD = "NCMD"
    DBIRTH = "DBIRTH"
    DDEATH = "DDEATH"
    DDATA = "DDATA"
    DCMD = "DCMD"


class Topic(NamedTuple):
    """A message of, or to, an edge node (device None) or one of its devices."""

    message: MessageType
    edge_node: EdgeNodeId
    device: str | None


class StateTopic(NamedTuple):
    """The birth or death of a host application."""

    host_id: str


_NODE_MESSAGES: Final = {t.value: t for t in MessageType if t.value.startswith("N")}
_DEVICE_MESSAGES: Final = {t.value: t for t in MessageType if t.value.startswith("D")}


def parse_topic(topic: str) -> Topic | StateTopic | Rejected:
    """What `topic` names (tck-id-topic-structure)."""
    if len(topic) > TOPIC_MAX_CHARACTERS:
        return _refused(f"A topic of {len(topic)} characters; at most {TOPIC_MAX_CHARACTERS}.")
    namespace, *levels = topic.split("/")
    if namespace != NAMESPACE:
        return _refused(f"The topic does not begin with {NAMESPACE}/.")
    for level in levels:
        if not is_metric_name(level) or not _RESERVED.isdisjoint(level):
            return _refused(
                "A level of the topic is empty, too long, or has a reserved or control character."
            )
    if len(levels) == 2 and levels[0] == "STATE":
        return StateTopic(levels[1])
    if len(levels) == 3:
        message = _NODE_MESSAGES.get(levels[1])
        if message is not None:
            return Topic(message, EdgeNodeId(levels[0], levels[2]), None)
    elif len(levels) == 4:
        message = _DEVICE_MESSAGES.get(levels[1])
        if message is not None:
            return Topic(message, EdgeNodeId(levels[0], levels[2]), levels[3])
    return _refused("The topic is not {group}/{type}/{node}[/{device}] of a known type.")


def _refused(detail: str) -> Rejected:
    return Rejected(Reason.INVALID_TOPIC, detail)

"""What a Sparkplug message leads to, and the bounds within which it is taken.

In: nothing. Out: `Outcome` with its frames, refusals, notes and effects; `SparkplugLimits`.
Guarantees: values only; what an effect asks for is done by the host, in the order given.
Not here: how it comes about (`session`, `edge_nodes`), MQTT and timers (`host`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from plantwire.gateway.rejected import Rejected
from plantwire.schemas.records import TelemetryFrame

PROTOCOL: Final = "sparkplug-b"
"""`TelemetryFrame.protocol` of every frame but transient ones."""
PROTOCOL_TRANSIENT: Final = "sparkplug-b-transient"
"""Of frames whose metrics are transient: evaluated and shown like any other, not for a historian."""


class EdgeNodeId(NamedTuple):
    """Names an edge node: the standard's edge node descriptor, group and node as in the topic."""

    group: str
    node: str


class RebirthReason(StrEnum):
    """Why an edge node is asked for its births."""

    BEFORE_BIRTH = "before-birth"
    """Data, a device's birth or death from a node or device whose birth is not known."""
    UNKNOWN_METRIC = "unknown-metric"
    """An alias or name that the birth did not give."""
    SEQUENCE_GAP = "sequence-gap"
    """What was missing did not come within the reorder timeout."""
    MALFORMED = "malformed"
    """A payload that cannot be read, or lacks what its message type must have."""
    INVALID_BIRTH = "invalid-birth"
    """A birth that contradicts itself: an alias or name given twice."""
    RECONNECTED = "reconnected"
    """The host was away from the broker; what it knew is stale."""
    SILENT = "silent"
    """Nothing was heard for so long that it is asked whether it is still there."""


class RequestRebirth(msgspec.Struct, frozen=True):
    """Publish ``Node Control/Rebirth`` = true to this node. The rate per node is already limited."""

    edge_node: EdgeNodeId
    reason: RebirthReason


class SetTimer(msgspec.Struct, frozen=True):
    """Call `expire` for this node at `at_ms` (the monotonic clock that `now_ms` came from). Replaces the
    node's earlier timer; None cancels it. One timer per node is all there ever is.
    """

    edge_node: EdgeNodeId
    at_ms: int | None


Effect = RequestRebirth | SetTimer


class Note(StrEnum):
    """Something to count that refuses nothing."""

    EDGE_NODE_BORN = "edge-node-born"
    EDGE_NODE_DIED = "edge-node-died"
    DEVICE_BORN = "device-born"
    DEVICE_DIED = "device-died"
    DEATH_IGNORED = "death-ignored"
    """An NDEATH of another session (its bdSeq is not that of the birth), or of a node known as dead."""
    SEQUENCE_GAP = "sequence-gap"
    SEQUENCE_FILLED = "sequence-filled"
    """A message that had been missing came late, within the reorder timeout."""
    SEQUENCE_REPEATED = "sequence-repeated"
    """The same bytes with the same sequence number once more: not forwarded again."""
    SEQUENCE_MISSING = "sequence-missing"
    """A message without a sequence number, or with one above 255: taken, but its order is unknown."""
    BDSEQ_MISSING = "bdseq-missing"
    """An NBIRTH without bdSeq: taken; its death can only be matched by having none either."""
    REBIRTH_DEFERRED = "rebirth-deferred"
    """A rebirth is wanted, but the node was asked a short while ago: it is asked when its time comes."""
    VALUE_NOT_FINITE = "value-not-finite"
    """NaN or an infinity: carried as null with quality bad."""
    VALUE_TOO_LONG = "value-too-long"
    """A text, or a value carried as text, above the bound or with a NUL: null with quality bad."""
    QUALITY_UNKNOWN = "quality-unknown"
    """A Quality property that is none of 0, 192 and 500: carried as bad."""
    STATE_SEEN = "state-seen"
    COMMAND_SEEN = "command-seen"
    """NCMD or DCMD, which are for edge nodes: not looked at."""


class Outcome(msgspec.Struct, frozen=True):
    """What one call leads to. All empty is possible: a message that only moved the sequence on."""

    frames: tuple[TelemetryFrame, ...] = ()
    """To be forwarded at once, in this order."""
    rejected: tuple[Rejected, ...] = ()
    """Why parts of the message, or all of it, are refused; one per reason. Its bytes are a dead letter."""
    notes: tuple[Note, ...] = ()
    effects: tuple[Effect, ...] = ()


class SparkplugLimits(msgspec.Struct, frozen=True):
    """Bounds and times; beyond a bound a message is refused with its reason."""

    payload_bytes_max: int = 1024 * 1024
    edge_nodes_max: int = 2000
    devices_per_node_max: int = 1000
    metrics_per_device_max: int = 5000
    """Metrics of one birth, members of templates included; of one data message too."""
    metrics_max: int = 500_000
    """Metrics of all edge nodes together: about 500 bytes of memory each, 1 kB with a text."""
    metrics_per_frame_max: int = 1000
    """A message with more becomes several frames."""
    time_ahead_max_ms: int = 60_000
    reorder_timeout_ms: int = 2000
    rebirth_first_ms: int = 5000
    """The shortest time between two rebirth requests to one node; doubles with each, up to the longest."""
    rebirth_longest_ms: int = 300_000
    silent_forget_ms: int = 7 * 24 * 3_600_000
    """A node that said nothing for so long is asked for its births, and forgotten if none come."""

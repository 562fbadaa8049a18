"""All edge nodes: MQTT messages below ``spBv1.0/`` → what comes of them. Pure: no clock, no I/O.

In: topics and payloads in order of arrival, with their times. Out: `Outcome`.
Guarantees: never raises, whatever topic and payload are. Memory is bounded (`SparkplugLimits`): edge nodes
whose birth is not known give way to new ones, oldest first; those that are born never do.
Not here: one node's session (`session`); MQTT, timers, the pace of rebirth requests over all nodes (`host`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.sparkplug.metric_budget import MetricBudget
from plantwire.gateway.sparkplug.names import device_id_of
from plantwire.gateway.sparkplug.outcome import EdgeNodeId, Note, Outcome, RebirthReason, SparkplugLimits
from plantwire.gateway.sparkplug.payload import parse_payload
from plantwire.gateway.sparkplug.session import EdgeNodeSession
from plantwire.gateway.sparkplug.topic import MessageType, StateTopic, parse_topic

_COMMANDS: Final = frozenset({MessageType.NCMD, MessageType.DCMD})
_SILENCE_GRACE_MS: Final = 60_000


class MetricView(NamedTuple):
    """A metric as its birth defined it, for who writes to it."""

    name: str
    datatype: int
    alias: int | None


class Census(NamedTuple):
    """How many there are."""

    edge_nodes: int
    born: int
    devices: int
    metrics: int


class EdgeNodes:
    """`take` every message; the clocks are the caller's."""

    def __init__(self, limits: SparkplugLimits) -> None:
        self._limits = limits
        self._budget = MetricBudget(limits.metrics_max)
        self._sessions: dict[EdgeNodeId, EdgeNodeSession] = {}
        # Those that are not born, in the order in which they are let go.
        self._unborn: dict[EdgeNodeId, None] = {}
        self._asked_silent_ms: dict[EdgeNodeId, int] = {}

    def take(self, topic: str, payload: bytes, received_us: int, now_ms: int) -> Outcome:
        """Take one message. `received_us`: wall clock; `now_ms`: the monotonic clock that timers go by."""
        parsed = parse_topic(topic)
        if isinstance(parsed, Rejected):
            return Outcome(rejected=(parsed,))
        if isinstance(parsed, StateTopic):
            return Outcome(notes=(Note.STATE_SEEN,))
        message, edge_node, device = parsed
        if message in _COMMANDS:
            return Outcome(notes=(Note.COMMAND_SEEN,))
        if not payload:
            # How a retained message is deleted: it says nothing about the node.
            return Outcome(rejected=(Rejected(Reason.NOT_PROTOBUF, "The payload is empty."),))
        decoded = parse_payload(payload, self._limits.payload_bytes_max, self._limits.metrics_per_device_max)
        session = self._sessions.get(edge_node)
        if session is None:
            if message is MessageType.NDEATH:
                # Nothing to end, and no reason to remember the node.
                if isinstance(decoded, Rejected):
                    return Outcome(rejected=(decoded,))
                return Outcome(notes=(Note.DEATH_IGNORED,))
            admitted = self._admit(edge_node)
            if isinstance(admitted, Rejected):
                return Outcome(rejected=(admitted,))
            session = admitted
        if isinstance(decoded, Rejected):
            outcome = session.refuse(decoded, message, device, received_us, now_ms)
        else:
            digest = hash((message, device, payload))
            outcome = session.take(message, device, decoded, digest, received_us, now_ms)
        if message is MessageType.NBIRTH or message is MessageType.NDEATH:
            self._file(session)
        return outcome

    def expire(self, edge_node: EdgeNodeId, received_us: int, now_ms: int) -> Outcome:
        """The node's timer is due. Called early, or for a node not known, it changes nothing."""
        session = self._sessions.get(edge_node)
        return session.expire(received_us, now_ms) if session is not None else Outcome()

    def lose_broker(self, received_us: int, now_ms: int) -> Iterator[Outcome]:
        """The connection to the broker is lost: all metrics are stale (standard, "Host Application Session
        Establishment"), no node is born, no timer runs. One outcome per node; take no message before the
        last.
        """
        for session in list(self._sessions.values()):
            yield session.end(received_us, now_ms)
            self._file(session)

    def regain_broker(self, now_ms: int) -> Iterator[Outcome]:
        """After a reconnect: ask every node that is known and not born, since one that has nothing new to
        say would stay stale. One outcome per node; how many are asked at a time is the caller's to bound.
        """
        for edge_node in list(self._unborn):
            session = self._sessions.get(edge_node)
            if session is not None and session.table is None:
                yield session.ask(RebirthReason.RECONNECTED, now_ms)

    def forget_silent(self, received_us: int, now_ms: int) -> Iterator[Outcome]:
        """Ask nodes that said nothing for `silent_forget_ms`, and forget those that did not answer within a
        minute. To be called every minute or so.
        """
        received_ms = received_us // 1000
        for edge_node, session in list(self._sessions.items()):
            silent_ms = received_ms - session.heard_ms
            if silent_ms < self._limits.silent_forget_ms:
                self._asked_silent_ms.pop(edge_node, None)
            elif session.table is not None and edge_node not in self._asked_silent_ms:
                self._asked_silent_ms[edge_node] = received_ms
                yield session.ask(RebirthReason.SILENT, now_ms)
            elif received_ms - self._asked_silent_ms.get(edge_node, 0) >= _SILENCE_GRACE_MS:
                outcome = session.end(received_us, now_ms)
                self._forget(edge_node)
                yield outcome

    def definition(self, edge_node: EdgeNodeId, device: str | None, name: str) -> MetricView | None:
        """A metric of a node (device None) or device that is born; None where there is none."""
        session = self._sessions.get(edge_node)
        if session is None:
            return None
        table = session.table if device is None else session.devices.get(device)
        definition = table.names.get(name) if table is not None else None
        if definition is None:
            return None
        return MetricView(definition.name, definition.datatype, definition.alias)

    def is_born(self, edge_node: EdgeNodeId) -> bool:
        """Whether the node's birth is known and its death is not."""
        session = self._sessions.get(edge_node)
        return session is not None and session.table is not None

    def census(self) -> Census:
        """How many there are now."""
        born = [session for session in self._sessions.values() if session.table is not None]
        devices = sum(len(session.devices) for session in born)
        return Census(len(self._sessions), len(born), devices, self._budget.used)

    def _admit(self, edge_node: EdgeNodeId) -> EdgeNodeSession | Rejected:
        device_id = device_id_of(edge_node, None)
        if isinstance(device_id, Rejected):
            return device_id
        if len(self._sessions) >= self._limits.edge_nodes_max:
            if not self._unborn:
                return Rejected(
                    Reason.TOO_MANY_DEVICES, f"More than {self._limits.edge_nodes_max} edge nodes."
                )
            self._forget(next(iter(self._unborn)))
        session = EdgeNodeSession(edge_node, device_id, self._limits, self._budget)
        self._sessions[edge_node] = session
        self._unborn[edge_node] = None
        return session

    def _file(self, session: EdgeNodeSession) -> None:
        """Keep `_unborn` in step with the session."""
        if session.table is not None:
            self._unborn.pop(session.edge_node, None)
        else:
            self._unborn.setdefault(session.edge_node, None)

    def _forget(self, edge_node: EdgeNodeId) -> None:
        del self._sessions[edge_node]
        self._unborn.pop(edge_node, None)
        self._asked_silent_ms.pop(edge_node, None)

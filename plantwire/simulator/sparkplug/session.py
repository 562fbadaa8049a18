"""The session of a Sparkplug B 3.0 edge node: what it must say, and when. Pure: no clock, no I/O.

In: what happens to its MQTT connection, messages that it receives, values of its devices. Out: actions.
Guarantees, after chapter 5 of the standard: NBIRTH first, then a DBIRTH for each device, then data by
alias, numbered 0 to 255 over the node and its devices; no birth before the primary host is online, and an
NDEATH as soon as it is not; bdSeq grows by one with every CONNECT; a changed value only is sent. Actions
must be carried out in their order.
Not here: the connection (`sparkplug.outlet`), the bytes of a payload (`sparkplug.payload`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

import msgspec

from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from plantwire.simulator.frame import Value
from plantwire.simulator.sparkplug.payload import (
    BDSEQ,
    REBIRTH,
    Command,
    MetricSpec,
    add_birth,
    add_value,
    commands_in,
    is_true,
    new_payload,
    written_value,
)

NAMESPACE: Final = "spBv1.0"
NUMBERS: Final = 256
"""seq and bdSeq run from 0 to 255."""
_RESERVED: Final = frozenset("+/#")


class Publish(msgspec.Struct, frozen=True):
    """A message to publish; nothing of an edge node is retained."""

    topic: str
    payload: bytes
    qos: int = 0


class Written(msgspec.Struct, frozen=True):
    """A host wrote a metric of a device (of the node itself where `device` is None)."""

    device: str | None
    name: str
    value: Value


class Leave(msgspec.Struct, frozen=True):
    """Disconnect in order and start over: the primary host is offline."""


class Ignored(msgspec.Struct, frozen=True):
    """A message that changes nothing, and why."""

    topic: str
    reason: str


Action = Publish | Written | Leave | Ignored


class Phase(Enum):
    """How far the session is."""

    AWAY = "away"
    """Not connected, or not subscribed yet."""
    WAITING = "waiting"
    """Subscribed; the primary host was not seen online in this MQTT session."""
    ONLINE = "online"
    """Born."""


class _Member:
    """The node itself or one of its devices: its metrics, their aliases and current values."""

    __slots__ = ("aliases", "by_alias", "is_connected", "specs", "values")

    def __init__(self, specs: Sequence[MetricSpec], first_alias: int) -> None:
        self.specs: Final = {spec.name: spec for spec in specs}
        self.aliases: Final = {spec.name: first_alias + index for index, spec in enumerate(specs)}
        self.by_alias: Final = {alias: name for name, alias in self.aliases.items()}
        self.values: dict[str, Value] = {}
        self.is_connected = True

    def changed(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Those of `values` that differ from the current ones, which they replace."""
        changed = {
            name: value
            for name, value in values.items()
            if name in self.specs and (name not in self.values or self.values[name] != value)
        }
        self.values.update(changed)
        return changed

    def find(self, command: Command) -> MetricSpec | None:
        name = self.by_alias.get(command.alias) if command.alias is not None else command.name
        return self.specs.get(name) if name is not None else None


class EdgeNodeSession:
    """One edge node, over all its MQTT connections of one run.

    Without `primary_host` it waits for nobody. Raises ValueError for names that the standard does not
    allow.
    """

    def __init__(
        self,
        group: str,
        node: str,
        node_metrics: Sequence[MetricSpec],
        devices: Mapping[str, Sequence[MetricSpec]],
        primary_host: str | None,
    ) -> None:
        for name in (group, node, *devices, *([primary_host] if primary_host is not None else [])):
            if not is_sparkplug_id(name):
                raise ValueError(f"{name!r} is no Sparkplug id: it is empty or has one of + / #")
        self._group = group
        self._node = node
        self._primary_host = primary_host
        self._own = _Member(_checked(node_metrics), 1)
        self._devices: dict[str, _Member] = {}
        next_alias = 1 + len(node_metrics)
        for device, specs in devices.items():
            self._devices[device] = _Member(_checked(specs), next_alias)
            next_alias += len(specs)
        self._phase = Phase.AWAY
        self._bdseq = NUMBERS - 1
        self._seq = 0
        self._state_ms: int | None = None
        self._online_state_ms: int | None = None

    @property
    def phase(self) -> Phase:
        """How far the session is."""
        return self._phase

    def connect(self, now_ms: int) -> Publish:
        """A CONNECT is about to be sent: its will, the NDEATH of the session that it begins."""
        self._phase = Phase.AWAY
        self._bdseq = (self._bdseq + 1) % NUMBERS
        return self._death(now_ms)

    def subscriptions(self) -> list[tuple[str, int]]:
        """Topic filters and QoS, to subscribe before anything is published."""
        filters = [(self._topic("NCMD"), 1), (self._topic("DCMD", "+"), 1)]
        if self._primary_host is not None:
            filters.append((self._state_topic(), 1))
        return filters

    def subscribed(self, now_ms: int) -> list[Action]:
        """The broker confirmed the subscriptions."""
        self._phase = Phase.WAITING
        return self._births(now_ms) if self._primary_host is None else []

    def lost(self) -> None:
        """The connection is gone; the broker publishes the will, or was told not to."""
        self._phase = Phase.AWAY

    def leave(self, now_ms: int) -> list[Action]:
        """The node is about to disconnect by its own will: the death that must come before."""
        was_connected = self._phase is not Phase.AWAY
        self._phase = Phase.AWAY
        # QoS 1, so that the broker has it before it gets DISCONNECT and forgets the will.
        return [self._death(now_ms)] if was_connected else []

    def report(self, device: str | None, values: Mapping[str, Value], now_ms: int) -> list[Action]:
        """New values of a device, or of the node itself; a device that was lost is back with them."""
        member = self._own if device is None else self._devices[device]
        changed = member.changed(values)
        was_connected, member.is_connected = member.is_connected, True
        if self._phase is not Phase.ONLINE:
            return []
        if device is not None and not was_connected:
            return [self._device_birth(device, member, now_ms)]
        if not changed:
            return []
        payload = new_payload(now_ms, self._next_seq())
        for name, value in changed.items():
            add_value(payload, member.specs[name], member.aliases[name], value, now_ms)
        topic = self._topic("NDATA") if device is None else self._topic("DDATA", device)
        return [Publish(topic, payload.SerializeToString())]

    def device_lost(self, device: str, now_ms: int) -> list[Action]:
        """A device cannot be read any more."""
        member = self._devices[device]
        was_connected, member.is_connected = member.is_connected, False
        if not was_connected or self._phase is not Phase.ONLINE:
            return []
        payload = new_payload(now_ms, self._next_seq())
        return [Publish(self._topic("DDEATH", device), payload.SerializeToString())]

    def receive(self, topic: str, payload: bytes, now_ms: int) -> list[Action]:
        """A message of one of the subscriptions."""
        if self._primary_host is not None and topic == self._state_topic():
            return self._take_state(topic, payload, now_ms)
        if topic == self._topic("NCMD"):
            return self._take_command(topic, None, payload, now_ms)
        prefix = self._topic("DCMD", "")
        device = topic.removeprefix(prefix) if topic.startswith(prefix) else None
        if device is None or device not in self._devices:
            return [Ignored(topic, "not for this node")]
        return self._take_command(topic, device, payload, now_ms)

    def _take_state(self, topic: str, payload: bytes, now_ms: int) -> list[Action]:
        state = _parse_state(payload)
        if state is None:
            return [Ignored(topic, "not a STATE payload")]
        is_online, timestamp_ms = state
        if is_online:
            if self._state_ms is not None and timestamp_ms < self._state_ms:
                return [Ignored(topic, "older than the STATE before")]
            self._state_ms = self._online_state_ms = timestamp_ms
            return self._births(now_ms) if self._phase is Phase.WAITING else []
        if self._online_state_ms is not None and timestamp_ms < self._online_state_ms:
            # The will of a session that the host has replaced.
            return [Ignored(topic, "older than the online STATE before")]
        self._state_ms = timestamp_ms
        if self._phase is not Phase.ONLINE:
            # There is one server to connect to, so this is where the node waits.
            return []
        return [*self.leave(now_ms), Leave()]

    def _take_command(self, topic: str, device: str | None, payload: bytes, now_ms: int) -> list[Action]:
        commands = commands_in(payload)
        if commands is None:
            return [Ignored(topic, "malformed payload")]
        if self._phase is not Phase.ONLINE:
            return [Ignored(topic, "not born")]
        member = self._own if device is None else self._devices[device]
        actions: list[Action] = []
        written: dict[str, Value] = {}
        rebirth = False
        for command in commands:
            if device is None and command.name == REBIRTH:
                rebirth |= is_true(command.metric)
                continue
            spec = member.find(command)
            value = written_value(spec, command.metric) if spec is not None else None
            if spec is None or not spec.is_writable or not member.is_connected:
                actions.append(Ignored(topic, "no such output"))
            elif value is None:
                actions.append(Ignored(topic, f"no value for {spec.name}"))
            else:
                written[spec.name] = value
                actions.append(Written(device, spec.name, value))
        if written:
            actions += self.report(device, written, now_ms)
        return actions + (self._births(now_ms) if rebirth else [])

    def _births(self, now_ms: int) -> list[Action]:
        self._phase = Phase.ONLINE
        self._seq = NUMBERS - 1
        payload = new_payload(now_ms, self._next_seq())
        add_birth(payload, MetricSpec(BDSEQ, pb.Int64), None, self._bdseq, now_ms)
        add_birth(payload, MetricSpec(REBIRTH, pb.Boolean), None, False, now_ms)
        _add_member(payload, self._own, now_ms)
        node_birth = Publish(self._topic("NBIRTH"), payload.SerializeToString())
        return [
            node_birth,
            *(
                self._device_birth(device, member, now_ms)
                for device, member in self._devices.items()
                if member.is_connected
            ),
        ]

    def _device_birth(self, device: str, member: _Member, now_ms: int) -> Publish:
        payload = new_payload(now_ms, self._next_seq())
        _add_member(payload, member, now_ms)
        return Publish(self._topic("DBIRTH", device), payload.SerializeToString())

    def _death(self, now_ms: int) -> Publish:
        payload = new_payload(now_ms, None)
        add_birth(payload, MetricSpec(BDSEQ, pb.Int64), None, self._bdseq, now_ms)
        return Publish(self._topic("NDEATH"), payload.SerializeToString(), qos=1)

    def _next_seq(self) -> int:
        self._seq = (self._seq + 1) % NUMBERS
        return self._seq

    def _topic(self, kind: str, device: str | None = None) -> str:
        topic = f"{NAMESPACE}/{self._group}/{kind}/{self._node}"
        return topic if device is None else f"{topic}/{device}"

    def _state_topic(self) -> str:
        return f"{NAMESPACE}/STATE/{self._primary_host}"


def is_sparkplug_id(name: str) -> bool:
    """Whether the standard allows it as the id of a group, node, device or host."""
    return bool(name) and not _RESERVED & set(name)


def _add_member(payload: pb.Payload, member: _Member, now_ms: int) -> None:
    # All at the birth's own time: what a birth states is the current value.
    for name, spec in member.specs.items():
        add_birth(payload, spec, member.aliases[name], member.values.get(name), now_ms)


def _checked(specs: Sequence[MetricSpec]) -> Sequence[MetricSpec]:
    names = {spec.name.lower() for spec in specs}
    if len(names) != len(specs) or names & {BDSEQ.lower(), REBIRTH.lower()}:
        raise ValueError("metric names must differ, whatever their case, and are not those of the session")
    return specs


def _parse_state(payload: bytes) -> tuple[bool, int] | None:
    """(online, timestamp ms) of a host's STATE, or None where it is none."""
    try:
        state = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(state, dict):
        return None
    is_online, timestamp_ms = state.get("online"), state.get("timestamp")
    if not isinstance(is_online, bool) or not isinstance(timestamp_ms, int) or isinstance(timestamp_ms, bool):
        return None
    return is_online, timestamp_ms

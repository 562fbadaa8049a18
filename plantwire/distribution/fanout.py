"""Events to every client that may see the device.

In: alarms and telemetry of a device, as packets; clients that join and leave.
Out: bytes on each client's channel.
Guarantees: an event is encoded once and written to each recipient without an await; an alarm is written
at once, before telemetry that waits; telemetry of up to `flush_s` is written together; a client
joins between two flushes, so each message is either in its `initial-state` or written afterwards, and not
both. A token that covers everything is in the room of everything, any other in one room per device;
nobody else receives. Telemetry that waits is bounded: the oldest is dropped and counted.
Not here: the slow-client bound (`platform.socket_channel`), what is news (`picture`).
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.packets import EVENT_INITIAL_STATE, Packet
from plantwire.platform.tokens import EVERY_DEVICE, Claims
from plantwire.schemas.topics import device_room

# An alarm that arrives in the middle of a flush waits for this many writes at most.
WRITES_PER_TURN: Final = 200
ADMISSIONS_PER_FLUSH: Final = 100

ROOM_OF_EVERYTHING: Final = device_room(EVERY_DEVICE)


class Outlet(Protocol):
    """Where a recipient's events go; `socket_channel.Channel` is one."""

    def write(self, packets: list[Packet], frames: bytes, /) -> bool:
        """Write events; False when the client is gone."""

    def write_state(self, packet: Packet, /) -> bool:
        """Write a whole state, whose size says nothing of the client; as `write`."""


class Recipient(NamedTuple):
    """A connected client."""

    sid: str
    claims: Claims
    outlet: Outlet

    def rooms(self) -> list[str]:
        """The rooms of what its token may see."""
        if self.claims.every_device:
            return [ROOM_OF_EVERYTHING]
        return [device_room(device_id) for device_id in self.claims.devices]


class Fanout:
    """See the module; used from the event loop's thread only."""

    def __init__(
        self,
        metrics: DistributionMetrics,
        initial_state: Callable[[Claims], bytes | None],
        flush_s: float,
        pending_max: int,
    ) -> None:
        """`initial_state` gives the body for a joining client, None while there is none yet."""
        self._metrics = metrics
        self._initial_state = initial_state
        self._flush_s = flush_s
        self._pending_max = pending_max
        self._rooms: dict[str, dict[str, Recipient]] = defaultdict(dict)
        self._recipients: dict[str, Recipient] = {}
        self._joining: dict[str, Recipient] = {}
        self._pending: deque[tuple[str, Packet]] = deque()
        self._wake = asyncio.Event()

    @property
    def size(self) -> int:
        """Clients, those that are still joining included."""
        return len(self._recipients.keys() | self._joining.keys())

    def join(self, recipient: Recipient) -> None:
        """Let a client in at the next flush, with its `initial-state` first."""
        self._joining[recipient.sid] = recipient
        self._wake.set()

    def leave(self, sid: str) -> None:
        """Forget a client; harmless when it is not known."""
        self._joining.pop(sid, None)
        recipient = self._recipients.pop(sid, None)
        if recipient is None:
            return
        for room in recipient.rooms():
            members = self._rooms.get(room)
            if members is not None and members.pop(sid, None) is not None and not members:
                del self._rooms[room]

    def renew_all(self) -> None:
        """Give every client a fresh `initial-state`."""
        self._joining.update(self._recipients)
        self._wake.set()

    def admit_waiting(self) -> None:
        """Say that there is a state now for those who wait for one."""
        self._wake.set()

    def send_to_device(self, device_id: str, packet: Packet) -> int:
        """Write an event at once to all who may see the device; the number of recipients."""
        started = time.perf_counter()
        count = self._write_all(self._members(device_id), [packet], packet.frame)
        self._metrics.fanout.observe(time.perf_counter() - started)
        return count

    def send_to_all(self, packet: Packet) -> None:
        """Write an event that concerns no device to every client."""
        self._write_all(tuple(self._recipients.values()), [packet], packet.frame)

    def queue_telemetry(self, device_id: str, packet: Packet) -> None:
        """Write a telemetry message with the next flush."""
        if len(self._pending) >= self._pending_max:
            self._pending.popleft()
            self._metrics.dropped.labels("telemetry-backlog").inc()
        self._pending.append((device_id, packet))
        self._wake.set()

    async def run(self) -> None:
        """Flush whenever something waits, until cancelled."""
        while True:
            await self._wake.wait()
            # What arrives meanwhile goes out in the same write.
            await asyncio.sleep(self._flush_s)
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits and let in who waits."""
        batch, self._pending = self._pending, deque()
        joined = self._admit()
        everything = [r for r in self._rooms.get(ROOM_OF_EVERYTHING, {}).values() if r.sid not in joined]
        per_recipient: dict[str, list[Packet]] = defaultdict(list)
        for device_id, packet in batch:
            for sid in self._rooms.get(device_room(device_id), ()):
                if sid not in joined:
                    per_recipient[sid].append(packet)
        if everything and batch:
            packets = [packet for _, packet in batch]
            frames = b"".join([packet.frame for packet in packets])
            for start in range(0, len(everything), WRITES_PER_TURN):
                self._write_all(everything[start : start + WRITES_PER_TURN], packets, frames)
                await asyncio.sleep(0)
        for written, (sid, packets) in enumerate(per_recipient.items(), start=1):
            recipient = self._recipients.get(sid)
            if recipient is not None:
                self._write_all((recipient,), packets, b"".join([packet.frame for packet in packets]))
            if written % WRITES_PER_TURN == 0:
                await asyncio.sleep(0)

    def _admit(self) -> set[str]:
        joined: set[str] = set()
        states: dict[tuple[bool, frozenset[str]], Packet] = {}
        for sid in list(self._joining)[:ADMISSIONS_PER_FLUSH]:
            recipient = self._joining[sid]
            audience = (recipient.claims.every_device, recipient.claims.devices)
            packet = states.get(audience)
            if packet is None:
                body = self._initial_state(recipient.claims)
                if body is None:
                    return joined
                packet = states[audience] = Packet(EVENT_INITIAL_STATE, body)
            del self._joining[sid]
            joined.add(sid)
            self._recipients[sid] = recipient
            for room in recipient.rooms():
                self._rooms[room][sid] = recipient
            if recipient.outlet.write_state(packet):
                self._metrics.sent.labels(packet.event).inc()
        if self._joining:
            self._wake.set()
        return joined

    def _members(self, device_id: str) -> tuple[Recipient, ...]:
        return (
            *self._rooms.get(ROOM_OF_EVERYTHING, {}).values(),
            *self._rooms.get(device_room(device_id), {}).values(),
        )

    def _write_all(
        self, recipients: list[Recipient] | tuple[Recipient, ...], packets: list[Packet], frames: bytes
    ) -> int:
        count = 0
        for recipient in recipients:
            if recipient.outlet.write(packets, frames):
                count += 1
        if count:
            # Packets that are written together are of one event.
            self._metrics.sent.labels(packets[0].event).inc(count * len(packets))
        return count

"""An MQTT 3.1.1 server that notes each packet as it came, for what a real broker does not show: the flags of
CONNECT, the will, the order of SUBSCRIBE and PUBLISH, retain flags.

It keeps no sessions and forwards nothing; what a client is to receive the test delivers.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CONNECT, PUBLISH, PUBACK, SUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 4, 8, 12, 14


@dataclass(frozen=True)
class Packet:
    """One packet of the client; `connection` counts from 1."""

    connection: int
    kind: int
    fields: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(name) from None


class RecordingBroker:
    """Takes one client after the other."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.acknowledges_publishes = True
        self.refuses_subscriptions = False
        self.retained: tuple[str, bytes] | None = None
        """Topic and payload of what the first who subscribes is sent, before the SUBACK."""
        self._connections = 0
        self._writer: asyncio.StreamWriter | None = None
        self._changed = asyncio.Condition()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    def cut(self) -> None:
        """End the connection without a word."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    def acknowledge(self, packet: Packet) -> None:
        """PUBACK for a message that was left without."""
        assert self._writer is not None
        self._writer.write(b"\x40\x02" + struct.pack(">H", packet.mid))

    def deliver(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None:
        """Send a message to the client."""
        assert self._writer is not None
        name = topic.encode()
        body = struct.pack(">H", len(name)) + name + (b"\x00\x09" if qos else b"") + payload
        self._writer.write(bytes([PUBLISH << 4 | qos << 1 | retain]) + _length(len(body)) + body)

    async def wait_for(self, wanted: Callable[[list[Packet]], Any], timeout_s: float = 10) -> list[Packet]:
        """All packets, once `wanted` says so of them."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: wanted(self.packets))
        return self.packets

    def published(self, topic: str | None = None, connection: int | None = None) -> list[Packet]:
        """The client's PUBLISH packets."""
        return [
            packet
            for packet in self.packets
            if packet.kind == PUBLISH
            and topic in (None, packet.topic)
            and connection in (None, packet.connection)
        ]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        self._writer = writer
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (first,) = await reader.readexactly(1)
                body = await reader.readexactly(await _read_length(reader))
                packet = _parse(self._connections, first, body)
                if packet.kind == SUBSCRIBE and self.retained is not None:
                    self.deliver(*self.retained, qos=1, retain=True)
                    self.retained = None
                writer.write(self._answer(packet))
                async with self._changed:
                    self.packets.append(packet)
                    self._changed.notify_all()
        writer.close()

    def _answer(self, packet: Packet) -> bytes:
        if packet.kind == CONNECT:
            return b"\x20\x02\x00\x00"
        if packet.kind == SUBSCRIBE:
            codes = bytes(0x80 if self.refuses_subscriptions else qos for _, qos in packet.filters)
            return b"\x90" + _length(2 + len(codes)) + struct.pack(">H", packet.mid) + codes
        if packet.kind == PUBLISH and packet.qos and self.acknowledges_publishes:
            return b"\x40\x02" + struct.pack(">H", packet.mid)
        if packet.kind == PINGREQ:
            return b"\xd0\x00"
        return b""


def _parse(connection: int, first: int, body: bytes) -> Packet:
    kind, flags = first >> 4, first & 0x0F
    fields: dict[str, Any] = {}
    if kind == CONNECT:
        protocol, rest = _text(body)
        level, connect_flags = rest[0], rest[1]
        client_id, rest = _text(rest[4:])
        fields = {
            "protocol": (protocol, level),
            "client_id": client_id,
            "clean_session": bool(connect_flags & 2),
            "will": None,
        }
        if connect_flags & 4:
            topic, rest = _text(rest)
            (length,) = struct.unpack_from(">H", rest)
            fields["will"] = (
                topic,
                rest[2 : 2 + length],
                connect_flags >> 3 & 3,  # QoS
                bool(connect_flags & 0x20),  # retain
            )
    elif kind == PUBLISH:
        topic, rest = _text(body)
        qos = flags >> 1 & 3
        fields = {"topic": topic, "qos": qos, "retain": bool(flags & 1), "mid": None}
        if qos:
            fields["mid"], rest = struct.unpack_from(">H", rest)[0], rest[2:]
        fields["payload"] = rest
    elif kind == SUBSCRIBE:
        filters, rest = [], body[2:]
        while rest:
            topic, rest = _text(rest)
            filters.append((topic, rest[0]))
            rest = rest[1:]
        fields = {"mid": struct.unpack_from(">H", body)[0], "filters": filters}
    elif kind == PUBACK:
        fields = {"mid": struct.unpack_from(">H", body)[0]}
    return Packet(connection, kind, fields)


def _text(data: bytes) -> tuple[str, bytes]:
    (length,) = struct.unpack_from(">H", data)
    return data[2 : 2 + length].decode(), data[2 + length :]


def _length(number: int) -> bytes:
    encoded = bytearray()
    while True:
        number, digit = divmod(number, 128)
        encoded.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(encoded)


async def _read_length(reader: asyncio.StreamReader) -> int:
    number, shift = 0, 0
    while True:
        (digit,) = await reader.readexactly(1)
        number |= (digit & 0x7F) << shift
        if not digit & 0x80:
            return number
        shift += 7

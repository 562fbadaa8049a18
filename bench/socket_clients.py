"""Many light Socket.IO clients in one process: stamp alarms on receipt, count telemetry.

In: one JSON object on standard input (`ClientOrder`), then lines: `mark` asks for the counters, the end
of the input ends the run. Out: JSON lines on standard output (`ready`, `mark`, `refused`), and the
receipts in a file.
Guarantees: speaks Engine.IO v4 and Socket.IO v5 as text over WebSocket (open packet, namespace connect
with `auth`, ping answered by pong); the moment of receipt is taken before anything else is done; a lost
connection is recorded and not taken up again, so what it missed counts as lost.
Not here: the cross-check by unchanged official clients (`bench.official_clients`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench.receipts import Recorder

NAMESPACE: Final = b"/telemetry"
EVENT_PREFIX: Final = b"42" + NAMESPACE + b","
ALARM_PREFIX: Final = EVENT_PREFIX + b'["alarm'
TELEMETRY_PREFIX: Final = EVENT_PREFIX + b'["telemetry'
INITIAL_STATE_PREFIX: Final = EVENT_PREFIX + b'["initial-state"'
REFUSED_PREFIX: Final = b"44" + NAMESPACE
OPEN_PACKET: Final = b"0"
PING_PACKET: Final = b"2"
PONG_PACKET: Final = "3"
MESSAGE_MAX_BYTES: Final = 32 * 1024 * 1024
CONNECT_TIMEOUT_S: Final = 30.0


class ClientOrder(msgspec.Struct, frozen=True):
    """What the parent asks for."""

    url: str
    """http://host:port of the distribution tier."""
    token: str
    count: int
    first_client: int
    receipts_file: str
    namespace: str = "/telemetry"
    """The light clients know no other than this."""


class RefusedError(Exception):
    """The server did not let a client in."""


async def open_connection(url: str, token: str) -> ClientConnection:
    """A WebSocket that has joined the namespace and holds the initial state: from there on every alarm
    comes as an event. Raises RefusedError with the server's reason.
    """
    address = url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
    socket = await connect(
        address,
        compression=None,
        ping_interval=None,  # Engine.IO has pings of its own
        max_size=MESSAGE_MAX_BYTES,
        open_timeout=CONNECT_TIMEOUT_S,
    )
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        packet = await socket.recv(decode=False)
        if packet[:1] != OPEN_PACKET:
            raise RefusedError(f"no Engine.IO open packet but {packet[:80]!r}")
        auth = msgspec.json.encode({"token": token})
        await socket.send((b"40" + NAMESPACE + b"," + auth).decode())
        while not (packet := await socket.recv(decode=False)).startswith(INITIAL_STATE_PREFIX):
            if packet.startswith(REFUSED_PREFIX):
                raise RefusedError(packet[len(REFUSED_PREFIX) :].decode("utf-8", "replace"))
            if packet == PING_PACKET:
                await socket.send(PONG_PACKET)
    return socket


async def follow(client: int, socket: ClientConnection, recorder: Recorder) -> None:
    """Take in all that comes until the connection ends."""
    receive, record, clock_ns = socket.recv, recorder.record, time.time_ns
    try:
        while True:
            packet = await receive(decode=False)
            received_ns = clock_ns()
            if packet.startswith(TELEMETRY_PREFIX):
                recorder.telemetry += 1
            elif packet.startswith(ALARM_PREFIX):
                record(client, packet[len(EVENT_PREFIX) :], received_ns)
            elif packet == PING_PACKET:
                await socket.send(PONG_PACKET)
    except ConnectionClosed as closed:
        recorder.disconnected.append(f"client {client}: {closed}")


async def run(order: ClientOrder) -> None:
    """Connect all, follow them until standard input ends, write the receipts."""
    recorder = Recorder()
    sockets: list[ClientConnection] = []
    tasks: list[asyncio.Task[None]] = []
    try:
        for client in range(order.first_client, order.first_client + order.count):
            socket = await open_connection(order.url, order.token)
            sockets.append(socket)
            tasks.append(asyncio.create_task(follow(client, socket, recorder)))
    except (RefusedError, OSError, TimeoutError) as error:
        tell({"event": "refused", "reason": f"client {len(sockets)}: {error}"})
        raise SystemExit(1) from None
    tell({"event": "ready"})
    await answer_marks(recorder)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*(socket.close() for socket in sockets))
    recorder.write(Path(order.receipts_file), time.process_time())


async def answer_marks(recorder: Recorder) -> None:
    """Tell the counters for every line on standard input; return at its end."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    while await reader.readline():
        tell({"event": "mark", "telemetry": recorder.telemetry})


def tell(message: object) -> None:
    """Write one JSON line to standard output."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def read_order() -> ClientOrder:
    """The order: the first line of standard input, read unbuffered so that no later line is swallowed."""
    line = bytearray()
    while (byte := os.read(sys.stdin.fileno(), 1)) and byte != b"\n":
        line += byte
    return msgspec.json.decode(line, type=ClientOrder)


if __name__ == "__main__":
    uvloop.run(run(read_order()))

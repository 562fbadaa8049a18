"""Ready WebSocket frames straight to a connection's transport.

In: the ASGI `send` callable of an accepted WebSocket. Out: a `DirectWriter`, or None where the server is
not one whose inside is known; the caller then writes through ASGI.
Guarantees: frames go out in the order of the calls, also in relation to what the server itself wrote
before; nothing is written after a close frame. No await, no task, no copy per recipient.
Not here: what is written (`socket_packet`), the bound on what waits (`socket_channel`).

This is the only place that reaches into a library: uvicorn's sans-I/O WebSocket protocol. It is safe
because that protocol keeps no buffer of its own, writes whole messages only, and runs here without
extensions (no compression), which is checked. A test holds it to the installed version.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State


class DirectWriter:
    """Writes to one connection."""

    __slots__ = ("_protocol", "_transport")

    def __init__(self, protocol: WebSocketsSansIOProtocol) -> None:
        self._protocol = protocol
        self._transport = protocol.transport

    def waiting_bytes(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def limit_kernel_buffer(self, size_bytes: int) -> None:
        """Let the kernel hold no more for a client that does not read: by itself it takes megabytes."""
        connection = self._transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size_bytes)

    def write(self, frames: bytes) -> bool:
        """Write ready frames; False when the connection is closing."""
        if self._protocol.close_sent or self._transport.is_closing():
            return False
        self._transport.write(frames)
        return True

    def close(self, code: int, reason: str, abort_after_s: float) -> None:
        """Send a close frame and drop the connection after `abort_after_s`, read or not.

        The orderly way waits for what is buffered, which a client that does not read never takes.
        """
        if self._protocol.close_sent or self._transport.is_closing():
            return
        self._protocol.conn.send_close(code, reason)
        self._transport.write(b"".join(self._protocol.conn.data_to_send()))
        # What the protocol does itself when an application closes, but with an abort that does not
        # wait for the buffer.
        self._protocol.close_sent = True
        self._protocol.close_timer = asyncio.get_running_loop().call_later(
            abort_after_s, self._transport.abort
        )


def reach(send: Any) -> DirectWriter | None:
    """The writer behind an ASGI `send`; None when it is not uvicorn's, not open, or compresses."""
    protocol = getattr(send, "__self__", None)
    if not isinstance(protocol, WebSocketsSansIOProtocol):
        return None
    if protocol.conn.state is not State.OPEN or protocol.conn.extensions:
        return None
    return DirectWriter(protocol)

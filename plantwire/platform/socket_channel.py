"""One WebSocket, between the web server and the Socket.IO library.

In: an ASGI WebSocket; events to write.
Out: `receive` and `send` for the library, with what clients send checked on the way in.
Guarantees: events are written in order, and only between the library's own CONNECT and DISCONNECT
packets of the namespace; at most `backlog_max_bytes` wait for a client, which is then disconnected as
slow; a socket without an accepted token lives for `connect_timeout_s`; malformed and oversized messages
close the socket and never reach the library.
Not here: tokens and recipients, which each server has of its own.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import orjson
import structlog
from prometheus_client import Counter
from starlette.types import Message, Receive, Send

from plantwire.platform.direct_writer import DirectWriter, reach
from plantwire.platform.socket_packet import Packet

SCOPE_KEY: Final = "plantwire.channel"
CLOSE_POLICY: Final = 1008
CLOSE_INVALID: Final = 1007
CLOSE_TOO_BIG: Final = 1009
CLOSE_SLOW: Final = 4008
ABORT_AFTER_S: Final = 2.0
BRACKETS_MAX: Final = 500

# Engine.IO ping, pong, upgrade, noop, close; or a Socket.IO packet: type, namespace, ack id, JSON.
_PACKET: Final = re.compile(
    r"(?:[12356](?:probe)?|4([0-3])(?:/[^,?]{0,64},?)?(?:\d{1,15})?([\[{\"].*)?)\Z", re.S
)

log = structlog.get_logger(__name__)


class ChannelCounters(Protocol):
    """What a channel counts."""

    accepted: Counter
    """Clients let in, by the path that events take to them: `direct` or `asgi`."""
    disconnected: Counter
    """Clients closed from here, by reason."""
    dropped: Counter
    """Messages of clients that are not passed on, by reason."""


class ChannelLimits(NamedTuple):
    """The bounds on one socket."""

    connect_timeout_s: float
    message_max_bytes: int
    backlog_max_bytes: int
    kernel_buffer_bytes: int | None = None
    """Send buffer of the kernel, where the listening socket does not set it."""


def is_packet(text: str) -> bool:
    """Whether `text` is an Engine.IO packet that a client may send, its JSON well-formed."""
    match = _PACKET.match(text)
    if match is None:
        return False
    kind, body = match.groups()
    if body is None:
        return kind not in {"2", "3"}
    if body.count("[") + body.count("{") > BRACKETS_MAX:
        # The library's parser recurses.
        return False
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    if kind == "2":
        return isinstance(value, list) and bool(value) and isinstance(value[0], str)
    return isinstance(value, list) if kind == "3" else True


class Channel:
    """See the module. `on_connected` is called at the moment the CONNECT packet has been written."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        limits: ChannelLimits,
        namespace: str,
        counters: ChannelCounters,
        on_connected: Callable[[Channel], None],
    ) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits
        self._counters = counters
        # Socket.IO's packets that open and close the namespace.
        self._connected_prefix = f"40{namespace},"
        self._disconnected_prefix = f"41{namespace}"
        self._on_connected = on_connected
        self._open = False
        self._closing = False
        self._direct: DirectWriter | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._queue: deque[str] = deque()
        self._queued_bytes = 0
        self._state_bytes = 0
        self._drain: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start the time within which a token must be accepted, anew where it runs already."""
        if self._closing:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._limits.connect_timeout_s, self._expire)

    def leave(self) -> None:
        """The client has left the namespace, its socket stays: it may connect again, but not idle on."""
        self._open = False
        self.start()

    def stop(self) -> None:
        """Release timers and tasks; the socket is gone."""
        self._open = False
        self._closing = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._drain is not None:
            self._drain.cancel()

    @property
    def is_open(self) -> bool:
        """Whether events may be written."""
        return self._open

    @property
    def is_direct(self) -> bool:
        """Whether events go straight to the transport."""
        return self._direct is not None

    async def send(self, message: Message) -> None:
        """The library's way out: passed on, and watched for the packets that open and close the namespace."""
        text = message.get("text")
        if text is not None and text.startswith(self._disconnected_prefix):
            self._open = False
            if self._drain is not None and not self._drain.done():
                await asyncio.wait([self._drain])
        await self._send(message)
        if text is not None and text.startswith(self._disconnected_prefix):
            self.start()
        if text is not None and text.startswith(self._connected_prefix):
            if self._deadline is not None:
                self._deadline.cancel()
            self._direct = reach(self._send)
            if self._direct is not None and self._limits.kernel_buffer_bytes is not None:
                self._direct.limit_kernel_buffer(self._limits.kernel_buffer_bytes)
            self._counters.accepted.labels("asgi" if self._direct is None else "direct").inc()
            self._open = True
            self._on_connected(self)

    async def receive(self) -> MutableMapping[str, Any]:
        """The client's next message; a disconnect when it is not one that may be sent."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return message
        text = message.get("text")
        if text is None:
            return await self._refuse("binary-message", CLOSE_INVALID)
        if len(text) > self._limits.message_max_bytes:
            return await self._refuse("message-too-big", CLOSE_TOO_BIG)
        if not is_packet(text):
            return await self._refuse("malformed-message", CLOSE_INVALID)
        return message

    def write(self, packets: Sequence[Packet], frames: bytes) -> bool:
        """Write events: `frames` are the frames of `packets`, joined. False when the client is gone."""
        if not self._open:
            return False
        # What waits already counts, not what is added.
        waiting_bytes = self._queued_bytes if self._direct is None else self._direct.waiting_bytes()
        # What left went first, so of a state no more can be left than waits in all.
        self._state_bytes = min(self._state_bytes, waiting_bytes)
        if waiting_bytes - self._state_bytes > self._limits.backlog_max_bytes:
            self.close(CLOSE_SLOW, "slow-client")
            return False
        if self._direct is not None:
            return self._direct.write(frames)
        for packet in packets:
            self._queue.append(packet.text.decode())
            self._queued_bytes += len(packet.text)
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._drain_queue())
        return True

    def write_state(self, packet: Packet) -> bool:
        """Write a whole state, as `write`. However large, it is no sign of slowness: of the bytes that wait,
        those of the last state do not count.
        """
        written = self.write([packet], packet.frame)
        if written:
            self._state_bytes = len(packet.frame)
        return written

    def close(self, code: int, reason: str) -> None:
        """Close the socket from our side; counted by reason, once."""
        if not self._begin_close(code, reason):
            return
        task = asyncio.create_task(self._send_close(code, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin_close(self, code: int, reason: str) -> bool:
        """Let nothing more be written; True when the close has to go through ASGI."""
        if self._closing:
            return False
        self._closing = True
        self._open = False
        self._counters.disconnected.labels(reason).inc()
        log.info("client.disconnected", reason=reason, code=code)
        if self._direct is not None:
            self._direct.close(code, reason, ABORT_AFTER_S)
            return False
        if self._drain is not None:
            self._drain.cancel()
        return True

    async def _drain_queue(self) -> None:
        while self._queue:
            text = self._queue[0]
            try:
                await self._send({"type": "websocket.send", "text": text})
            except OSError:
                # The server tells by OSError that the client is gone; `receive` tells the library.
                self._open = False
                self._queue.clear()
                self._queued_bytes = 0
                return
            self._queue.popleft()
            self._queued_bytes -= len(text.encode())

    async def _send_close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(ABORT_AFTER_S):
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except (OSError, RuntimeError, TimeoutError) as error:
            log.debug("close.unsent", error=str(error))

    def _expire(self) -> None:
        self.close(CLOSE_POLICY, "no-token-in-time")

    async def _refuse(self, reason: str, code: int) -> MutableMapping[str, Any]:
        self._counters.dropped.labels(reason).inc()
        if self._begin_close(code, reason):
            await self._send_close(code, reason)
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

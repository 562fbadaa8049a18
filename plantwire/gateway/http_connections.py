"""Bounds on connections that HTTP's server does not have: on silent ones, and on those of one address.

In: the server's connections. Out: the same, or closed.
Guarantees: a connection on which no request's header is complete `header_timeout_s` after it was opened, or
after the next request's first byte, is closed: silent senders cannot hold all connections. An address has
`per_address_max` connections at most, WebSockets among them; the loopback address any number, since what is
behind it is a proxy's to bound. Refusals are counted.
Not here: the bound on all connections and the wait for the next request (uvicorn), bodies (`http_body`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client import Counter as MetricCounter
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from plantwire.gateway.http_address import address_key, is_loopback

HEADER_TIMEOUT: Final = "header-timeout"
ADDRESS_FULL: Final = "address-full"
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"content-type: text/plain; charset=utf-8\r\n"
    b"content-length: 19\r\n"
    b"connection: close\r\n\r\nService Unavailable"
)


class ConnectionMetrics:
    """What became of connections."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.closed = MetricCounter(
            "plantwire_gateway_connections_closed",
            "Connections closed for want of a request, or as too many of one address.",
            ["reason"],
            registry=registry,
        )


class ConnectionBounds:
    """Counts connections by address; `per_address_max` 0 is no bound."""

    def __init__(self, header_timeout_s: float, per_address_max: int, metrics: ConnectionMetrics) -> None:
        self.header_timeout_s = header_timeout_s
        self._per_address_max = per_address_max
        self._metrics = metrics
        self._open: Counter[str] = Counter()

    def enter(self, host: str | None) -> str | None:
        """What to `leave` by at the connection's end; None where its address has too many already."""
        if host is None or not self._per_address_max or is_loopback(host):
            return ""
        key = address_key(host)
        if self._open[key] >= self._per_address_max:
            return None
        self._open[key] += 1
        return key

    def leave(self, key: str) -> None:
        """A connection that entered is gone."""
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]

    def note_closed(self, reason: str) -> None:
        """Count a connection that is closed from here."""
        self._metrics.closed.labels(reason).inc()

    def __len__(self) -> int:
        return len(self._open)


class BoundedHttpProtocol(HttpToolsProtocol):
    """One HTTP connection within `bounds`."""

    def __init__(self, bounds: ConnectionBounds, **server: Any) -> None:
        super().__init__(**server)
        self._bounds = bounds
        self._key: str | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._upgraded = False
        self.ws_protocol_class = self.ws_protocol_class and partial(  # type: ignore[assignment]
            BoundedWebSocketProtocol, self._leave
        )

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let the connection in, or not."""
        super().connection_made(transport)
        self._key = self._bounds.enter(self.client[0] if self.client else None)
        if self._key is None:
            self._bounds.note_closed(ADDRESS_FULL)
            transport.write(_BUSY)
            transport.close()
            return
        self._start_deadline()

    def data_received(self, data: bytes) -> None:
        """Parse; what is not a whole header yet has to become one in time."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._deadline is None and not self._upgraded and not self._serves():
            self._start_deadline()

    def on_headers_complete(self) -> None:
        """A request is there."""
        self._end_deadline()
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """From now on the transport, and its end, are the WebSocket's."""
        self._upgraded = True
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what the connection took."""
        self._end_deadline()
        self._leave()
        super().connection_lost(exc)

    def _serves(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(self._bounds.header_timeout_s, self._expire)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self._bounds.note_closed(HEADER_TIMEOUT)
            self.transport.close()

    def _leave(self) -> None:
        if self._key:
            self._bounds.leave(self._key)
        self._key = None


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket that an HTTP connection became."""

    def __init__(self, leave: Callable[[], None], **server: Any) -> None:
        super().__init__(**server)
        self._leave = leave

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what the connection took."""
        self._leave()
        super().connection_lost(exc)

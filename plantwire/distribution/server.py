"""The parts of the distribution process put together into one ASGI application.

In: settings. Out: an ASGI application: Socket.IO at /socket.io/, the rest by `http_api`.
Guarantees: every HTTP answer carries the security headers; a WebSocket is taken only from an allowed
origin (or without one, from a program) and only while there is room.
Not here: the listening socket and signals (`__main__`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

import redis.asyncio
import socketio
import structlog
from fastapi import FastAPI
from redis.exceptions import RedisError
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from plantwire.distribution.fanout import Fanout
from plantwire.distribution.history import History
from plantwire.distribution.history_store import HistoryStore
from plantwire.distribution.http_api import build_api
from plantwire.distribution.hub import Hub
from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.packets import NAMESPACE
from plantwire.distribution.picture import LivePicture
from plantwire.distribution.presence import Presence
from plantwire.distribution.redis_feed import RedisFeed
from plantwire.distribution.sessions import TelemetryNamespace
from plantwire.distribution.settings import DistributionSettings, KeptSettings
from plantwire.platform.settings import SharedSettings
from plantwire.platform.socket_channel import SCOPE_KEY, Channel, ChannelLimits
from plantwire.platform.tokens import Claims, TokenAuthority

SOCKET_PATH: Final = "/socket.io/"
REDIS_TIMEOUT_S: Final = 3.0
# WebSockets that have not shown a token yet, beyond those of clients.
UNPROVEN_MAX: Final = 500
# Swagger UI comes from its publisher's CDN and starts by an inline script; no other page may do either.
_DOCS_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; "
    "img-src 'self' data: https://fastapi.tiangolo.com; "
    "frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
)

log = structlog.get_logger(__name__)


def _now_ms() -> float:
    return time.time() * 1000


class DistributionServer:
    """The ASGI application; `port` is the one that is really listened on."""

    def __init__(
        self, settings: DistributionSettings, shared: SharedSettings, kept: KeptSettings, port: int
    ) -> None:
        self.metrics = DistributionMetrics()
        self._settings = settings
        self._limits = ChannelLimits(
            settings.connect_timeout_s, settings.message_max_bytes, settings.backlog_max_bytes
        )
        self._redis = redis.asyncio.Redis.from_url(
            shared.redis,
            decode_responses=False,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_keepalive=True,
        )
        picture = LivePicture()

        def initial_state(claims: Claims) -> bytes | None:
            if not picture.loaded:
                return None
            return picture.initial_state(claims, int(_now_ms()), self._hub.live)

        self._fanout = Fanout(
            self.metrics, initial_state, settings.telemetry_flush_ms / 1000, settings.telemetry_pending_max
        )
        self._hub = Hub(picture, self._fanout, self.metrics, _now_ms)
        self._feed = RedisFeed(self._redis, self._hub, self.metrics)
        self._presence = Presence(self._redis, self.metrics, settings.presence_expiry_s)
        authority = TokenAuthority(shared.require_token_secret(), shared.token_issuer, shared.token_audience)
        self._namespace = TelemetryNamespace(
            authority,
            self._fanout,
            History(self._redis, self.metrics),
            self._presence,
            self.metrics,
            settings.clients_max,
        )
        self._store = HistoryStore(
            shared.database,
            settings.history_connections_max,
            settings.history_waiting_max,
            settings.history_wait_s,
            settings.history_statement_timeout_s,
        )
        origins = settings.allowed_origins(port)
        self._socketio = socketio.AsyncServer(
            async_mode="asgi",
            transports=["websocket"],
            ping_interval=settings.ping_interval_s,
            ping_timeout=settings.ping_timeout_s,
            max_http_buffer_size=settings.message_max_bytes,
            cors_allowed_origins=origins,
            namespaces=[],
            # A client's events are handled one after the other: it cannot start more work than one.
            async_handlers=False,
        )
        self._socketio.register_namespace(self._namespace)
        self._api = build_api(
            picture,
            self._hub,
            authority,
            self.metrics,
            settings.dashboard,
            self._redis,
            self._redis_answers,
            self._lifespan,
            self._store,
            settings.history_page_max,
            kept.by_tier(),
            _now_ms,
        )
        self._channels: set[Channel] = set()
        self._policy = _page_policy(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, request, or the life of the process."""
        if scope["type"] == "lifespan":
            await self._api(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
        elif scope["path"].startswith(SOCKET_PATH):
            await self._socketio.handle_request(scope, receive, self._with_headers(scope, send))
        else:
            await self._api(scope, receive, self._with_headers(scope, send))

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        full = len(self._channels) >= self._settings.clients_max + UNPROVEN_MAX
        if full or not scope["path"].startswith(SOCKET_PATH):
            self.metrics.refused.labels("sockets-full" if full else "path").inc()
            await receive()
            await send({"type": "websocket.close", "code": 1013 if full else 1008})
            return
        channel = Channel(receive, send, self._limits, NAMESPACE, self.metrics, self._namespace.connected)
        self._channels.add(channel)
        self.metrics.sockets.set(len(self._channels))
        channel.start()
        scope[SCOPE_KEY] = channel
        try:
            await self._socketio.handle_request(scope, channel.receive, channel.send)
        finally:
            channel.stop()
            self._channels.discard(channel)
            self.metrics.sockets.set(len(self._channels))

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        policy = _DOCS_POLICY if scope["path"] == "/docs" else self._policy

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = policy
                headers["X-Content-Type-Options"] = "nosniff"
                headers["X-Frame-Options"] = "DENY"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Cross-Origin-Opener-Policy"] = "same-origin"
            await send(message)

        return send_with_headers

    async def _redis_answers(self) -> bool:
        try:
            return bool(await self._redis.ping())
        except (RedisError, OSError):
            return False

    @contextlib.asynccontextmanager
    async def _lifespan(self, _api: FastAPI) -> AsyncIterator[None]:
        work = [
            asyncio.create_task(self._feed.run(), name="redis feed"),
            asyncio.create_task(self._fanout.run(), name="fan-out"),
            asyncio.create_task(self._presence.run(), name="presence"),
        ]
        for task in work:
            task.add_done_callback(_report_end)
        await self._store.open()
        log.info("distribution.started")
        try:
            yield
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self._socketio.shutdown()
            await self._store.close()
            await self._redis.aclose()
            log.info("distribution.stopped")


def _report_end(task: asyncio.Task[None]) -> None:
    """A part that ended by itself is a defect: the process must not go on half alive."""
    if task.cancelled():
        return
    log.critical("distribution.part_failed", part=task.get_name(), exc_info=task.exception())
    asyncio.get_running_loop().call_soon(_die)


def _die() -> None:
    raise SystemExit(70)


def _page_policy(origins: list[str]) -> str:
    sockets = " ".join("ws" + origin.removeprefix("http") for origin in origins if origin.startswith("http"))
    return (
        f"default-src 'self'; connect-src 'self' {sockets}; img-src 'self' data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
    )

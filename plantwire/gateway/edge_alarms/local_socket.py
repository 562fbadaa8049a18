"""The local WebSocket: Socket.IO at /socket.io, namespace /edge, on the gateway's own port.

In: AlarmEvents of this gateway; clients with a token. Out: `initial-state` {serverTime, rules, alarms} to
each client, then `alarm`, `alarm-updated`, `alarm-cleared`, with alarms as `schemas.wire` has them.
Guarantees: an event is encoded once and written at once, without an await, to those whose token covers its
device; it is in the initial state or comes after it. Only an allowed origin, or none, gets in; nobody stays
without a valid token, nor past its expiry; at most `gateway_edge_clients_max` clients. A client that does not
read is disconnected at its bound, and others do not wait for it. Nothing here needs Kafka or Redis.
Not here: one socket's bytes (`platform.socket_channel`), detection (`detection`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
import socketio
import structlog
from socketio.exceptions import ConnectionRefusedError as Refused
from starlette.types import Receive, Scope, Send

from plantwire.gateway.edge_alarms.metrics import EdgeAlarmMetrics
from plantwire.gateway.edge_alarms.settings import EdgeAlarmSettings
from plantwire.gateway.http_address import address_key, is_loopback
from plantwire.platform.socket_channel import SCOPE_KEY, Channel, ChannelLimits
from plantwire.platform.socket_packet import Packet
from plantwire.platform.tokens import Claims, TokenAuthority, TokenError
from plantwire.schemas.records import AlarmEvent, AlarmKind
from plantwire.schemas.wire import alarm_to_wire

SOCKET_PATH: Final = "/socket.io/"
NAMESPACE: Final = "/edge"
AT_CAPACITY: Final = "Server at capacity"
PING_INTERVAL_S: Final = 15.0
PING_TIMEOUT_S: Final = 20.0
MESSAGE_MAX_BYTES: Final = 16 * 1024
KERNEL_BUFFER_BYTES: Final = 128 * 1024
# WebSockets that have not shown a token yet, beyond those of clients.
UNPROVEN_MAX: Final = 50
# Those of one address, so that it cannot keep others out; not the loopback one, which may be a proxy's.
UNPROVEN_PER_ADDRESS_MAX: Final = 20
# A timer of the event loop is asked for no further ahead than this; then the expiry is looked at again.
TIMER_MAX_S: Final = 3600.0
CLOSE_GOING_AWAY: Final = 1012

EVENT_INITIAL_STATE: Final = "initial-state"
EVENT_SESSION_ENDED: Final = "session-ended"
EVENT_OF_KIND: Final = {
    AlarmKind.RAISED: "alarm",
    AlarmKind.SEVERITY_CHANGED: "alarm-updated",
    AlarmKind.CLEARED: "alarm-cleared",
}

log = structlog.get_logger(__name__)


class _Session:
    """A client with an accepted token."""

    __slots__ = ("channel", "claims", "joined", "sid", "timer")

    def __init__(self, sid: str, claims: Claims, channel: Channel) -> None:
        self.sid = sid
        self.claims = claims
        self.channel = channel
        self.joined = False
        self.timer: asyncio.TimerHandle | None = None


class LocalSocket:
    """The ASGI application for WebSockets of the gateway. `active` gives the active alarms, `rules` how many
    rules are in force, None while none were ever received.
    """

    def __init__(
        self,
        settings: EdgeAlarmSettings,
        port: int,
        authority: TokenAuthority,
        metrics: EdgeAlarmMetrics,
        active: Callable[[], Sequence[AlarmEvent]],
        rules: Callable[[], int | None],
    ) -> None:
        self._authority = authority
        self._metrics = metrics
        self._active = active
        self._rules = rules
        self._clients_max = settings.gateway_edge_clients_max
        self._limits = ChannelLimits(
            settings.gateway_edge_connect_timeout_s,
            MESSAGE_MAX_BYTES,
            settings.gateway_edge_backlog_max_bytes,
            KERNEL_BUFFER_BYTES,
        )
        self._channels: dict[Channel, str] = {}
        self._sessions: dict[str, _Session] = {}
        self._by_channel: dict[Channel, _Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._socketio = socketio.AsyncServer(
            async_mode="asgi",
            transports=["websocket"],
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            max_http_buffer_size=MESSAGE_MAX_BYTES,
            cors_allowed_origins=settings.edge_origins(port),
            namespaces=[],
            async_handlers=False,
        )
        self._socketio.register_namespace(_Namespace(self))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        host = str((scope.get("client") or ("",))[0])
        full = self._is_full(host)
        if full or not scope["path"].startswith(SOCKET_PATH):
            self._metrics.refused.labels("sockets-full" if full else "path").inc()
            await receive()
            await send({"type": "websocket.close", "code": 1013 if full else 1008})
            return
        channel = Channel(receive, send, self._limits, NAMESPACE, self._metrics, self._join)
        self._channels[channel] = address_key(host)
        channel.start()
        scope[SCOPE_KEY] = channel
        try:
            await self._socketio.handle_request(scope, channel.receive, channel.send)
        finally:
            channel.stop()
            del self._channels[channel]

    def tell(self, event: AlarmEvent) -> None:
        """Write an event to every client that may see its device, now."""
        if not self._sessions:
            return
        alarm = alarm_to_wire(event)
        alarm["hops"]["emitted"] = time.time_ns() / 1e6
        packet = Packet(NAMESPACE, EVENT_OF_KIND.get(event.kind, "alarm-updated"), orjson.dumps(alarm))
        for session in tuple(self._sessions.values()):
            if session.joined and session.claims.may_access(event.device_id):
                session.channel.write([packet], packet.frame)

    async def close(self) -> None:
        """Let every client go: it may connect again, to this gateway's next process. Once."""
        if self._closed:
            return
        self._closed = True
        for channel in tuple(self._channels):
            channel.close(CLOSE_GOING_AWAY, "closing")
        await self._socketio.shutdown()

    def connect(self, sid: str, environ: dict[str, Any], auth: object) -> None:
        """Let a client in, or raise Socket.IO's refusal."""
        if len(self._sessions) >= self._clients_max:
            raise self._refusal("capacity", AT_CAPACITY)
        try:
            claims = self._authority.verify(auth.get("token") if isinstance(auth, dict) else None)
        except TokenError as error:
            raise self._refusal("token", str(error)) from None
        channel: Channel = environ["asgi.scope"][SCOPE_KEY]
        session = self._sessions[sid] = self._by_channel[channel] = _Session(sid, claims, channel)
        self._metrics.clients.set(len(self._sessions))
        self._watch_expiry(session)
        log.info("edge-client-connected", sid=sid, subject=claims.subject)

    def disconnect(self, sid: str) -> None:
        """Forget a client; harmless when it is not known."""
        session = self._sessions.pop(sid, None)
        if session is None:
            return
        if session.timer is not None:
            session.timer.cancel()
        if self._by_channel.get(session.channel) is session:
            del self._by_channel[session.channel]
        session.channel.leave()
        self._metrics.clients.set(len(self._sessions))

    def _is_full(self, host: str) -> bool:
        if self._closed or len(self._channels) >= self._clients_max + UNPROVEN_MAX:
            return True
        if is_loopback(host):
            return False
        key = address_key(host)
        unproven = sum(not channel.is_open for channel, address in self._channels.items() if address == key)
        return unproven >= UNPROVEN_PER_ADDRESS_MAX

    def _join(self, channel: Channel) -> None:
        """The CONNECT packet has been written: the state goes next, and events from now on."""
        session = self._by_channel.get(channel)
        if session is None:
            return
        visible = [alarm for alarm in self._active() if session.claims.may_access(alarm.device_id)]
        visible.sort(key=lambda alarm: (alarm.severity, -alarm.event_time_ms))
        state = {
            "serverTime": time.time_ns() // 1_000_000,
            "rules": self._rules(),
            "alarms": [alarm_to_wire(alarm) for alarm in visible],
        }
        channel.write_state(Packet(NAMESPACE, EVENT_INITIAL_STATE, orjson.dumps(state)))
        session.joined = True

    def _refusal(self, reason: str, text: str) -> Refused:
        self._metrics.refused.labels(reason).inc()
        log.info("edge-client-refused", reason=text)
        return Refused(text)

    def _watch_expiry(self, session: _Session) -> None:
        left_s = session.claims.expires_at_s - time.time()
        if left_s > 0:
            session.timer = asyncio.get_running_loop().call_later(
                min(left_s, TIMER_MAX_S), self._watch_expiry, session
            )
            return
        task = asyncio.create_task(self._expire(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _expire(self, session: _Session) -> None:
        self._metrics.disconnected.labels("token-expired").inc()
        packet = Packet(NAMESPACE, EVENT_SESSION_ENDED, orjson.dumps({"reason": "token-expired"}))
        session.channel.write([packet], packet.frame)
        # A DISCONNECT packet: the client's library then does not try the same token again by itself.
        await self._socketio.disconnect(session.sid, namespace=NAMESPACE)


class _Namespace(socketio.AsyncNamespace):  # type: ignore[misc]
    """Socket.IO's callbacks, handed on."""

    def __init__(self, local: LocalSocket) -> None:
        super().__init__(NAMESPACE)
        self._local = local

    async def trigger_event(self, event: str, *args: Any) -> Any:
        """Every event of the namespace. Clients listen; what they send is answered with an error."""
        if event == "connect":
            sid, environ, *auth = args
            return self._local.connect(sid, environ, auth[0] if auth else None)
        if event == "disconnect":
            self._local.disconnect(args[0])
            return None
        return {"error": "unknown event"}

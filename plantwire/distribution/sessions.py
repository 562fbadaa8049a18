"""The Socket.IO namespace /telemetry: who is let in, for how long, and what they may ask.

In: CONNECT packets with `auth: {token}`, events from clients.
Out: recipients of the fan-out; refusals and ends with a reason.
Guarantees: nobody joins without a valid token, nor stays past its expiry; who leaves without closing the
socket has the time of a new one to join again; at most `clients_max` clients;
no event from a client raises: unknown, malformed and refused ones are counted.
Not here: what clients receive (`hub`, `fanout`).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import orjson
import socketio
import structlog
from redis.exceptions import RedisError
from socketio.exceptions import ConnectionRefusedError as Refused

from plantwire.distribution.fanout import Fanout, Recipient
from plantwire.distribution.history import HISTORY_REQUEST_MAX, History
from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.packets import EVENT_CATCH_UP, EVENT_SESSION_ENDED, NAMESPACE, Packet
from plantwire.distribution.presence import Presence
from plantwire.platform.socket_channel import SCOPE_KEY, Channel
from plantwire.platform.tokens import Claims, TokenAuthority, TokenError

AT_CAPACITY: Final = "Server at capacity"
# A timer of the event loop is asked for no further ahead than this; then the expiry is looked at again.
TIMER_MAX_S: Final = 3600.0
REQUESTS_PER_MINUTE: Final = 60

log = structlog.get_logger(__name__)


class _Session:
    """A client with an accepted token."""

    __slots__ = ("channel", "recipient", "requests", "requests_since_s", "timer")

    def __init__(self, recipient: Recipient, channel: Channel) -> None:
        self.recipient = recipient
        self.channel = channel
        self.timer: asyncio.TimerHandle | None = None
        self.requests = 0
        self.requests_since_s = 0.0


class TelemetryNamespace(socketio.AsyncNamespace):  # type: ignore[misc]
    """See the module."""

    def __init__(
        self,
        authority: TokenAuthority,
        fanout: Fanout,
        history: History,
        presence: Presence,
        metrics: DistributionMetrics,
        clients_max: int,
    ) -> None:
        super().__init__(NAMESPACE)
        self._authority = authority
        self._fanout = fanout
        self._history = history
        self._presence = presence
        self._metrics = metrics
        self._clients_max = clients_max
        self._sessions: dict[str, _Session] = {}
        # Accepted, its CONNECT packet not written yet; left by `connected` or `_disconnect`.
        self._entering: dict[Channel, _Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def trigger_event(self, event: str, *args: Any) -> Any:
        """Every event of the namespace; a client's are answered with an acknowledgement where it asks."""
        if event == "connect":
            return self._connect(*args)
        if event == "disconnect":
            self._disconnect(args[0])
            return None
        if event == "request-missing":
            return await self._request_missing(args[0], args[1:])
        # The name is the client's own: not a label, which would grow without bound.
        self._metrics.client_events.labels("other", "unknown").inc()
        return {"error": "unknown event"}

    def connected(self, channel: Channel) -> None:
        """The CONNECT packet of a client has been written on `channel`: let it in."""
        session = self._entering.pop(channel, None)
        if session is not None:
            self._fanout.join(session.recipient)

    def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        if len(self._sessions) >= self._clients_max:
            raise self._refusal("capacity", AT_CAPACITY)
        try:
            claims = self._authority.verify(auth.get("token") if isinstance(auth, dict) else None)
        except TokenError as error:
            raise self._refusal("token", str(error)) from None
        channel: Channel = environ["asgi.scope"][SCOPE_KEY]
        session = self._sessions[sid] = _Session(Recipient(sid, claims, channel), channel)
        self._entering[channel] = session
        self._metrics.connections.set(len(self._sessions))
        self._watch_expiry(session)
        self._presence.arrived(sid, claims.subject)
        log.info("client.connected", sid=sid, subject=claims.subject, devices=_devices(claims))

    def _disconnect(self, sid: str) -> None:
        session = self._sessions.pop(sid, None)
        if session is None:
            return
        if session.timer is not None:
            session.timer.cancel()
        if self._entering.get(session.channel) is session:
            del self._entering[session.channel]
        self._fanout.leave(sid)
        session.channel.leave()
        self._metrics.connections.set(len(self._sessions))
        self._presence.left(sid, session.recipient.claims.subject)

    def _refusal(self, reason: str, text: str) -> Refused:
        self._metrics.refused.labels(reason).inc()
        log.info("client.refused", reason=text)
        return Refused(text)

    def _watch_expiry(self, session: _Session) -> None:
        left_s = session.recipient.claims.expires_at_s - time.time()
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
        packet = Packet(EVENT_SESSION_ENDED, orjson.dumps({"reason": "token-expired"}))
        session.channel.write([packet], packet.frame)
        # A DISCONNECT packet: the client's library then does not try the same token again by itself.
        await self.disconnect(session.recipient.sid)

    async def _request_missing(self, sid: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
        """`{deviceId, from, to}` → `catch-up` [messages], and `{recovered: n}` as acknowledgement."""
        session = self._sessions.get(sid)
        outcome, answer = "malformed", {"error": "expected {deviceId, from, to}"}
        request = arguments[0] if len(arguments) == 1 else None
        if session is not None and isinstance(request, dict):
            device_id, first, last = (request.get(name) for name in ("deviceId", "from", "to"))
            if not isinstance(device_id, str) or type(first) is not int or type(last) is not int:
                pass
            elif not session.recipient.claims.may_access(device_id):
                outcome, answer = "forbidden", {"error": "the token does not cover this device"}
            elif not 1 <= first <= last or last - first >= HISTORY_REQUEST_MAX:
                outcome, answer = "too-many", {"error": f"at most {HISTORY_REQUEST_MAX} messages, from 1"}
            elif not self._within_rate(session):
                outcome, answer = "rate", {"error": f"at most {REQUESTS_PER_MINUTE} requests a minute"}
            else:
                return await self._catch_up(session, device_id, first, last)
        self._metrics.client_events.labels("request-missing", outcome).inc()
        return answer

    async def _catch_up(self, session: _Session, device_id: str, first: int, last: int) -> dict[str, Any]:
        try:
            messages = await self._history.messages(device_id, first, last)
        except (RedisError, OSError):
            self._metrics.client_events.labels("request-missing", "unavailable").inc()
            return {"error": "history is not available at the moment"}
        packet = Packet(EVENT_CATCH_UP, b"[" + b",".join(messages) + b"]")
        if session.channel.write([packet], packet.frame):
            self._metrics.sent.labels(EVENT_CATCH_UP).inc()
        self._metrics.client_events.labels("request-missing", "answered").inc()
        return {"recovered": len(messages)}

    @staticmethod
    def _within_rate(session: _Session) -> bool:
        now_s = time.monotonic()
        if now_s - session.requests_since_s >= 60:
            session.requests, session.requests_since_s = 0, now_s
        session.requests += 1
        return session.requests <= REQUESTS_PER_MINUTE


def _devices(claims: Claims) -> int | str:
    return "*" if claims.every_device else len(claims.devices)

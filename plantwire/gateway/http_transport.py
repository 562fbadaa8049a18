"""HTTP telemetry: POST /api/v1/devices/{id}/telemetry, the hot path, as a plain ASGI endpoint.

In: a Bearer token and a JSON body. Out: frames to the forwarder; 202 with how many, or problem+json.
Guarantees: 202 only once Kafka acknowledged every frame of the request; any other answer promises
nothing. A body is counted while it streams in, whatever its Content-Length says, and never held beyond
the limit; all bodies together are bounded too.
Not here: the other paths and the OpenAPI page (`http_app`), the body's meaning (`decode_json`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import Receive, Scope, Send

from plantwire.gateway.decode_json import decode_telemetry
from plantwire.gateway.forwarder import Forwarder, UnavailableError
from plantwire.gateway.http_problem import Headers, send_json, send_problem
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.token_cache import EXPIRED, TokenCache
from plantwire.platform.tokens import Claims, Role, TokenError
from plantwire.schemas.identifiers import is_device_id

TRANSPORT: Final = "http"
PATH_PREFIX: Final = b"/api/v1/devices/"
PATH_SUFFIX: Final = b"/telemetry"
RETRY_AFTER_S: Final = 1
DISCARD_MAX_BYTES: Final = 64 * 1024 * 1024
BODY_MEMORY_FULL: Final = "body-memory-full"

STATUS_OF_REASON: Final[dict[Reason, int]] = {
    Reason.NOT_JSON: 400,
    Reason.NOT_A_NUMBER: 400,
    Reason.BAD_SHAPE: 400,
    Reason.TOKEN_MISSING: 401,
    Reason.TOKEN_INVALID: 401,
    Reason.TOKEN_EXPIRED: 401,
    Reason.ROLE_TOO_LOW: 403,
    Reason.OTHER_DEVICE: 403,
    Reason.METHOD_NOT_ALLOWED: 405,
    Reason.BODY_TIMEOUT: 408,
    Reason.BODY_TOO_LARGE: 413,
    Reason.UNSUPPORTED_MEDIA_TYPE: 415,
    Reason.DUPLICATE_KEY: 422,
    Reason.INVALID_DEVICE_ID: 422,
    Reason.INVALID_METRIC_NAME: 422,
    Reason.INVALID_TEXT: 422,
    Reason.TOO_MANY_METRICS: 422,
    Reason.TOO_MANY_FRAMES: 422,
    Reason.FRAME_TOO_LARGE: 422,
    Reason.TIMESTAMP_OUT_OF_RANGE: 422,
    Reason.TIMESTAMP_AHEAD: 422,
}
_CLOSE: Final = ((b"connection", b"close"),)
_ACCEPTED_ONE: Final = b'{"accepted":1}'


class _RefusalError(Exception):
    def __init__(self, reason: Reason, detail: str, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.rejected = Rejected(reason, detail)
        self.headers = headers


class _BodyMemoryFullError(Exception):
    """All bodies together are at their bound."""


class _DisconnectedError(Exception):
    """The client went away before its body was complete: there is nobody to answer."""


def is_telemetry_path(raw_path: bytes) -> bool:
    """Whether a path is the endpoint's. What stands between prefix and suffix is the id, valid or not."""
    return (
        raw_path.startswith(PATH_PREFIX)
        and raw_path.endswith(PATH_SUFFIX)
        and len(raw_path) >= len(PATH_PREFIX) + len(PATH_SUFFIX)
    )


class TelemetryEndpoint:
    """The ASGI endpoint; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        settings: GatewaySettings,
        tokens: TokenCache,
        forwarder: Forwarder,
        metrics: GatewayMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tokens
        self._forwarder = forwarder
        self._metrics = metrics
        self._clock = clock
        self._limits = settings.decode_limits()
        self._body_limit_bytes = settings.gateway_body_limit_bytes
        self._body_timeout_s = settings.gateway_body_timeout_s
        self._body_memory_bytes = settings.gateway_body_memory_bytes
        self._bodies_bytes = 0
        self._accepted = metrics.accepted.labels(TRANSPORT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        received_us = time.time_ns() // 1000
        held = _Held(self)
        try:
            await self._serve(scope, receive, send, held, received_us)
        except _RefusalError as refusal:
            rejected = refusal.rejected
            self._metrics.rejected.labels(TRANSPORT, rejected.reason.value).inc()
            status = STATUS_OF_REASON[rejected.reason]
            await send_problem(send, status, rejected.reason.value, rejected.detail, refusal.headers)
        except UnavailableError as unavailable:
            await self._send_unavailable(send, unavailable.obstacle.value, unavailable.detail)
        except _BodyMemoryFullError:
            detail = "The gateway is holding as many requests as it may; try again."
            await self._send_unavailable(send, BODY_MEMORY_FULL, detail, _CLOSE)
        except _DisconnectedError:
            return
        finally:
            held.release()

    async def _serve(self, scope: Scope, receive: Receive, send: Send, held: _Held, received_us: int) -> None:
        if scope["method"] != "POST":
            raise _RefusalError(
                Reason.METHOD_NOT_ALLOWED, "This path takes POST only.", headers=((b"allow", b"POST"),)
            )
        headers: dict[bytes, bytes] = dict(scope["headers"])
        claims = self._authenticate(headers)
        device_id = _device_id(scope["raw_path"])
        if not claims.may_access(device_id):
            raise _RefusalError(Reason.OTHER_DEVICE, "The token does not cover this device.")
        _check_media_type(headers)
        body = await self._body(headers, receive, held)
        outcome = decode_telemetry(body, device_id, TRANSPORT, received_us, self._limits)
        if isinstance(outcome, Rejected):
            raise _RefusalError(outcome.reason, outcome.detail)
        await self._forwarder.put(outcome)
        self._accepted.inc(len(outcome))
        answer = _ACCEPTED_ONE if len(outcome) == 1 else b'{"accepted":%d}' % len(outcome)
        await send_json(send, 202, answer, "application/json")

    def _authenticate(self, headers: dict[bytes, bytes]) -> Claims:
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _RefusalError(
                Reason.TOKEN_MISSING,
                "The request needs an Authorization header with a Bearer token.",
                ((b"www-authenticate", b'Bearer realm="plantwire"'),),
            )
        try:
            claims = self._tokens.verify(token.strip(), self._clock())
        except TokenError as error:
            reason = Reason.TOKEN_EXPIRED if str(error) == EXPIRED else Reason.TOKEN_INVALID
            raise _RefusalError(
                reason,
                f"{str(error).capitalize()}.",
                ((b"www-authenticate", b'Bearer realm="plantwire", error="invalid_token"'),),
            ) from None
        if claims.role < Role.DEVICE:
            raise _RefusalError(
                Reason.ROLE_TOO_LOW, "Sending telemetry takes the role device or a higher one."
            )
        return claims

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, held: _Held) -> bytes:
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._body_limit_bytes:
            if headers.get(b"expect"):
                # The client is waiting for leave to send; refusing before asking spares it the upload.
                raise self._too_large(_CLOSE)
            await self._discard(receive)
        try:
            async with asyncio.timeout(self._body_timeout_s):
                chunk, more = await _next_chunk(receive)
                held.take(len(chunk))
                if not more and len(chunk) <= self._body_limit_bytes:
                    return chunk
                return await self._longer_body(chunk, more, receive, held)
        except TimeoutError:
            raise _RefusalError(
                Reason.BODY_TIMEOUT, f"The body was not complete after {self._body_timeout_s:g} s.", _CLOSE
            ) from None

    async def _longer_body(self, first: bytes, more: bool, receive: Receive, held: _Held) -> bytes:
        chunks, size_bytes = [first], len(first)
        while size_bytes <= self._body_limit_bytes:
            if not more:
                return b"".join(chunks)
            chunk, more = await _next_chunk(receive)
            size_bytes += len(chunk)
            held.take(len(chunk))
            chunks.append(chunk)
        chunks.clear()
        held.release()
        await self._discard(receive, more)
        raise self._too_large()

    async def _discard(self, receive: Receive, more: bool = True) -> None:
        """Read a body that is too large to its end, keeping nothing; always raises.

        Answering before the client has finished sending would make many clients see a broken
        connection in place of the answer. Who sends on for ever is cut off.
        """
        discarded_bytes = 0
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while more and discarded_bytes <= DISCARD_MAX_BYTES:
                    chunk, more = await _next_chunk(receive)
                    discarded_bytes += len(chunk)
        except TimeoutError:
            more = True
        raise self._too_large(_CLOSE if more else ())

    def _too_large(self, headers: Headers = ()) -> _RefusalError:
        return _RefusalError(
            Reason.BODY_TOO_LARGE, f"A body has at most {self._body_limit_bytes} bytes.", headers
        )

    async def _send_unavailable(self, send: Send, reason: str, detail: str, headers: Headers = ()) -> None:
        self._metrics.unavailable.labels(TRANSPORT, reason).inc()
        retry_after = (b"retry-after", str(RETRY_AFTER_S).encode())
        await send_problem(send, 503, reason, detail, (retry_after, *headers))

    def reserve(self, size_bytes: int) -> None:
        """Count body bytes in; raises `_BodyMemoryFullError`."""
        if self._bodies_bytes + size_bytes > self._body_memory_bytes:
            raise _BodyMemoryFullError
        self._bodies_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Count body bytes out."""
        self._bodies_bytes -= size_bytes


class _Held:
    """The body bytes that one request holds."""

    __slots__ = ("_endpoint", "_size_bytes")

    def __init__(self, endpoint: TelemetryEndpoint) -> None:
        self._endpoint = endpoint
        self._size_bytes = 0

    def take(self, size_bytes: int) -> None:
        self._endpoint.reserve(size_bytes)
        self._size_bytes += size_bytes

    def release(self) -> None:
        self._endpoint.give_back(self._size_bytes)
        self._size_bytes = 0


def _device_id(raw_path: bytes) -> str:
    encoded = raw_path[len(PATH_PREFIX) : -len(PATH_SUFFIX)]
    device_id = unquote_to_bytes(encoded).decode("utf-8", errors="replace")
    if not is_device_id(device_id):
        raise _RefusalError(
            Reason.INVALID_DEVICE_ID,
            "A device id is 1 to 128 of A-Z a-z 0-9 . _ : @ -, the first a letter or a digit.",
        )
    return device_id


def _check_media_type(headers: dict[bytes, bytes]) -> None:
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise _RefusalError(Reason.UNSUPPORTED_MEDIA_TYPE, "The body must not be compressed.")
    # A missing Content-Type is read as JSON: small devices leave it out.
    declared = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if declared == b"application/json":
        return
    if not (declared.startswith(b"application/") and declared.endswith(b"+json")):
        raise _RefusalError(Reason.UNSUPPORTED_MEDIA_TYPE, "The body must be application/json.")


async def _next_chunk(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise _DisconnectedError
    return message.get("body", b""), message.get("more_body", False)

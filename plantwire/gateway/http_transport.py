"""HTTP telemetry, the hot path, as a plain ASGI endpoint.

In: POST /api/v1/devices/{id}/telemetry with the frames of one device, POST /api/v1/telemetry with those of
several; a Bearer token; JSON or Avro, plain or gzip. Out: frames to the forwarder; 202 with how many, or
problem+json.
Guarantees: 202 only once every frame of the request is durable; any other answer promises nothing. A token
has to cover every device of a request: it is taken whole or not at all.
Not here: the other paths and the OpenAPI page (`http_app`), tokens and rates (`http_gate`), reading the body
(`http_body`), the body's meaning (`decode_json`, `decode_avro`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import Receive, Scope, Send

from plantwire.gateway.decode_avro import decode_avro_file, decode_avro_frame
from plantwire.gateway.decode_json import decode_batch, decode_telemetry
from plantwire.gateway.forwarder import Forwarder, UnavailableError
from plantwire.gateway.http_body import BodyMemoryFullError, BodyReader, DisconnectedError, Held
from plantwire.gateway.http_gate import HttpGate
from plantwire.gateway.http_media import BodyForm, Media, read_form
from plantwire.gateway.http_problem import Headers, send_json, send_problem
from plantwire.gateway.http_refusal import RefusalError
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.slices import slices
from plantwire.gateway.token_cache import TokenCache
from plantwire.platform.tokens import Claims
from plantwire.schemas.identifiers import is_device_id
from plantwire.schemas.records import TelemetryFrame

TRANSPORT: Final = "http"
PATH_PREFIX: Final = b"/api/v1/devices/"
PATH_SUFFIX: Final = b"/telemetry"
BATCH_PATH: Final = b"/api/v1/telemetry"
RETRY_AFTER_S: Final = 1
DECODE_AT_ONCE_MAX_BYTES: Final = 32 * 1024
"""Larger bodies, and files that may unpack to larger ones, are decoded beside the event loop."""
BODY_MEMORY_FULL: Final = "body-memory-full"

STATUS_OF_REASON: Final[dict[Reason, int]] = {
    Reason.NOT_JSON: 400,
    Reason.NOT_A_NUMBER: 400,
    Reason.BAD_SHAPE: 400,
    Reason.NOT_AVRO: 400,
    Reason.GZIP_CORRUPT: 400,
    Reason.GZIP_INCOMPLETE: 400,
    Reason.GZIP_TRAILING: 400,
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
    Reason.UNKNOWN_SCHEMA: 422,
    Reason.DEVICE_MISMATCH: 422,
    Reason.RATE_LIMITED: 429,
    Reason.AUTH_RATE_LIMITED: 429,
}
_CLOSE: Final = ((b"connection", b"close"),)
_ACCEPTED_ONE: Final = b'{"accepted":1}'


def is_telemetry_path(raw_path: bytes) -> bool:
    """Whether a path is the endpoint's. What stands between prefix and suffix is the id, valid or not."""
    return raw_path == BATCH_PATH or (
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
        self._gate = HttpGate(settings, tokens, clock)
        self._bodies = BodyReader(settings)
        self._forwarder = forwarder
        self._metrics = metrics
        self._limits = settings.decode_limits()
        # One thread: decoding is Python's work, of which only one can go on at a time anyway.
        self._decoding = ThreadPoolExecutor(1, "decode")
        self._accepted = metrics.accepted.labels(TRANSPORT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        received_us = time.time_ns() // 1000
        try:
            with self._bodies.hold() as held:
                await self._serve(scope, receive, send, held, received_us)
        except RefusalError as refusal:
            rejected = refusal.rejected
            self._metrics.rejected.labels(TRANSPORT, rejected.reason.value).inc()
            status = STATUS_OF_REASON[rejected.reason]
            await send_problem(send, status, rejected.reason.value, rejected.detail, refusal.headers)
        except UnavailableError as unavailable:
            await self._send_unavailable(send, unavailable.obstacle.value, unavailable.detail)
        except BodyMemoryFullError:
            detail = "The gateway is holding as many requests as it may; try again."
            await self._send_unavailable(send, BODY_MEMORY_FULL, detail, _CLOSE)
        except DisconnectedError:
            return

    async def _serve(self, scope: Scope, receive: Receive, send: Send, held: Held, received_us: int) -> None:
        if scope["method"] != "POST":
            raise RefusalError(
                Reason.METHOD_NOT_ALLOWED, "This path takes POST only.", headers=((b"allow", b"POST"),)
            )
        headers: dict[bytes, bytes] = dict(scope["headers"])
        claims = self._gate.authenticate(headers, scope)
        device_id = _device_id(scope["raw_path"])
        if device_id is not None and not claims.may_access(device_id):
            raise RefusalError(Reason.OTHER_DEVICE, "The token does not cover this device.")
        form = read_form(headers)
        self._gate.admit(claims)
        body = await self._bodies.read(headers, receive, held, form.gzip)
        self._gate.charge_body(claims, len(body))
        if len(body) > DECODE_AT_ONCE_MAX_BYTES or form.media == Media.AVRO_FILE:
            frames = await asyncio.get_running_loop().run_in_executor(
                self._decoding, self._decode, body, form, device_id, received_us
            )
        else:
            frames = self._decode(body, form, device_id, received_us)
        self._gate.charge(claims, len(body), frames)
        if device_id is None:
            _check_devices(claims, frames)
        await self._put(frames)
        self._accepted.inc(len(frames))
        answer = _ACCEPTED_ONE if len(frames) == 1 else b'{"accepted":%d}' % len(frames)
        await send_json(send, 202, answer, "application/json")

    async def _put(self, frames: tuple[TelemetryFrame, ...]) -> None:
        """Returns once all are durable. Many go in slices: other requests, and alarms, come between."""
        parts = list(slices(frames))
        if len(parts) == 1:
            await self._forwarder.put(frames)
            return
        promises: list[asyncio.Future[None]] = []
        try:
            for part in parts:
                promises.append(self._forwarder.put(part))
                await asyncio.sleep(0)
        except UnavailableError:
            # The slices before are on their way: the sender is told to send all of it again.
            for promise in promises:
                promise.add_done_callback(_hear)
            raise
        await asyncio.gather(*promises)

    def _decode(
        self, body: bytes, form: BodyForm, device_id: str | None, received_us: int
    ) -> tuple[TelemetryFrame, ...]:
        """The frames in a body: of `device_id`, or of any device where that is None."""
        outcome: tuple[TelemetryFrame, ...] | Rejected
        if form.media == Media.AVRO_FRAME:
            outcome = decode_avro_frame(
                body, form.fingerprint, device_id, TRANSPORT, received_us, self._limits
            )
        elif form.media == Media.AVRO_FILE:
            outcome = decode_avro_file(
                body, device_id, TRANSPORT, received_us, self._limits, self._bodies.limit_bytes
            )
        elif device_id is not None:
            outcome = decode_telemetry(body, device_id, TRANSPORT, received_us, self._limits)
        else:
            outcome = decode_batch(body, TRANSPORT, received_us, self._limits)
        if isinstance(outcome, Rejected):
            raise RefusalError(outcome.reason, outcome.detail)
        return outcome

    async def _send_unavailable(self, send: Send, reason: str, detail: str, headers: Headers = ()) -> None:
        self._metrics.unavailable.labels(TRANSPORT, reason).inc()
        retry_after = (b"retry-after", str(RETRY_AFTER_S).encode())
        await send_problem(send, 503, reason, detail, (retry_after, *headers))


def _hear(promise: asyncio.Future[None]) -> None:
    """An outcome that nobody waits for."""
    if not promise.cancelled():
        promise.exception()


def _device_id(raw_path: bytes) -> str | None:
    """The id in a path; None for the path of batches."""
    if raw_path == BATCH_PATH:
        return None
    encoded = raw_path[len(PATH_PREFIX) : -len(PATH_SUFFIX)]
    device_id = unquote_to_bytes(encoded).decode("utf-8", errors="replace")
    if not is_device_id(device_id):
        raise RefusalError(
            Reason.INVALID_DEVICE_ID,
            "A device id is 1 to 128 of A-Z a-z 0-9 . _ : @ -, the first a letter or a digit.",
        )
    return device_id


def _check_devices(claims: Claims, frames: tuple[TelemetryFrame, ...]) -> None:
    for number, frame in enumerate(frames, 1):
        if not claims.may_access(frame.device_id):
            raise RefusalError(
                Reason.OTHER_DEVICE,
                f"The token does not cover device {frame.device_id!r} of frame {number}; none was taken.",
            )

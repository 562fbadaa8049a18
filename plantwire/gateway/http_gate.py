"""Who may send, and how much: tokens, and rate limits by client and by address.

In: a request's headers and its sender's address. Out: verified `Claims`, or a refusal.
Guarantees: a client (a token's subject) that is over its rate is told when to come back, before its body is
read. An address whose tokens keep failing is not listened to for a while, except with tokens that were
verified before: one that guesses shuts out no device behind the same address that is known already.
Not here: the verification (`token_cache`), the buckets (`rate_limit`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

from starlette.types import Scope

from plantwire.gateway.http_address import address_key
from plantwire.gateway.http_problem import Headers
from plantwire.gateway.http_refusal import RefusalError
from plantwire.gateway.rate_limit import RateLimit
from plantwire.gateway.rejected import Reason
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.token_cache import EXPIRED, TokenCache
from plantwire.platform.tokens import Claims, Role, TokenError
from plantwire.schemas.records import TelemetryFrame

METRICS_PER_FRAME: Final = 50
"""A frame counts once for each so many metrics that it begins."""
BYTES_PER_FRAME: Final = 10_000
"""A body counts as a frame for each so many bytes, where its frames count for less."""


class HttpGate:
    """Authenticates and meters. `clock` gives seconds since the epoch, `timer` monotonic seconds."""

    def __init__(
        self,
        settings: GatewaySettings,
        tokens: TokenCache,
        clock: Callable[[], float],
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._timer = timer
        per_s, per_minute = settings.gateway_rate_limit_frames_per_s, settings.gateway_auth_failures_per_min
        self._frames = RateLimit(per_s, settings.gateway_rate_limit_burst_frames) if per_s else None
        self._failures = RateLimit(per_minute / 60, per_minute) if per_minute else None

    def authenticate(self, headers: dict[bytes, bytes], scope: Scope) -> Claims:
        """The claims of the request's token, of a role that may send; raises `RefusalError`."""
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise RefusalError(
                Reason.TOKEN_MISSING,
                "The request needs an Authorization header with a Bearer token.",
                ((b"www-authenticate", b'Bearer realm="plantwire"'),),
            )
        if self._failures is not None and not self._tokens.knows(token):
            wait_s = self._failures.wait_s(_address(scope), self._timer())
            if wait_s:
                raise _slow_down(
                    Reason.AUTH_RATE_LIMITED,
                    "Too many tokens from this address were not valid.",
                    self._failures,
                    "auth-failures",
                    wait_s,
                )
        try:
            claims = self._tokens.verify(token, self._clock())
        except TokenError as error:
            if self._failures is not None:
                self._failures.charge(_address(scope), 1, self._timer())
            raise RefusalError(
                Reason.TOKEN_EXPIRED if str(error) == EXPIRED else Reason.TOKEN_INVALID,
                f"{str(error).capitalize()}.",
                ((b"www-authenticate", b'Bearer realm="plantwire", error="invalid_token"'),),
            ) from None
        if claims.role < Role.DEVICE:
            raise RefusalError(
                Reason.ROLE_TOO_LOW, "Sending telemetry takes the role device or a higher one."
            )
        return claims

    def admit(self, claims: Claims) -> None:
        """Charge a request with one frame, before it is known how many it has; raises `RefusalError`."""
        if self._frames is None:
            return
        now_s = self._timer()
        wait_s = self._frames.wait_s(claims.subject, now_s)
        if wait_s:
            raise _slow_down(
                Reason.RATE_LIMITED,
                f"More than {self._frames.per_s:g} frames/s from this client.",
                self._frames,
                "frames",
                wait_s,
            )
        self._frames.charge(claims.subject, 1, now_s)

    def charge_body(self, claims: Claims, size_bytes: int) -> None:
        """Charge an admitted request for its body, unpacked, before it is known what is in it."""
        self._charge(claims, size_bytes // BYTES_PER_FRAME)

    def charge(self, claims: Claims, size_bytes: int, frames: Sequence[TelemetryFrame]) -> None:
        """Charge a request with what its frames cost beyond what it was charged already."""
        cost = sum([1 + (len(frame.metrics) - 1) // METRICS_PER_FRAME for frame in frames])
        self._charge(claims, cost - 1 - size_bytes // BYTES_PER_FRAME)

    def _charge(self, claims: Claims, cost: int) -> None:
        if self._frames is not None and cost > 0:
            self._frames.charge(claims.subject, cost, self._timer())


def _slow_down(reason: Reason, detail: str, limit: RateLimit, policy: str, wait_s: float) -> RefusalError:
    """A 429 with Retry-After (RFC 9110) and the fields of draft-ietf-httpapi-ratelimit-headers."""
    seconds = max(1, math.ceil(wait_s))
    window_s = max(1, round(limit.burst / limit.per_s))
    headers: Headers = (
        (b"retry-after", str(seconds).encode()),
        (b"ratelimit-policy", f'"{policy}";q={limit.burst:.0f};w={window_s}'.encode()),
        (b"ratelimit", f'"{policy}";r=0;t={seconds}'.encode()),
    )
    return RefusalError(reason, f"{detail} Come back in {seconds} s.", headers)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return "" if client is None else address_key(str(client[0]))

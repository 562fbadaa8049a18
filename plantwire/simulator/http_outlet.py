"""Frames to the gateway by HTTP, on kept connections.

In: frames. Out: an `Outcome` for each.
Guarantees: accepted means the gateway answered 202; while it is away frames are dropped without a try
until the back-off is over. Not here: the interface itself (docs/gateway.md).
"""

from __future__ import annotations

import random
import time
from http import HTTPStatus
from typing import Final

import httpx

from plantwire.simulator.credentials import Credentials
from plantwire.simulator.frame import Frame, encode_json
from plantwire.simulator.outlet import Accepted, Dropped, Gate, Outcome, Rejected

TIMEOUT_S: Final = 10.0
CONNECTIONS_MAX: Final = 32
_BUSY: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


class HttpOutlet:
    """Sends to one gateway. An async context manager, which closes its connections."""

    name = "http"

    def __init__(self, gateway_url: str, credentials: Credentials) -> None:
        self._credentials = credentials
        self._gate = Gate()
        self._client = httpx.AsyncClient(
            base_url=gateway_url,
            timeout=TIMEOUT_S,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX),
            # A proxy set for the world outside is none for a gateway beside us.
            trust_env=False,
        )

    async def __aenter__(self) -> HttpOutlet:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(self, frame: Frame) -> Outcome:
        """Post one frame of a device."""
        if not self._gate.is_open(time.monotonic()):
            return Dropped("gateway-away")
        token = self._credentials.token_for(frame.device_id, int(time.time()))
        try:
            response = await self._client.post(
                f"/api/v1/devices/{frame.device_id}/telemetry",
                content=encode_json(frame),
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            )
        except httpx.TimeoutException:
            return self._failed("no-answer")
        except httpx.TransportError:
            return self._failed("gateway-away")
        if response.status_code == HTTPStatus.ACCEPTED:
            self._gate.succeed()
            return Accepted()
        if response.status_code in _BUSY:
            return self._failed("gateway-busy", _seconds(response.headers.get("Retry-After")))
        return Rejected(*_problem(response))

    async def is_ready(self) -> bool:
        """Whether the gateway says that it is ready."""
        try:
            response = await self._client.get("/readyz")
        except httpx.TransportError:
            return False
        return response.status_code == HTTPStatus.OK

    def _failed(self, reason: str, at_least_s: float = 0.0) -> Dropped:
        self._gate.fail(time.monotonic(), random.random(), at_least_s)  # noqa: S311 - spreads retries
        return Dropped(reason)


def _problem(response: httpx.Response) -> tuple[str, str]:
    """The reason and detail of a problem+json answer, or the status where it is none."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and isinstance(body.get("reason"), str):
        return body["reason"][:100], str(body.get("detail", ""))[:300]
    return f"status-{response.status_code}", ""


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isascii() and text.isdigit() else 0.0

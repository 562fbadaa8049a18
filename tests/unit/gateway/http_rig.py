"""The HTTP application with a forwarder that records, in reach of the tests."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from plantwire.gateway.buffer.entry import BufferStats
from plantwire.gateway.buffer.ledger_report import ledger_report
from plantwire.gateway.forwarder import DeadLetter, Obstacle, UnavailableError
from plantwire.gateway.http_app import Check, GatewayApp, build_app
from plantwire.gateway.http_transport import TelemetryEndpoint
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.token_cache import TokenCache
from plantwire.platform.tokens import Role, TokenAuthority
from plantwire.schemas.problem import PROBLEM_MEDIA_TYPE
from plantwire.schemas.records import TelemetryFrame

PATH = "/api/v1/devices/press-1/telemetry"
GOOD = b'{"metrics": {"t": 1}}'
BODY_LIMIT = 4096
AUTHORITY = TokenAuthority("k" * 32, "plantwire", "plantwire")
NOW_S = int(time.time())
# As long as any run of all tests may take.
DAY_S = 86_400


class RecordingForwarder:
    """Keeps what it is given; `answer` makes each promise."""

    def __init__(self) -> None:
        self.frames: list[TelemetryFrame] = []
        self.answer: Callable[[], UnavailableError | None] = lambda: None
        self.refuse_at_once = False
        self.finding: str | None = None

    def put(self, frames: Sequence[TelemetryFrame]) -> asyncio.Future[None]:
        if self.refuse_at_once:
            raise UnavailableError(Obstacle.IN_FLIGHT_FULL, "Full.")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if (error := self.answer()) is not None:
            future.set_exception(error)
        else:
            self.frames.extend(frames)
            future.set_result(None)
        return future

    def put_dead_letter(self, letter: DeadLetter) -> asyncio.Future[None]:
        raise AssertionError("HTTP refuses to the sender, not to the dead-letter topic")

    async def ready(self) -> str | None:
        return self.finding


class Rig:
    """The application with its parts in reach."""

    def __init__(self, **settings: Any) -> None:
        bounds = {
            "gateway_body_limit_bytes": BODY_LIMIT,
            "gateway_body_timeout_s": 0.2,
            "gateway_body_memory_bytes": 8192,
        }
        self.settings = GatewaySettings(**(bounds | settings))
        self.forwarder = RecordingForwarder()
        self.metrics = GatewayMetrics()
        self.endpoint = TelemetryEndpoint(self.settings, TokenCache(AUTHORITY), self.forwarder, self.metrics)
        self.note: str | None = None
        self.app = self.app_with({"kafka": self.forwarder.ready})

    def app_with(self, checks: dict[str, Check]) -> GatewayApp:
        stats = BufferStats(0, 0, None, {})
        return build_app(
            self.endpoint,
            self.metrics,
            checks,
            notes={"kafka": lambda: self.note},
            ledger=lambda: ledger_report(self.metrics.ledger.counts(), stats, "direct", None, 0),
        )

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app)  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url="http://gateway")

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"plantwire_gateway_{name}_total", labels) or 0.0


def forged(secret: str, audience: str) -> str:
    return TokenAuthority(secret, "plantwire", audience).issue("d", Role.ADMIN, ["*"], NOW_S, DAY_S)


def token(role: Role = Role.DEVICE, devices: Sequence[str] = ("press-1",), lifetime_s: int = DAY_S) -> str:
    return AUTHORITY.issue("d", role, devices, NOW_S, lifetime_s)


def bearer(text: str | None = None) -> dict[str, str]:
    return {"authorization": f"Bearer {text or token()}"}


def unsigned_token() -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"sub": "d", "role": "admin", "devices": ["*"], "exp": NOW_S + DAY_S, "iss": "plantwire"}
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part({**claims, 'aud': 'plantwire'})}."


def assert_problem(response: httpx.Response, status: int, reason: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE
    body = response.json()
    assert body["reason"] == reason
    assert body["status"] == status
    assert body["type"] == f"urn:plantwire:problem:{reason}"
    assert body["detail"]

"""The HTTP application: the telemetry endpoint in front, FastAPI for everything else.

In: the endpoint, the local WebSocket, the ledger, what health depends on. Out: one ASGI application.
Guarantees: every error is problem+json; `/readyz` is 200 only while frames can be stored and MQTT is
subscribed. Telemetry requests never pass FastAPI's routing and middleware.
Not here: the server (`__main__`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from plantwire.gateway.buffer.ledger_report import LedgerReport
from plantwire.gateway.http_openapi import TELEMETRY_COMPONENTS, TELEMETRY_PATHS
from plantwire.gateway.http_transport import TelemetryEndpoint, is_telemetry_path
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.schemas.problem import PROBLEM_MEDIA_TYPE, problem

Check = Callable[[], Awaitable[str | None]]
"""None where a dependency is well, else what is amiss."""
Note = Callable[[], str | None]
"""What is worth knowing of a dependency that is well enough; None where nothing is."""

log = structlog.get_logger()

_REASONS = {404: "unknown-path", 405: "method-not-allowed"}


class GatewayApp:
    """Sends telemetry requests to the endpoint, WebSockets to `local`, the rest to FastAPI."""

    def __init__(self, endpoint: TelemetryEndpoint, others: ASGIApp, local: ASGIApp | None) -> None:
        self._endpoint = endpoint
        self._others = others
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's life-span."""
        if scope["type"] == "http" and is_telemetry_path(scope["raw_path"]):
            await self._endpoint(scope, receive, send)
        elif scope["type"] == "websocket" and self._local is not None:
            await self._local(scope, receive, send)
        else:
            await self._others(scope, receive, send)


def build_app(
    endpoint: TelemetryEndpoint,
    metrics: GatewayMetrics,
    checks: Mapping[str, Check],
    *,
    notes: Mapping[str, Note],
    ledger: Callable[[], LedgerReport],
    local: ASGIApp | None = None,
) -> GatewayApp:
    """The application. `checks` are what `/readyz` asks, by name; `notes` stand there for "ok"."""
    api = FastAPI(title="Plantwire gateway", version=version("plantwire"), redoc_url=None)
    api.openapi = lambda: _openapi(api)  # type: ignore[method-assign]

    @api.get("/healthz", summary="The process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/readyz", summary="Telemetry can be taken now", responses={503: {"description": "Not now"}})
    async def readyz() -> Response:
        findings = {name: await check() for name, check in checks.items()}
        amiss = [f"{name}: {finding}" for name, finding in findings.items() if finding]
        if amiss:
            return _problem_response(503, "not-ready", "; ".join(amiss))
        noted = {name: notes[name]() if name in notes else None for name in findings}
        return JSONResponse(
            {"status": "ready", "checks": {name: note or "ok" for name, note in noted.items()}}
        )

    @api.get("/ledger", summary="What became of everything that was received", response_class=Response)
    async def ledger_now() -> Response:
        return Response(msgspec.json.encode(ledger()), media_type="application/json")

    @api.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def exposition() -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    @api.exception_handler(HTTPException)
    async def refused(_request: Request, error: HTTPException) -> Response:
        reason = _REASONS.get(error.status_code, "refused")
        return _problem_response(error.status_code, reason, f"{error.detail}.", error.headers)

    @api.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        log.error("request_failed", path=request.url.path, exc_info=error)
        return _problem_response(500, "internal", "The gateway failed on this request; its log says why.")

    return GatewayApp(endpoint, api, local)


def _problem_response(status: int, reason: str, detail: str, headers: Any = None) -> Response:
    return JSONResponse(problem(status, reason, detail), status, headers, PROBLEM_MEDIA_TYPE)


def _openapi(api: FastAPI) -> dict[str, Any]:
    if api.openapi_schema is None:
        document = get_openapi(title=api.title, version=api.version, routes=api.routes)
        document["paths"].update(TELEMETRY_PATHS)
        for kind, entries in TELEMETRY_COMPONENTS.items():
            document.setdefault("components", {}).setdefault(kind, {}).update(entries)
        api.openapi_schema = document
    return api.openapi_schema

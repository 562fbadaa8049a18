"""The HTTP interface: latest values, active alarms, history, health, metrics, the dashboard's files.

In: requests, with a Bearer token under /api. Out: JSON; errors as problem+json.
Guarantees: a token sees its own devices only; an answer from a picture that does not follow Redis at the
moment, and a list of alarms that may lack some, says so in the header `Plantwire-Live: false`; latest
values name the epoch that their `seq` counts in, in the header `Plantwire-Epoch`.
Not here: how history and live windows are answered (`history_api`, `windows_api`), Socket.IO (`sessions`),
security headers and origins (`server`).
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import redis.asyncio
from fastapi import Depends, FastAPI, Query
from fastapi.responses import HTMLResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from plantwire.distribution.history_api import add_history
from plantwire.distribution.history_store import HistoryStore
from plantwire.distribution.hub import Hub
from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.picture import LivePicture, alarm_array
from plantwire.distribution.problems import ProblemError, handle_errors
from plantwire.distribution.windows_api import add_windows
from plantwire.platform.tokens import Claims, TokenAuthority, TokenError
from plantwire.schemas.severity import Severity

HEADER_LIVE: Final = "Plantwire-Live"
HEADER_EPOCH: Final = "Plantwire-Epoch"

_NO_DASHBOARD: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Plantwire</title>
<h1>The dashboard is not built</h1>
<p>Run <code>make setup</code> in the project's folder and load this page again.
The interface itself is up: see <a href="/docs">/docs</a>.</p></html>"""


class Dashboard:
    """The built dashboard; a page that says how to build it where it is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = StaticFiles(directory=folder, html=True, check_dir=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises HTTPException 404 for an unknown file."""
        if scope["path"] in {"/", "/index.html"} and not (self._folder / "index.html").is_file():
            await HTMLResponse(_NO_DASHBOARD, status_code=503)(scope, receive, send)
        elif not self._folder.is_dir():
            raise HTTPException(404)
        else:
            await self._files(scope, receive, send)


def build_api(
    picture: LivePicture,
    hub: Hub,
    authority: TokenAuthority,
    metrics: DistributionMetrics,
    dashboard: Path,
    client: redis.asyncio.Redis,
    redis_answers: Callable[[], Awaitable[bool]],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    history: HistoryStore,
    history_page_max: int,
    kept_ms: Mapping[str, int | None],
    now_ms: Callable[[], float],
) -> FastAPI:
    """The application for everything that is not Socket.IO; `lifespan` starts and stops its work."""
    api = FastAPI(
        title="Plantwire distribution",
        description="Live values, alarms and history. The live stream is Socket.IO, namespace /telemetry.",
        lifespan=lifespan,
        redoc_url=None,
    )
    handle_errors(api)
    bearer = HTTPBearer(auto_error=False, description="The same token as Socket.IO's auth.token.")

    def claims_of(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Claims:
        try:
            return authority.verify(credentials.credentials if credentials is not None else None)
        except TokenError as error:
            raise ProblemError(401, "unauthorized", str(error)) from None

    Caller = Annotated[Claims, Depends(claims_of)]  # noqa: N806 - a type

    def answer(body: bytes, live: bool) -> Response:
        return Response(
            body,
            media_type="application/json",
            headers={HEADER_LIVE: str(live).lower(), "Cache-Control": "no-store"},
        )

    def require_picture() -> None:
        if not picture.loaded:
            raise ProblemError(
                503, "unavailable", "The live state has not been read yet; Redis is not reachable."
            )

    @api.get("/api/devices/telemetry/latest", tags=["telemetry"], response_model=None)
    async def latest(claims: Caller) -> Response:
        """`[{deviceId, seq, timestamp, data, quality?}]` of every device that the token may see.

        `quality` names the metrics that are not good: 500 stale, 0 bad, else the source's OPC quality.
        """
        require_picture()
        response = answer(orjson.dumps(picture.latest(claims)), hub.live)
        epoch = picture.epoch
        if epoch is not None and epoch.isascii() and epoch.isprintable():
            response.headers[HEADER_EPOCH] = epoch
        return response

    add_history(api, claims_of, history, metrics, history_page_max, kept_ms, now_ms)
    add_windows(api, claims_of, client)

    @api.get("/api/alarms", tags=["alarms"], response_model=None)
    async def alarms(
        claims: Caller,
        severity: Annotated[list[str] | None, Query(description="CRITICAL, HIGH, MEDIUM, LOW, INFO")] = None,
        deviceId: str | None = None,  # noqa: N803 - the interface's spelling
    ) -> Response:
        """`{"alarms": [...]}`: active alarms, most severe first, then newest."""
        require_picture()
        wanted = {name.upper() for name in severity or ()}
        if unknown := wanted - Severity.__members__.keys():
            raise ProblemError(
                400, "invalid-parameter", f"severity: unknown {', '.join(sorted(unknown))[:80]}"
            )
        if deviceId is not None and not claims.may_access(deviceId):
            raise ProblemError(403, "forbidden", "The token does not cover this device.")
        found = [
            alarm
            for alarm in picture.active_alarms(claims)
            if (not wanted or alarm.header.severity in wanted)
            and (deviceId is None or alarm.header.device_id == deviceId)
        ]
        return answer(b'{"alarms":' + alarm_array(found) + b"}", hub.alarms_complete)

    @api.get("/healthz", tags=["operation"])
    async def healthz() -> dict[str, str]:
        """200 while the process works."""
        return {"status": "ok"}

    @api.get("/readyz", tags=["operation"])
    async def readyz() -> dict[str, Any]:
        """200 while Redis answers and every channel is subscribed, else 503.

        `alarmsComplete` false is no reason for 503: the alarms and values that do come must reach someone.
        """
        if not (hub.live and await redis_answers()):
            raise ProblemError(503, "unavailable", "Redis is not reachable or not subscribed.")
        return {
            "status": "ready",
            "epoch": picture.epoch,
            "devices": picture.device_count,
            "alarms": picture.alarm_count,
            "alarmsComplete": picture.alarms_complete,
        }

    @api.get("/metrics", tags=["operation"], response_model=None)
    async def metrics_text() -> Response:
        """Counters in the Prometheus exposition format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    api.mount("/", Dashboard(dashboard), name="dashboard")
    return api

"""`GET /api/devices/{id}/history`: stored telemetry of one device and metric.

In: a request with a Bearer token. Out: points as JSON, CSV or Arrow, a page at a time, with the tier that
they come from; errors as problem+json.
Guarantees: a token reads its own devices only; the answer to every well-formed question about them is the
stored points, or 503 while there is no database, and then only here.
Not here: the choice of the tier (`history_plan`), the query (`history_store`), formats (`history_formats`).
"""

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import Response

from plantwire.distribution.history_formats import (
    About,
    Format,
    NotAcceptableError,
    choose_format,
    encode,
    has_arrow,
)
from plantwire.distribution.history_plan import AUTO, Plan, PlanError, plan_from_cursor, plan_range
from plantwire.distribution.history_store import HistoryError, HistoryStore
from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.problems import ProblemError
from plantwire.platform.tokens import Claims
from plantwire.schemas.identifiers import is_device_id, is_metric_name

HEADER_RESOLUTION: Final = "Plantwire-Resolution"
HEADER_STEP: Final = "Plantwire-Step-Ms"
HEADER_CURSOR: Final = "Plantwire-Cursor"
POINTS_DEFAULT: Final = 1000
POINTS_MAX: Final = 10_000
RETRY_AFTER_S: Final = 5

_CONTENT: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {each.value: {} for each in Format}, "description": "Points in the order of time."},
    406: {"description": "No format that the client takes."},
    503: {"description": "The database is away, busy, or took too long."},
}


def add_history(
    api: FastAPI,
    claims_of: Callable[..., Claims],
    store: HistoryStore,
    metrics: DistributionMetrics,
    page_max: int,
    kept_ms: Mapping[str, int | None],
    now_ms: Callable[[], float],
) -> None:
    """Add the route; a page has at most `page_max` points, a tier is kept for `kept_ms[name]`."""
    with_arrow = has_arrow()

    async def plan_of(
        start: str | None, end: str | None, resolution: str, points: int, cursor: str | None
    ) -> Plan:
        try:
            if cursor is not None:
                return plan_from_cursor(cursor)
            chosen = resolution.lower()
            gone_before_ms = await store.gone_before_ms() if chosen == AUTO else {}
            return plan_range(start, end, chosen, points, int(now_ms()), kept_ms, gone_before_ms)
        except PlanError as error:
            raise ProblemError(400, "invalid-parameter", f"{error}.") from None

    def format_of(name: str | None, accept: str | None) -> Format:
        try:
            return choose_format(name, accept, with_arrow)
        except NotAcceptableError as error:
            raise ProblemError(406, "not-acceptable", str(error)) from None
        except ValueError as error:
            raise ProblemError(400, "invalid-parameter", f"{error}.") from None

    @api.get("/api/devices/{device_id}/history", tags=["telemetry"], response_model=None, responses=_CONTENT)
    async def history(
        request: Request,
        claims: Annotated[Claims, Depends(claims_of)],
        device_id: Annotated[str, Path(description="The device's id.")],
        metric: Annotated[str, Query(description="The metric's name.")],
        start: Annotated[
            str | None,
            Query(alias="from", description="First moment: ms since the epoch, or ISO 8601 with its offset."),
        ] = None,
        end: Annotated[
            str | None, Query(alias="to", description="Moment after the last; by default now.")
        ] = None,
        resolution: Annotated[str, Query(description="auto, raw, 1s, 1m, 1h or 1d.")] = AUTO,
        points: Annotated[
            int, Query(ge=1, le=POINTS_MAX, description="For auto: how many points there may be.")
        ] = POINTS_DEFAULT,
        limit: Annotated[
            int | None, Query(ge=1, description="Points of a page; more than the server's bound is no error.")
        ] = None,
        cursor: Annotated[
            str | None, Query(description="The next page: the cursor of the one before; times are its own.")
        ] = None,
        name: Annotated[str | None, Query(alias="format", description="json, csv or arrow.")] = None,
    ) -> Response:
        """`{deviceId, metric, resolution, stepMs, from, to, cursor, points}`, points in the order of time.

        A point is `{timestamp, avg, min, max, sum, count}` of the good numbers from `timestamp` on, for
        `stepMs`; times without any have no point. `resolution` is the tier that was read. While `cursor` is
        not null there are more: ask again with `cursor`.
        """
        if not is_device_id(device_id):
            raise ProblemError(400, "invalid-parameter", "The device's id is none.")
        if not is_metric_name(metric):
            raise ProblemError(400, "invalid-parameter", "The metric's name is none.")
        if not claims.may_access(device_id):
            raise ProblemError(403, "forbidden", "The token does not cover this device.")
        media = format_of(name, request.headers.get("accept"))
        plan = await plan_of(start, end, resolution, points, cursor)
        started_s = time.perf_counter()
        try:
            page = await store.read(plan, device_id, metric, min(limit or page_max, page_max))
        except HistoryError as error:
            metrics.history_requests.labels(error.reason).inc()
            raise ProblemError(503, error.reason, str(error), RETRY_AFTER_S) from None
        metrics.history_requests.labels("answered").inc()
        metrics.history_query.observe(time.perf_counter() - started_s)
        metrics.history_points.labels(plan.tier.name).inc(len(page.points))
        about = About(
            device_id,
            metric,
            plan.tier.name,
            plan.step_ms,
            plan.start_ms,
            plan.end_ms,
            None if page.next_ms is None else plan.cursor(page.next_ms),
        )
        headers = {
            HEADER_RESOLUTION: about.resolution,
            HEADER_STEP: str(about.step_ms),
            "Cache-Control": "no-store",
            "Vary": "Accept",
        }
        if about.cursor is not None:
            headers[HEADER_CURSOR] = about.cursor
        body = await encode(media, about, page.points)
        return Response(body, media_type=media.value, headers=headers)

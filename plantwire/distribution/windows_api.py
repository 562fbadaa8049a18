"""`GET /api/devices/{id}/windows`: the latest live windows of a device.

In: a request with a Bearer token; the hashes that live windows are shown in. Out: JSON; errors: problem+json.
Guarantees: a token reads its own devices only; what is read is of one moment.
Not here: how windows come there (`platform.live_windows`), stored ones (`history_api`).
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import orjson
import redis.asyncio
from fastapi import Depends, FastAPI, Path
from fastapi.responses import Response
from redis.exceptions import RedisError

from plantwire.distribution.problems import ProblemError
from plantwire.platform.tokens import Claims
from plantwire.schemas import topics
from plantwire.schemas.identifiers import is_device_id
from plantwire.schemas.windows import WINDOWS

RETRY_AFTER_S: Final = 5

_CONTENT: Final[dict[int | str, dict[str, Any]]] = {503: {"description": "Redis is away."}}


def add_windows(api: FastAPI, claims_of: Callable[..., Claims], client: redis.asyncio.Redis) -> None:
    """Add the route; `client` does not decode responses."""

    @api.get("/api/devices/{device_id}/windows", tags=["telemetry"], response_model=None, responses=_CONTENT)
    async def windows(
        claims: Annotated[Claims, Depends(claims_of)],
        device_id: Annotated[str, Path(description="The device's id.")],
    ) -> Response:
        """`{deviceId, windows: {"1s": {metric: {start, end, avg, min, max, sum, count}}, "5m": {...}}}`.

        The latest window of each metric, from `start` to before `end`, ms since the epoch. Empty where a
        device has sent no numbers lately.
        """
        if not is_device_id(device_id):
            raise ProblemError(400, "invalid-parameter", "The device's id is none.")
        if not claims.may_access(device_id):
            raise ProblemError(403, "forbidden", "The token does not cover this device.")
        try:
            async with client.pipeline(transaction=True) as pipe:
                for window in WINDOWS:
                    pipe.hgetall(f"{topics.PREFIX_WINDOW}{window}:device:{device_id}")
                replies = await pipe.execute()
        except (RedisError, OSError):
            raise ProblemError(503, "unavailable", "Redis is not reachable.", RETRY_AFTER_S) from None
        # As they are in Redis, where they are JSON already.
        found = {
            window: {metric.decode(): orjson.Fragment(values) for metric, values in reply.items()}
            for window, reply in zip(WINDOWS, replies, strict=True)
        }
        body = orjson.dumps({"deviceId": device_id, "windows": found})
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})

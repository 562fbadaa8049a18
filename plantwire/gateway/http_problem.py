"""problem+json answers, straight to ASGI.

In: a status, a reason, a sentence. Out: one complete HTTP response.
Not here: the body's shape (`schemas.problem`).
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson
from starlette.types import Send

from plantwire.schemas.problem import PROBLEM_MEDIA_TYPE, problem

Headers = Iterable[tuple[bytes, bytes]]


async def send_problem(send: Send, status: int, reason: str, detail: str, headers: Headers = ()) -> None:
    """Answer with a problem; `headers` come on top of type and length."""
    await send_json(send, status, orjson.dumps(problem(status, reason, detail)), PROBLEM_MEDIA_TYPE, headers)


async def send_json(send: Send, status: int, body: bytes, media_type: str, headers: Headers = ()) -> None:
    """Answer with `body`."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", media_type.encode()),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})

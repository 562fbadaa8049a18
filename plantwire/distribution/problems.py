"""Errors of the HTTP interface, told as problem+json.

In: `ProblemError` and what the web framework raises. Out: answers with a reason that a program can act on.
Guarantees: what fails unforeseen is answered with 500 and no word of the cause, which the log has.
Not here: the shape of a problem (`schemas.problem`).
"""

from __future__ import annotations

from typing import Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from plantwire.schemas.problem import PROBLEM_MEDIA_TYPE, problem

_REASONS: Final = {
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    503: "unavailable",
}


class ProblemError(Exception):
    """An error that the client is told as problem+json; `retry_after_s` where it is worth asking again."""

    def __init__(self, status: int, reason: str, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s


def handle_errors(api: FastAPI) -> None:
    """Let every error of `api` be answered with a problem."""

    async def on_problem(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)  # noqa: S101 - by registration
        response = _problem_response(error.status, error.reason, error.detail)
        if error.retry_after_s is not None:
            response.headers["Retry-After"] = str(error.retry_after_s)
        return response

    async def on_http_exception(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - by registration
        reason = _REASONS.get(error.status_code, "error")
        return _problem_response(error.status_code, reason, str(error.detail))

    async def on_invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - by registration
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return _problem_response(400, "invalid-parameter", found[:500])

    async def on_failure(_request: Request, _error: Exception) -> Response:
        return _problem_response(500, "internal", "The request failed; the log has the cause.")

    api.add_exception_handler(ProblemError, on_problem)
    api.add_exception_handler(HTTPException, on_http_exception)
    api.add_exception_handler(RequestValidationError, on_invalid)
    api.add_exception_handler(Exception, on_failure)


def _problem_response(status: int, reason: str, detail: str) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return Response(
        orjson.dumps(problem(status, reason, detail)),
        status_code=status,
        media_type=PROBLEM_MEDIA_TYPE,
        headers=headers,
    )

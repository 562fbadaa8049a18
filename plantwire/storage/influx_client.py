"""InfluxDB's write endpoints: `/api/v2/write` of 2.x and `/write` of 1.x.

In: lines of the line protocol. Out: how many of them InfluxDB took, or an error that tells what to do.
Guarantees: a return means that InfluxDB has acknowledged the lines; `InfluxAwayError` means that the same
lines may be sent again, `InfluxRefusedError` that they never will be taken as they are; neither text holds a
secret.
Source: InfluxDB's documentation of its HTTP API, 1.8 and 2.7.
Not here: when to try again (`influx`), lines (`influx_lines`).
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from typing import Final

import httpx

from plantwire.storage.influx_settings import InfluxSettings

RETRY_AFTER_MAX_S: Final = 300.0
_ERROR_MAX_CHARACTERS: Final = 200
_DROPPED: Final = re.compile(r"\bdropped=(\d+)")


class InfluxAwayError(Exception):
    """InfluxDB takes nothing now; `retry_after_s` where it says when."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class InfluxRefusedError(Exception):
    """InfluxDB does not take these lines, at least not all together."""


class InfluxClient:
    """Blocking. `close` it."""

    def __init__(self, settings: InfluxSettings, transport: httpx.BaseTransport | None = None) -> None:
        """`settings.influx_url` is set."""
        base = f"{(settings.influx_url or '').rstrip('/')}"
        self._ping = f"{base}/ping"
        self._parameters = {"precision": "ms"}
        headers, user = {"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "gzip"}, None
        if settings.influx_bucket is not None:
            self._write = f"{base}/api/v2/write"
            self._parameters |= {"bucket": settings.influx_bucket, "org": settings.influx_org or ""}
            if settings.influx_token is not None:
                headers["Authorization"] = f"Token {settings.influx_token.get_secret_value()}"
        else:
            self._write = f"{base}/write"
            self._parameters["db"] = settings.influx_database or ""
            if settings.influx_retention_policy is not None:
                self._parameters["rp"] = settings.influx_retention_policy
            if settings.influx_user is not None and settings.influx_password is not None:
                user = httpx.BasicAuth(settings.influx_user, settings.influx_password.get_secret_value())
        self._headers = headers
        self._client = httpx.Client(
            auth=user, timeout=settings.influx_timeout_s, follow_redirects=False, transport=transport
        )

    def ready(self) -> None:
        """Raises InfluxAwayError where InfluxDB does not answer."""
        try:
            answer = self._client.get(self._ping)
        except httpx.HTTPError as error:
            raise InfluxAwayError(_unreachable(error)) from None
        if not answer.is_success:
            raise InfluxAwayError(f"InfluxDB answers {answer.status_code} to a ping")

    def write(self, lines: Sequence[bytes]) -> int:
        """Write them; how many InfluxDB left out. Raises InfluxAwayError, InfluxRefusedError."""
        body = gzip.compress(b"\n".join(lines), compresslevel=1)
        try:
            answer = self._client.post(
                self._write, params=self._parameters, headers=self._headers, content=body
            )
        except httpx.HTTPError as error:
            raise InfluxAwayError(_unreachable(error)) from None
        if answer.status_code in (200, 204):
            return 0
        reason = _reason(answer)
        if answer.status_code in (400, 413, 422):
            dropped = _DROPPED.search(reason)
            # A partial write: the others were taken. They say how many, never which.
            if dropped is not None and answer.status_code != 413:
                return min(int(dropped[1]), len(lines))
            raise InfluxRefusedError(reason)
        raise InfluxAwayError(reason, _retry_after_s(answer))

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def _reason(answer: httpx.Response) -> str:
    try:
        body = answer.json()
        said = body.get("error") or body.get("message") or ""
    except (ValueError, AttributeError):
        said = ""
    return (
        f"InfluxDB answers {answer.status_code}: {str(said)[-_ERROR_MAX_CHARACTERS:] or answer.reason_phrase}"
    )


def _retry_after_s(answer: httpx.Response) -> float:
    told = answer.headers.get("Retry-After", "")
    return min(float(told), RETRY_AFTER_MAX_S) if told.isascii() and told.isdigit() else 0.0


def _unreachable(error: httpx.HTTPError) -> str:
    return f"InfluxDB is not reachable: {error or type(error).__name__}"

"""problem+json (RFC 9457), the shape of every HTTP error."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"


def problem(status: int, reason: str, detail: str) -> dict[str, Any]:
    """A problem body. `reason` is a stable kebab-case name that a program can act on."""
    return {
        "type": f"urn:plantwire:problem:{reason}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "reason": reason,
        "detail": detail,
    }

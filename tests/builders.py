"""Records and tokens for tests: each builder gives a valid one, changed by keyword."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from plantwire.platform.tokens import Role, TokenAuthority
from plantwire.schemas.records import AlarmEvent, AlarmKind
from plantwire.schemas.severity import Severity

TOKEN_SECRET = "for-tests-only-" + "0123456789abcdef" * 2
ALARM_ID = "260a614be2a972383a11006d"
AUTHORITY = TokenAuthority(TOKEN_SECRET, "plantwire", "plantwire")


def alarm_event(**changes: Any) -> AlarmEvent:
    """A critical alarm of press-1, raised now."""
    now_us = time.time_ns() // 1000
    fields: dict[str, Any] = {
        "alarm_id": ALARM_ID,
        "revision": 1,
        "rule_id": "over-temperature",
        "rule_version": 1,
        "device_id": "press-1",
        "site": "hall-1",
        "metric": "temperature",
        "value": 101.2,
        "limit": 100.0,
        "severity": Severity.CRITICAL.value,
        "kind": AlarmKind.RAISED,
        "message": "press-1 temperature at 101.2, limit 100",
        "event_time_ms": now_us // 1000,
        "raise_time_ms": now_us // 1000,
        "count": 1,
        "device_us": now_us,
        "published_us": now_us,
    }
    return AlarmEvent(**(fields | changes))


def token(*devices: str, role: Role = Role.VIEWER, lifetime_s: int = 86_400, subject: str = "anna") -> str:
    """A token that tests' servers accept, for `devices`."""
    return AUTHORITY.issue(subject, role, _all_or(devices), int(time.time()), lifetime_s)


def _all_or(devices: Iterable[str]) -> list[str]:
    return list(devices) or ["*"]

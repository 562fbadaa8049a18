"""Live windows over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import redis

from plantwire.platform.live_state import LiveState
from plantwire.platform.live_windows import LiveWindows
from plantwire.schemas.windows import FIVE_MINUTES, ONE_SECOND, WindowValues
from tests.builders import token
from tests.integration.distribution.conftest import Distribution

END_MS = 1_700_000_100_000
VALUES = WindowValues(3.0, 1.0, 2.0, 2)
SEEN = {"avg": 1.5, "min": 1.0, "max": 2.0, "sum": 3.0, "count": 2}


def get(distribution: Distribution, device_id: str, access: str | None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {access}"} if access is not None else {}
    return httpx.get(f"{distribution.url}/api/devices/{device_id}/windows", headers=headers, timeout=10)


def test_the_latest_window_of_each_metric_is_answered(live: LiveState, distribution: Distribution) -> None:
    with redis.Redis.from_url(distribution.redis_url) as client:
        windows = LiveWindows(client)
        windows.publish(FIVE_MINUTES, END_MS, {"press-1": {"x": VALUES}, "press-2": {"x": VALUES}})
        windows.publish(ONE_SECOND, END_MS, {"press-1": {"x": VALUES, "drive/y": VALUES}})
        windows.publish(ONE_SECOND, END_MS + 1000, {"press-1": {"x": VALUES}})
    answer = get(distribution, "press-1", token("press-1"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    expected: dict[str, Any] = {
        "1s": {
            "x": {"start": END_MS, "end": END_MS + 1000, **SEEN},
            "drive/y": {"start": END_MS - 1000, "end": END_MS, **SEEN},
        },
        "5m": {"x": {"start": END_MS - 300_000, "end": END_MS, **SEEN}},
    }
    assert answer.json() == {"deviceId": "press-1", "windows": expected}
    assert get(distribution, "press-9", token()).json() == {
        "deviceId": "press-9",
        "windows": {"1s": {}, "5m": {}},
    }


@pytest.mark.parametrize(
    ("device_id", "access", "status", "reason"),
    [
        ("press-1", None, 401, "unauthorized"),
        ("press-1", token("press-2"), 403, "forbidden"),
        ("press%201", token(), 400, "invalid-parameter"),
    ],
)
def test_errors_are_problems(
    steady: Distribution, device_id: str, access: str | None, status: int, reason: str
) -> None:
    answer = get(steady, device_id, access)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["reason"] == reason

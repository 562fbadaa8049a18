"""Live windows with the whole stack: what a device sends is in its windows within a second of their end."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import redis

from plantwire.schemas import topics
from tests.e2e.conftest import Stack

SECONDS = 5
TOLD_S = 30
DELAY_MAX_MS = 1000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_windows_are_announced_and_on_the_api_within_a_second_of_their_end(stack: Stack) -> None:
    device = f"windows-{time.time_ns()}"
    gateway = f"{stack.address('gateway')}/api/v1/devices/{device}/telemetry"
    access = {"Authorization": f"Bearer {stack.token(role='device')}"}
    told: dict[int, tuple[Any, int]] = {}
    sent: dict[int, list[float]] = {}
    with (
        redis.Redis.from_url(stack.address("redis")) as client,
        client.pubsub() as channel,
        httpx.Client(headers=access, timeout=20) as http,
    ):
        channel.subscribe(topics.CHANNEL_WINDOWS)
        deadline_s = time.monotonic() + TOLD_S
        number = 0.0
        # The first second may have begun before the first frame.
        while len(told) <= SECONDS:
            assert time.monotonic() < deadline_s, f"not within {TOLD_S} s: {told}"
            at_ms, number = now_ms(), number + 1
            body = {"timestamp": at_ms, "metrics": {"flow": number}}
            assert http.post(gateway, json=body).status_code == 202
            sent.setdefault(at_ms // 1000 * 1000, []).append(number)
            # Also what paces the frames.
            while (message := channel.get_message(timeout=0.1)) is not None:
                for window in json.loads(message["data"]) if message["type"] == "message" else ():
                    if window["deviceId"] == device and window["window"] == "1s":
                        told[window["start"]] = window["metrics"], now_ms() - window["end"]
    for start_ms, (metrics, _) in list(told.items())[1:]:
        numbers = sent[start_ms]
        total = sum(numbers)
        assert metrics == {
            "flow": {
                "avg": total / len(numbers),
                "min": min(numbers),
                "max": max(numbers),
                "sum": total,
                "count": len(numbers),
            }
        }
    delays_ms = sorted(delay_ms for _, delay_ms in told.values())
    assert delays_ms[len(delays_ms) // 2] < DELAY_MAX_MS, delays_ms
    answer = httpx.get(
        f"{stack.address('dashboard')}/api/devices/{device}/windows",
        headers={"Authorization": f"Bearer {stack.token(devices=device, role='viewer')}"},
        timeout=20,
    ).json()
    latest = answer["windows"]["1s"]["flow"]
    assert latest["start"] >= max(told)
    if latest["start"] in told:
        assert latest == {"start": latest["start"], "end": latest["end"], **told[latest["start"]][0]["flow"]}

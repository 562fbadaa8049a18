"""Live windows in a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from plantwire.platform.live_windows import DEVICES_PER_CALL, METRICS_PER_CALL, LiveWindows
from plantwire.schemas import topics
from plantwire.schemas.windows import FIVE_MINUTES, ONE_SECOND, WindowValues

END_MS = 1_700_000_000_000
ONE = WindowValues(1.0, 1.0, 1.0, 1)
TWO = WindowValues(3.0, 1.0, 2.0, 2)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushall()
        yield client


def _announced(channel: Any) -> list[Any]:
    batches = []
    while (message := channel.get_message(timeout=1)) is not None:
        if message["type"] == "message":
            batches.append(json.loads(message["data"]))
    return batches


def test_the_latest_window_is_kept_per_metric_and_announced(client: redis.Redis) -> None:
    windows = LiveWindows(client)
    with client.pubsub() as channel:
        channel.subscribe(topics.CHANNEL_WINDOWS)
        assert (
            windows.publish(ONE_SECOND, END_MS, {"press-1": {"x": ONE, "y": TWO}, "press-2": {"x": ONE}}) == 2
        )
        assert windows.publish(ONE_SECOND, END_MS + 1000, {"press-1": {"y": ONE}}) == 1
        first, second = _announced(channel)
    assert first == [
        {
            "deviceId": "press-1",
            "window": "1s",
            "start": END_MS - 1000,
            "end": END_MS,
            "metrics": {
                "x": {"avg": 1.0, "min": 1.0, "max": 1.0, "sum": 1.0, "count": 1},
                "y": {"avg": 1.5, "min": 1.0, "max": 2.0, "sum": 3.0, "count": 2},
            },
        },
        {
            "deviceId": "press-2",
            "window": "1s",
            "start": END_MS - 1000,
            "end": END_MS,
            "metrics": {"x": {"avg": 1.0, "min": 1.0, "max": 1.0, "sum": 1.0, "count": 1}},
        },
    ]
    assert [m["end"] for m in second] == [END_MS + 1000]
    latest = client.hgetall("window:1s:device:press-1")
    assert {metric: json.loads(value)["end"] for metric, value in latest.items()} == {
        "x": END_MS,
        "y": END_MS + 1000,
    }
    assert 0 < client.ttl("window:1s:device:press-1") <= 600
    assert client.get("window:1s:end:press-1") == str(END_MS + 1000)
    assert 0 < client.ttl("window:1s:end:press-1") <= 600


def test_a_replayed_window_changes_nothing_and_is_not_announced(client: redis.Redis) -> None:
    windows = LiveWindows(client)
    windows.publish(ONE_SECOND, END_MS, {"press-1": {"x": ONE}})
    with client.pubsub() as channel:
        channel.subscribe(topics.CHANNEL_WINDOWS)
        assert windows.publish(ONE_SECOND, END_MS, {"press-1": {"x": TWO}}) == 0
        assert windows.publish(ONE_SECOND, END_MS - 1000, {"press-1": {"x": TWO}, "press-3": {"x": ONE}}) == 1
        assert [[m["deviceId"] for m in batch] for batch in _announced(channel)] == [["press-3"]]
    assert json.loads(client.hget("window:1s:device:press-1", "x") or "")["count"] == 1
    # The other kind of window has a life of its own.
    assert windows.publish(FIVE_MINUTES, END_MS, {"press-1": {"x": TWO}}) == 1


def test_many_devices_are_written_in_several_steps(client: redis.Redis) -> None:
    devices = {f"press-{n}": {"x": ONE} for n in range(2 * DEVICES_PER_CALL + 1)}
    with client.pubsub() as channel:
        channel.subscribe(topics.CHANNEL_WINDOWS)
        assert LiveWindows(client).publish(ONE_SECOND, END_MS, devices) == len(devices)
        assert [len(batch) for batch in _announced(channel)] == [DEVICES_PER_CALL, DEVICES_PER_CALL, 1]


def test_a_step_is_bounded_in_metrics_too_and_no_device_is_torn(client: redis.Redis) -> None:
    """However many metrics there are: a script of them all would hold Redis, and with it alarms."""
    few = METRICS_PER_CALL // 4
    sizes = {
        "line-1": few,
        "line-2": few,
        "line-3": few,
        "line-4": few,
        "line-5": 1,
        "line-6": 3 * METRICS_PER_CALL,
    }
    devices = {device: {f"m-{n}": ONE for n in range(size)} for device, size in sizes.items()}
    with client.pubsub() as channel:
        channel.subscribe(topics.CHANNEL_WINDOWS)
        assert LiveWindows(client).publish(ONE_SECOND, END_MS, devices) == len(devices)
        batches = _announced(channel)
    assert [[message["deviceId"] for message in batch] for batch in batches] == [
        ["line-1", "line-2", "line-3", "line-4"],
        ["line-5"],
        ["line-6"],
    ]
    for message in (message for batch in batches for message in batch):
        shown = client.hgetall(f"window:1s:device:{message['deviceId']}")
        assert len(shown) == len(message["metrics"]) == sizes[message["deviceId"]]
        assert {json.loads(value)["end"] for value in shown.values()} == {END_MS}


def test_what_belongs_to_a_silent_device_expires_whatever_others_do(client: redis.Redis) -> None:
    windows = LiveWindows(client)
    windows.publish(ONE_SECOND, END_MS, {"press-1": {"x": ONE}, "press-2": {"x": ONE}})
    own = client.keys("*press-1")
    assert all(0 < client.ttl(key) <= 600 for key in own)
    assert client.delete(*own) == 2  # as if their time were over
    windows.publish(ONE_SECOND, END_MS + 1000, {"press-2": {"x": ONE}})
    assert sorted(client.keys("*")) == ["window:1s:device:press-2", "window:1s:end:press-2"]

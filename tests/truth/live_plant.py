"""A live part of the plant beside the generated one, and what is announced of its windows.

In: a broker, Redis. Out: what was sent, as records for the offline side; windows as they were announced, held
against windows computed from what was sent.
Guarantees: no announced window may hold a sample that was not sent, or one twice. Within quiet times every
window has to be announced, once, with all samples (docs/live-windows.md).
Not here: how windows come about (jobs/telemetry_aggregation).
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis

from plantwire.schemas import topics
from plantwire.schemas.records import Metric, TelemetryFrame
from tests.truth.odd_records import Sent
from tests.truth.pipeline import arguments_of, producer

DEVICES = 16
EVERY_MS = 200
SIZES_MS = {"1s": 1_000, "5m": 300_000}
SUMS_WITHIN = 1e-9
NEIGHBOURS_MS = 40
"""Half of the frames say that they are of a moment ago, so time stamps are out of order."""


class Window(NamedTuple):
    """Which window of which metric."""

    size: str
    device_id: str
    metric: str
    start_ms: int


class LivePlant:
    """Two threads between `start` and `stop`: one sends, one listens."""

    def __init__(self, bootstrap: str, redis_url: str) -> None:
        self._out = producer(bootstrap)
        self._redis_url = redis_url
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._listen)]
        self.records: list[Sent] = []
        self.errors: list[str] = []
        self.told: dict[Window, dict[str, float]] = {}
        self.told_twice: list[Window] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(60)

    def newest_ms(self, size: str) -> int:
        """The end of the newest window that was announced of every device; 0 before there is one."""
        ends: dict[str, int] = {}
        for window in list(self.told):
            if window.size == size:
                ends[window.device_id] = max(ends.get(window.device_id, 0), window.start_ms + SIZES_MS[size])
        return min(ends.values()) if len(ends) == DEVICES else 0

    def _send(self) -> None:
        rng = random.Random(5)
        while not self._ending.wait(EVERY_MS / 1000):
            for number in range(DEVICES):
                now_ms = time.time_ns() // 1_000_000
                at_ms = now_ms - rng.choice((0, rng.randrange(NEIGHBOURS_MS)))
                metrics = (Metric("flow", rng.gauss(5, 2)), Metric("head", rng.uniform(-1e6, 1e6)))
                name = f"live-{number:02}"
                frame = TelemetryFrame(name, "hall", None, at_ms, now_ms, "http", False, metrics)
                self.records.append(Sent(now_ms, name, frame))
                self._out.produce(**arguments_of(self.records[-1], now_ms), on_delivery=self._note)
            self._out.poll(0)
        if self._out.flush(30):
            self.errors.append("frames were not taken")

    def _note(self, error: object, _: object) -> None:
        if error is not None:
            self.errors.append(str(error))

    def _listen(self) -> None:
        client = redis.Redis.from_url(self._redis_url)
        with client, client.pubsub() as channel:
            channel.subscribe(topics.CHANNEL_WINDOWS)
            while not self._ending.is_set():
                message = channel.get_message(timeout=0.2)
                if message is not None and message["type"] == "message":
                    for told in json.loads(message["data"]):
                        self._take(told)

    def _take(self, told: dict[str, Any]) -> None:
        for metric, values in told["metrics"].items():
            window = Window(told["window"], told["deviceId"], metric, told["start"])
            if window in self.told:
                self.told_twice.append(window)
            self.told[window] = values


@contextmanager
def live_plant(bootstrap: str, redis_url: str) -> Iterator[LivePlant]:
    plant = LivePlant(bootstrap, redis_url)
    plant.start()
    try:
        yield plant
    finally:
        plant.stop()


def offline_windows(records: list[Sent]) -> dict[Window, list[float]]:
    """The numbers in each window, in the order in which they were measured."""
    found: dict[Window, list[float]] = {}
    for sent in records:
        assert sent.frame is not None
        at_ms = sent.frame.event_time_ms
        for metric in sent.frame.metrics:
            assert metric.number is not None
            starts = [("1s", at_ms // 1_000 * 1_000)]
            starts += [("5m", at_ms // 60_000 * 60_000 - minutes * 60_000) for minutes in range(5)]
            for size, start_ms in starts:
                window = Window(size, sent.frame.device_id, metric.name, start_ms)
                found.setdefault(window, []).append(metric.number)
    return found


def differs(told: dict[str, float], numbers: list[float]) -> str | None:
    """In what an announced window differs from the numbers that were sent in it."""
    total = math.fsum(numbers)
    size = math.fsum(map(abs, numbers))
    expected = {"count": len(numbers), "min": min(numbers), "max": max(numbers)}
    for name, value in expected.items():
        if told[name] != value:
            return f"{name} {told[name]} instead of {value}"
    if abs(told["sum"] - total) > SUMS_WITHIN * size:
        return f"sum {told['sum']} instead of {total}"
    if abs(told["avg"] - told["sum"] / told["count"]) > SUMS_WITHIN * size:
        return "avg is not sum / count"
    return None

"""A distribution process as users run it, and unchanged Socket.IO clients of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import redis
import socketio
import socketio.exceptions

from plantwire.platform.live_state import LiveState
from plantwire.stack.ports import free_ports
from tests.builders import TOKEN_SECRET, token

NAMESPACE = "/telemetry"
# Generous: it is waited for a condition, and a test machine may be busy.
DEADLINE_S = 60
READY_S = 60


class Distribution:
    """One process; `start` waits until it is ready (or only up, where Redis is not there)."""

    def __init__(self, redis_url: str, log_file: Path, **settings: str) -> None:
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.redis_url = redis_url
        self._log_file = log_file
        self._settings = {f"PLANTWIRE_DISTRIBUTION_{name.upper()}": value for name, value in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, path: str = "/readyz") -> None:
        environment = {
            **os.environ,
            "PLANTWIRE_REDIS": self.redis_url,
            "PLANTWIRE_TOKEN_SECRET": TOKEN_SECRET,
            "PLANTWIRE_DISTRIBUTION_PORT": str(self.port),
            **self._settings,
        }
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "plantwire.distribution"], env=environment, stderr=log, stdout=log
            )
        wait_for(lambda: self.status(path) == 200)

    def status(self, path: str) -> int | None:
        try:
            return httpx.get(self.url + path, timeout=5).status_code
        except httpx.TransportError:
            return None

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def log(self) -> str:
        return self._log_file.read_text("utf-8")

    def metric(self, name: str, **labels: str) -> float:
        """The value of a sample, 0 where there is none."""
        wanted = name + ("{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}" if labels else "")
        for line in httpx.get(self.url + "/metrics", timeout=5).text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample == wanted:
                return float(value)
        return 0.0


class Screen:
    """A client with python-socketio's own AsyncClient, unchanged; `events` is what came, in order."""

    def __init__(self, reconnection: bool = False) -> None:
        self.client = socketio.AsyncClient(
            reconnection=reconnection, reconnection_delay=0.1, reconnection_delay_max=0.2
        )
        self.events: list[tuple[str, Any]] = []
        self.refusals: list[Any] = []
        self.client.on("*", self._take, namespace=NAMESPACE)
        self.client.on("connect_error", self.refusals.append, namespace=NAMESPACE)

    async def _take(self, event: str, *data: Any) -> None:
        self.events.append((event, data[0] if data else None))

    def of(self, event: str) -> list[Any]:
        return [data for name, data in self.events if name == event]

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    async def connect(self, url: str, access: str | None, **options: Any) -> None:
        await self.client.connect(
            url,
            transports=["websocket"],
            namespaces=[NAMESPACE],
            auth={"token": access} if access is not None else None,
            wait_timeout=DEADLINE_S,
            **options,
        )


async def refused(url: str, access: str | None, **options: Any) -> Screen:
    """A client that was not let in, which is checked."""
    one = Screen()
    # The library leaves the session of a failed attempt open, unless it is ours.
    async with aiohttp.ClientSession() as session:
        one.client.eio.http = session
        one.client.eio.external_http = True
        with pytest.raises(socketio.exceptions.ConnectionError):
            await one.connect(url, access, **options)
    return one


def wait_for(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(0.02)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.005)


@asynccontextmanager
async def screen(
    url: str, *devices: str, access: str | None = None, reconnection: bool = False
) -> AsyncIterator[Screen]:
    """A connected client that has its initial-state."""
    one = Screen(reconnection)
    await one.connect(url, access or token(*devices))
    try:
        await until(lambda: one.of("initial-state"))
        yield one
    finally:
        await one.client.disconnect()


@pytest.fixture
def live(redis_url: str) -> Iterator[LiveState]:
    """A writer of the live picture, on an emptied Redis whose alarms are complete."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        writer = LiveState(client)
        writer.mark_alarms_complete()
        yield writer


@pytest.fixture
def start_distribution(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Distribution]]:
    """Starts processes; all are stopped at the end."""
    started: list[Distribution] = []

    def start(url: str = redis_url, path: str = "/readyz", **settings: str) -> Distribution:
        one = Distribution(url, tmp_path / f"distribution-{len(started)}.log", **settings)
        started.append(one)
        one.start(path)
        return one

    yield start
    for one in started:
        if one.process is not None and one.process.poll() is None:
            one.stop()


@pytest.fixture(scope="module")
def steady(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    """One process for the tests of a module that publish nothing."""
    one = Distribution(redis_url, tmp_path_factory.mktemp("steady") / "distribution.log")
    one.start()
    yield one
    one.stop()


@pytest.fixture
def distribution(live: LiveState, start_distribution: Callable[..., Distribution]) -> Distribution:
    """A process with default settings, ready."""
    return start_distribution()

"""Local clients of the gateway: python-socketio's own, unchanged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
import socketio
import socketio.exceptions

NAMESPACE = "/edge"
DEADLINE_S = 15.0


class LocalClient:
    """`events` is what came, in order: (event, data)."""

    def __init__(self) -> None:
        self.client = socketio.AsyncClient(reconnection=False)
        self.events: list[tuple[str, Any]] = []
        self.refusals: list[Any] = []
        self.lost = asyncio.Event()
        self.client.on("*", self._take, namespace=NAMESPACE)
        self.client.on("connect_error", self.refusals.append, namespace=NAMESPACE)
        self.client.on("disconnect", self._lose, namespace=NAMESPACE)

    async def _take(self, event: str, *data: Any) -> None:
        self.events.append((event, data[0] if data else None))

    async def _lose(self, _reason: Any = None) -> None:
        self.lost.set()

    def of(self, *names: str) -> list[Any]:
        return [data for name, data in self.events if name in names]

    def alarms(self) -> list[tuple[str, int, str]]:
        """(alarm id, revision, kind) of what was told, in order."""
        told = self.of("alarm", "alarm-updated", "alarm-cleared")
        return [(alarm["alarmId"], alarm["revision"], alarm["kind"]) for alarm in told]

    async def connect(self, url: str, access: str | None, **options: Any) -> None:
        await self.client.connect(
            url,
            transports=["websocket"],
            namespaces=[NAMESPACE],
            auth={"token": access} if access is not None else None,
            wait_timeout=DEADLINE_S,
            **options,
        )
        await until(lambda: self.of("initial-state"))

    @property
    def initial(self) -> Any:
        return self.of("initial-state")[0]


@contextlib.asynccontextmanager
async def local_client(url: str, access: str, **options: Any) -> AsyncIterator[LocalClient]:
    """A client that holds the initial state."""
    one = LocalClient()
    await one.connect(url, access, **options)
    try:
        yield one
    finally:
        await one.client.disconnect()


async def refusal(url: str, access: str | None, **options: Any) -> Any:
    """What a client is told that is not let in, which is checked."""
    one = LocalClient()
    # The library leaves the session of a failed attempt open, unless it is ours.
    async with aiohttp.ClientSession() as session:
        one.client.eio.http = session
        one.client.eio.external_http = True
        with pytest.raises(socketio.exceptions.ConnectionError):
            await one.connect(url, access, **options)
    return one.refusals[-1] if one.refusals else None


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.005)

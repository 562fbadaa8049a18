"""WebSockets without a token: one address cannot keep the others out with them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from plantwire.gateway.edge_alarms.local_socket import UNPROVEN_PER_ADDRESS_MAX, LocalSocket
from plantwire.gateway.edge_alarms.metrics import EdgeAlarmMetrics
from plantwire.gateway.edge_alarms.settings import EdgeAlarmSettings
from tests.builders import AUTHORITY


class Rig:
    """A LocalSocket, and WebSockets that never show a token."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        metrics = EdgeAlarmMetrics(self.registry)
        self.local = LocalSocket(EdgeAlarmSettings(), 8080, AUTHORITY, metrics, list, lambda: None)
        self.sockets: list[asyncio.Task[None]] = []

    async def open(self, host: str) -> str:
        """The type of the answer: accepted or closed."""
        answers: asyncio.Queue[str] = asyncio.Queue()
        opening = iter([{"type": "websocket.connect"}])

        async def receive() -> Any:
            for message in opening:
                return message
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            answers.put_nowait(message["type"])

        scope = {
            "type": "websocket",
            "path": "/socket.io/",
            "query_string": b"EIO=4&transport=websocket",
            "headers": [(b"host", b"gateway"), (b"upgrade", b"websocket"), (b"connection", b"Upgrade")],
            "client": (host, 1),
            "asgi": {"version": "3.0"},
        }
        self.sockets.append(asyncio.create_task(self.local(scope, receive, send)))
        async with asyncio.timeout(5):
            return await answers.get()

    async def close(self) -> None:
        for task in self.sockets:
            task.cancel()
        await asyncio.gather(*self.sockets, return_exceptions=True)


@pytest.mark.parametrize("host", ["10.0.0.1", "2001:db8::1"])
async def test_an_address_has_so_many(host: str) -> None:
    rig = Rig()
    for _ in range(UNPROVEN_PER_ADDRESS_MAX):
        assert await rig.open(host) == "websocket.accept"
    assert await rig.open(host) == "websocket.close"
    assert await rig.open("10.0.0.2") == "websocket.accept"
    refused = {"reason": "sockets-full"}
    assert rig.registry.get_sample_value("plantwire_gateway_edge_clients_refused_total", refused) == 1
    await rig.close()


async def test_a_proxy_on_this_machine_has_as_many_as_all() -> None:
    rig = Rig()
    for _ in range(UNPROVEN_PER_ADDRESS_MAX + 1):
        assert await rig.open("127.0.0.1") == "websocket.accept"
    await rig.close()

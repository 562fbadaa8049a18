"""Connections that say nothing, or are too many of one address, do not keep others out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, cast

import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect

from plantwire.gateway import http_connections
from plantwire.gateway.http_address import address_key, is_loopback
from plantwire.gateway.http_connections import BoundedHttpProtocol, ConnectionBounds, ConnectionMetrics

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
WINDOW_S = 0.15


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(2 * WINDOW_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class Served:
    """A server with bounds, on a free port."""

    def __init__(self, port: int, bounds: ConnectionBounds, registry: CollectorRegistry) -> None:
        self.port = port
        self.bounds = bounds
        self._registry = registry

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def closed(self, reason: str) -> float:
        name = "plantwire_gateway_connections_closed_total"
        return self._registry.get_sample_value(name, {"reason": reason}) or 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serving(per_address_max: int = 0, connections_max: int = 100) -> AsyncIterator[Served]:
    registry = CollectorRegistry()
    bounds = ConnectionBounds(WINDOW_S, per_address_max, ConnectionMetrics(registry))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            cast(Any, app),
            http=cast(type[asyncio.Protocol], partial(BoundedHttpProtocol, bounds)),
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            limit_concurrency=connections_max,
        )
    )
    task = asyncio.create_task(server._serve([listener]))
    served = Served(listener.getsockname()[1], bounds, registry)
    await served.until(lambda: server.started)
    try:
        yield served
    finally:
        server.should_exit = True
        await task
        listener.close()


async def test_silent_connections_make_room_for_others() -> None:
    async with serving(connections_max=5) as served:
        silent = [await served.open() for _ in range(6)]
        async with asyncio.timeout(5):
            assert [await reader.read() for reader, _ in silent] == [b""] * 6, "closed without a word"
        assert served.closed("header-timeout") == 6
        reader, writer = await served.open()
        writer.write(REQUEST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        for _, each in (*silent, (reader, writer)):
            each.close()


@pytest.mark.parametrize("begin", [b"GET /", b"GET / HTTP/1.1\r\nhost: x\r\n", b"\r\n"])
@pytest.mark.parametrize("first", [b"", REQUEST])
async def test_a_header_that_does_not_end_is_waited_for_no_longer(begin: bytes, first: bytes) -> None:
    async with serving() as served:
        reader, writer = await served.open()
        if first:
            writer.write(first)
            await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        async with asyncio.timeout(5):
            while not served.closed("header-timeout"):  # a byte now and then prolongs nothing
                writer.write(b"" if begin == b"\r\n" else b"x")
                await asyncio.sleep(WINDOW_S / 10)
            assert await reader.read() == b""
        writer.close()


async def test_a_request_that_is_served_may_take_longer() -> None:
    async with serving() as served:
        reader, writer = await served.open()
        for _ in range(2):
            writer.write(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"200" in await reader.readuntil(b"\r\n\r\n")
        assert served.closed("header-timeout") == 0
        writer.close()


async def test_an_address_has_so_many_connections_websockets_among_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_connections, "is_loopback", lambda _: False)
    async with serving(per_address_max=2) as served:
        async with connect(f"ws://127.0.0.1:{served.port}/"):
            reader, writer = await served.open()
            writer.write(REQUEST)
            await reader.readuntil(b"\r\n\r\n")
            refused, refused_writer = await served.open()
            async with asyncio.timeout(5):
                assert (await refused.read()).startswith(b"HTTP/1.1 503")
            assert served.closed("address-full") == 1
            refused_writer.close()
            await asyncio.sleep(2 * WINDOW_S)  # a WebSocket owes no header
        writer.close()
        await served.until(lambda: len(served.bounds) == 0)
        assert served.closed("header-timeout") == 0


def test_addresses_are_counted_apart_and_forgotten() -> None:
    bounds = ConnectionBounds(1.0, 1, ConnectionMetrics(CollectorRegistry()))
    assert bounds.enter("10.0.0.1") == "10.0.0.1"
    assert bounds.enter("10.0.0.1") is None
    assert bounds.enter("::ffff:10.0.0.1") is None
    site = bounds.enter("2001:db8::1")
    assert site
    assert bounds.enter("2001:db8::2") is None
    assert [bounds.enter("127.0.0.1"), bounds.enter("127.0.0.1"), bounds.enter(None)] == ["", "", ""]
    bounds.leave(site)
    bounds.leave("10.0.0.1")
    assert len(bounds) == 0


def test_what_is_one_sender() -> None:
    assert address_key("::ffff:10.0.0.1") == address_key("10.0.0.1")
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1") != address_key("2001:db8:0:1::1")
    assert address_key("not:an:address") == "not:an:address"
    loopback = [is_loopback(host) for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "x", "")]
    assert loopback == [True, True, True, False, False, False]

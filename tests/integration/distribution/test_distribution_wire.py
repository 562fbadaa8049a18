"""The bytes on the WebSocket: the same as the library's own, bounded for who does not read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import socketio
import uvicorn
import websockets
from websockets.asyncio.client import ClientConnection, connect

from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.packets import NAMESPACE, Packet
from plantwire.platform import direct_writer
from plantwire.platform.live_state import LiveState
from plantwire.platform.socket_channel import Channel, ChannelLimits
from tests.builders import alarm_event, token
from tests.integration.distribution.conftest import DEADLINE_S, Distribution, screen, until

EVENTS = [
    ("alarm", {"alarmId": "a", "value": 1.5, "hops": {"emitted": 2.25}}),
    ("telemetry", {"seq": 1, "data": {"text": "x" * 200, "none": None, "yes": True}}),
    ("initial-state", {"devices": [{"n": n} for n in range(20_000)]}),
]


class Library:
    """python-socketio as it is, with a channel in between as in production."""

    def __init__(self) -> None:
        self.server = socketio.AsyncServer(
            async_mode="asgi", transports=["websocket"], namespaces=[NAMESPACE]
        )
        self.channels: list[Channel] = []
        self.url = ""

    async def __call__(self, scope: dict, receive: object, send: object) -> None:  # type: ignore[type-arg]
        limits = ChannelLimits(60, 65536, 1 << 20)
        counters = DistributionMetrics()
        channel = Channel(receive, send, limits, NAMESPACE, counters, self.channels.append)  # type: ignore[arg-type]
        try:
            await self.server.handle_request(scope, channel.receive, channel.send)
        finally:
            channel.stop()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        config = uvicorn.Config(
            self,
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_ping_interval=None,
            lifespan="off",
            log_config=None,
        )
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
            server = uvicorn.Server(config)
            task = asyncio.create_task(server._serve([listener]))
            await until(lambda: server.started)
            try:
                yield
            finally:
                server.should_exit = True
                await task


@contextlib.asynccontextmanager
async def wire(url: str, access: str | None = None, **options: object) -> AsyncIterator[ClientConnection]:
    """A bare WebSocket that has sent CONNECT and read the answer to it."""
    address = url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
    async with connect(address, max_size=None, ping_interval=None, **options) as socket_:  # type: ignore[arg-type]
        assert (await socket_.recv())[:1] == "0"
        await socket_.send(f"40{NAMESPACE}," + json.dumps({"token": access}))
        assert str(await socket_.recv()).startswith(f"40{NAMESPACE},{{")
        yield socket_


async def until_closed(client: ClientConnection) -> None:
    async with asyncio.timeout(DEADLINE_S):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await client.recv()


@pytest.mark.parametrize("direct", [True, False])
async def test_events_are_the_librarys_own_byte_for_byte(
    direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not direct:
        monkeypatch.setattr("plantwire.platform.socket_channel.reach", lambda send: None)
    library = Library()
    async with library.serving(), wire(library.url) as client:
        await until(lambda: library.channels)
        (channel,) = library.channels
        assert channel.is_direct is direct
        for event, data in EVENTS:
            await library.server.emit(event, data, namespace=NAMESPACE)
            reference = await client.recv()
            packet = Packet(event, json.dumps(data, separators=(",", ":")).encode())
            assert channel.write([packet], packet.frame)
            assert await client.recv() == reference
        packets = [Packet("telemetry", b"%d" % number) for number in range(100)]
        assert channel.write(packets, b"".join(packet.frame for packet in packets))
        for number in range(100):
            assert await client.recv() == f'42{NAMESPACE},["telemetry",{number}]'


async def test_only_a_connection_whose_inside_is_known_is_written_to_directly() -> None:
    async def plain(message: object) -> None:
        raise AssertionError

    assert direct_writer.reach(plain) is None
    assert direct_writer.reach([].append) is None


async def test_a_closed_connection_takes_nothing_more_and_tells_the_reason() -> None:
    library = Library()
    async with library.serving(), wire(library.url) as client:
        await until(lambda: library.channels)
        (channel,) = library.channels
        channel.close(4008, "slow-client")
        packet = Packet("alarm", b"1")
        assert not channel.write([packet], packet.frame)
        with pytest.raises(websockets.ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4008, "slow-client")
        await until(lambda: not library.server.eio.sockets)


async def test_production_clients_are_written_to_directly_and_a_slow_one_does_not_hold_up_others(
    live: LiveState, start_distribution: Callable[..., Distribution]
) -> None:
    distribution = start_distribution(backlog_max_bytes="65536", socket_buffer_bytes="16384")
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    narrow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", distribution.port))
    disconnected = "plantwire_distribution_disconnected_total"
    async with (
        screen(distribution.url) as reading,
        wire(distribution.url, token(), sock=narrow, max_queue=1) as slow,
    ):
        assert distribution.metric("plantwire_distribution_accepted_total", path="direct") == 2
        slow.transport.pause_reading()
        number = 0
        async with asyncio.timeout(DEADLINE_S):
            while not distribution.metric(disconnected, reason="slow-client"):
                for _ in range(20):
                    number += 1
                    live.publish_telemetry("press-1", number, {"text": "x" * 2000})
                await asyncio.sleep(0.01)
        live.publish_alarm(alarm_event())
        await reading.until(lambda: reading.of("alarm") and len(reading.of("telemetry")) == number)
        assert [m["seq"] for m in reading.of("telemetry")] == list(range(1, number + 1))
        await until(lambda: distribution.metric("websocket_connections") == 1)
        assert distribution.metric(disconnected, reason="slow-client") == 1
        slow.transport.abort()
    assert "Traceback" not in distribution.log()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("42/telemetry,[broken", 1007),
        ("", 1007),
        (b"\x00\x01", 1007),
        ('451-/telemetry,["x",{"_placeholder":true,"num":0}]', 1007),
        ("42/telemetry," + json.dumps(["x", "y" * 70_000]), 1009),
    ],
)
async def test_what_is_not_the_protocol_closes_the_socket_and_nothing_else(
    steady: Distribution, message: str | bytes, code: int
) -> None:
    async with screen(steady.url) as other, wire(steady.url, token()) as client:
        await client.send(message)
        await until_closed(client)
        assert client.close_code == code
        assert other.client.connected
        await until(lambda: steady.metric("websocket_sockets") == 1)
    assert "Traceback" not in steady.log()


async def test_a_socket_without_a_token_is_closed_in_time(
    live: LiveState, start_distribution: Callable[..., Distribution]
) -> None:
    distribution = start_distribution(connect_timeout_s="0.3")
    address = distribution.url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket"
    async with connect(address) as client:
        await until_closed(client)
        assert (client.close_code, client.close_reason) == (1008, "no-token-in-time")
    await until(lambda: distribution.metric("websocket_sockets") == 0)


async def test_a_client_that_leaves_the_namespace_and_keeps_its_socket_is_closed_in_time(
    live: LiveState, start_distribution: Callable[..., Distribution]
) -> None:
    distribution = start_distribution(connect_timeout_s="0.3")
    async with wire(distribution.url, token()) as client:
        await client.send(f"41{NAMESPACE},")
        await until_closed(client)
        assert (client.close_code, client.close_reason) == (1008, "no-token-in-time")
    await until(lambda: distribution.metric("websocket_sockets") == 0)
    assert distribution.metric("websocket_connections") == 0
    assert "Traceback" not in distribution.log()


async def test_a_client_that_leaves_and_joins_again_on_its_socket_stays(
    live: LiveState, start_distribution: Callable[..., Distribution]
) -> None:
    distribution = start_distribution(connect_timeout_s="0.5")
    async with wire(distribution.url, token()) as client:
        await client.send(f"41{NAMESPACE},")
        await client.send(f"40{NAMESPACE}," + json.dumps({"token": token()}))
        await asyncio.sleep(1)  # longer than the time: nothing may happen
        live.publish_alarm(alarm_event())
        async with asyncio.timeout(DEADLINE_S):
            while '"alarm"' not in str(await client.recv()):
                pass
        assert distribution.metric("websocket_connections") == 1

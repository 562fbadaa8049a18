from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.packets import NAMESPACE, Packet
from plantwire.platform.socket_channel import Channel, ChannelLimits, is_packet

Message = MutableMapping[str, Any]
CONNECT = {"type": "websocket.send", "text": '40/telemetry,{"sid":"s"}'}
DISCONNECT = {"type": "websocket.send", "text": "41/telemetry,"}


class Socket:
    """The ASGI side: what the application sent; `gate` holds it back like a client that does not read."""

    def __init__(self, timeout_s: float = 60, backlog_max_bytes: int = 1000) -> None:
        self.sent: list[Message] = []
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self.connected: list[Channel] = []
        self.metrics = DistributionMetrics()
        limits = ChannelLimits(timeout_s, 100, backlog_max_bytes)
        self.channel = Channel(
            self.incoming.get, self._send, limits, NAMESPACE, self.metrics, self.connected.append
        )

    async def _send(self, message: Message) -> None:
        await self.gate.wait()
        self.sent.append(message)

    def texts(self) -> list[str]:
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]

    def closes(self) -> list[tuple[int, str]]:
        return [(m["code"], m["reason"]) for m in self.sent if m["type"] == "websocket.close"]

    def count(self, name: str, reason: str) -> float:
        metric = f"plantwire_distribution_{name}_total"
        return self.metrics.registry.get_sample_value(metric, {"reason": reason}) or 0.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.001)


def write(channel: Channel, body: bytes) -> bool:
    packet = Packet("alarm", body)
    return channel.write([packet], packet.frame)


async def test_events_go_out_between_connect_and_disconnect_only_and_in_order() -> None:
    socket = Socket()
    assert not write(socket.channel, b"0")
    await socket.channel.send(CONNECT)
    assert socket.connected == [socket.channel]
    assert not socket.channel.is_direct
    for body in (b"1", b"2", b"3"):
        assert write(socket.channel, body)
    await socket.channel.send(DISCONNECT)
    assert not write(socket.channel, b"4")
    events = [f'42/telemetry,["alarm",{n}]' for n in (1, 2, 3)]
    assert socket.texts() == [CONNECT["text"], *events, DISCONNECT["text"]]
    socket.channel.stop()


async def test_a_client_that_does_not_read_is_closed_as_slow_and_counted_once() -> None:
    socket = Socket()
    await socket.channel.send(CONNECT)
    socket.gate.clear()
    written = 0
    while write(socket.channel, b'"' + b"x" * 100 + b'"'):
        written += 1
        assert written < 20
    assert written > 5
    assert socket.count("disconnected", "slow-client") == 1
    assert not write(socket.channel, b"1")
    socket.gate.set()
    await until(lambda: bool(socket.closes()))
    assert socket.closes() == [(4008, "slow-client")]
    assert socket.count("disconnected", "slow-client") == 1


async def test_a_large_first_message_is_no_sign_of_slowness() -> None:
    socket = Socket(backlog_max_bytes=100)
    await socket.channel.send(CONNECT)
    assert write(socket.channel, b'"' + b"x" * 5000 + b'"')
    await until(lambda: len(socket.texts()) == 2)


async def test_behind_a_large_state_as_much_may_wait_as_without() -> None:
    socket = Socket(backlog_max_bytes=1000)
    await socket.channel.send(CONNECT)
    socket.gate.clear()
    state = Packet("initial-state", b'"' + b"x" * 50_000 + b'"')
    assert socket.channel.write_state(state)
    written = 0
    while write(socket.channel, b'"' + b"x" * 100 + b'"'):
        written += 1
        assert written < 20
    assert written > 5
    assert socket.count("disconnected", "slow-client") == 1
    socket.channel.stop()


async def test_states_on_states_do_not_pile_up_at_a_client_that_does_not_read() -> None:
    socket = Socket(backlog_max_bytes=1000)
    await socket.channel.send(CONNECT)
    socket.gate.clear()
    state = Packet("initial-state", b'"' + b"x" * 50_000 + b'"')
    assert [socket.channel.write_state(state) for _ in range(3)] == [True, True, False]
    socket.channel.stop()


async def test_a_socket_without_a_token_is_closed_in_time() -> None:
    socket = Socket(timeout_s=0.01)
    socket.channel.start()
    await until(lambda: bool(socket.closes()))
    assert socket.closes() == [(1008, "no-token-in-time")]


async def test_the_time_ends_with_connect_and_begins_again_with_disconnect() -> None:
    socket = Socket(timeout_s=0.05)
    socket.channel.start()
    await socket.channel.send(CONNECT)
    await asyncio.sleep(0.1)  # longer than the time: nothing may happen
    assert socket.closes() == []
    await socket.channel.send(DISCONNECT)
    await until(lambda: bool(socket.closes()))


async def test_the_time_begins_again_when_the_client_leaves_and_nothing_is_written_then() -> None:
    socket = Socket(timeout_s=0.05)
    await socket.channel.send(CONNECT)
    socket.channel.leave()
    assert not write(socket.channel, b"1")
    await until(lambda: bool(socket.closes()))
    assert socket.closes() == [(1008, "no-token-in-time")]


async def test_leaving_twice_gives_one_time_which_connecting_again_ends() -> None:
    socket = Socket(timeout_s=0.05)
    await socket.channel.send(CONNECT)
    await socket.channel.send(DISCONNECT)
    socket.channel.leave()
    await socket.channel.send(CONNECT)
    await asyncio.sleep(0.1)  # longer than the time: nothing may happen
    assert socket.closes() == []
    assert write(socket.channel, b"1")
    socket.channel.stop()


@pytest.mark.parametrize(
    ("message", "reason", "code"),
    [
        ({"bytes": b"\x00"}, "binary-message", 1007),
        ({"text": "x" * 101}, "message-too-big", 1009),
        ({"text": ""}, "malformed-message", 1007),
        ({"text": "42/telemetry,[broken"}, "malformed-message", 1007),
        ({"text": '451-["alarm",{"_placeholder":true,"num":0}]'}, "malformed-message", 1007),
    ],
)
async def test_what_may_not_be_sent_closes_the_socket(message: Message, reason: str, code: int) -> None:
    socket = Socket()
    await socket.incoming.put({"type": "websocket.receive", **message})
    received = await socket.channel.receive()
    assert received["type"] == "websocket.disconnect"
    assert socket.closes() == [(code, reason)]
    assert socket.count("dropped", reason) == 1


@pytest.mark.parametrize(
    "text",
    [
        "3",
        "2probe",
        "40/telemetry,",
        '40/telemetry,{"token":"t"}',
        "41/telemetry,",
        '42/telemetry,["resume",5]',
        '42/telemetry,17["request-missing",{}]',
        "43/telemetry,1[]",
        '40{"token":"t"}',
        "40",
    ],
)
async def test_what_clients_send_is_passed_on(text: str) -> None:
    socket = Socket()
    await socket.incoming.put({"type": "websocket.receive", "text": text})
    assert (await socket.channel.receive())["text"] == text


def test_a_body_that_nests_too_deep_for_the_librarys_parser_is_refused() -> None:
    deep = '["x",' + "[" * 600 + "]" * 600 + "]"
    assert json.loads(deep)[0] == "x"
    assert not is_packet("42/telemetry," + deep)


@given(st.text(max_size=50))
def test_nothing_that_is_taken_for_a_packet_has_a_broken_body(text: str) -> None:
    assert not is_packet("42/telemetry,[" + text) or json.loads("[" + text)
    assert not is_packet("9" + text)
    assert not is_packet("44/telemetry," + text)

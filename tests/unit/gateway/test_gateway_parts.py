"""How the process serves and stops: every part is closed, in order, whatever the others do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from plantwire.gateway import parts as parts_module
from plantwire.gateway.parts import Parts
from plantwire.gateway.settings import GatewaySettings

ORDER = ["drain", "sparkplug", "mqtt", "local", "forwarder", "edge", "rules", "buffer"]


class Part:
    """Notes that it was closed; fails or hangs where told to."""

    def __init__(self, name: str, closed: list[str], returns: object) -> None:
        self.name = name
        self.closed = closed
        self.returns = returns
        self.fails = False
        self.hangs = False

    async def close(self, _timeout_s: float = 0) -> object:
        self.closed.append(self.name)
        if self.fails:
            raise AttributeError(self.name)
        if self.hangs:
            await asyncio.Event().wait()
        return self.returns


class Rig:
    """The process with parts that only close."""

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        settings = GatewaySettings(
            token_secret="k" * 32,
            gateway_buffer_folder=folder,
            gateway_edge_alarms=True,
            gateway_drain_timeout_s=0.01,
            gateway_header_timeout_s=0.1,
        )
        self.listener = listener
        self.parts = Parts(settings, listener)
        self.closed: list[str] = []
        returns = {"mqtt": 0, "forwarder": 0, "buffer": True}
        self.fakes = {name: Part(name, self.closed, returns.get(name)) for name in ORDER}
        for name, fake in self.fakes.items():
            setattr(self.parts, f"_{name}", fake)

    async def stop(self) -> bool:
        async def run() -> None: ...

        parts = cast(Any, self.parts)
        parts._working = [asyncio.create_task(asyncio.Event().wait())]
        parts._serving = asyncio.create_task(run())
        return await self.parts.stop(True)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Rig(tmp_path, listener)


async def test_everything_is_closed_input_first_and_the_buffer_last(rig: Rig) -> None:
    assert await rig.stop()
    assert rig.closed == ORDER


@pytest.mark.parametrize("name", ORDER)
async def test_a_part_that_fails_keeps_no_other_from_closing(rig: Rig, name: str) -> None:
    rig.fakes[name].fails = True
    with capture_logs() as entries:
        assert not await rig.stop()
    assert rig.closed == ORDER
    assert [type(e["exc_info"]) for e in entries if e["event"] == "stop_step_failed"] == [AttributeError]


async def test_a_part_that_hangs_is_left_after_a_while(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "STOP_STEP_GRACE_S", 0.01)
    rig.fakes["drain"].hangs = True
    async with asyncio.timeout(5):
        assert not await rig.stop()
    assert rig.closed == ORDER


async def test_a_connection_that_says_nothing_is_closed(rig: Rig) -> None:
    server = cast(Any, rig.parts)._server
    serving = asyncio.create_task(server.serve(sockets=[rig.listener]))
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*rig.listener.getsockname())
        assert await reader.read() == b""
        writer.close()
        server.should_exit = True
        await serving
    closed = cast(Any, rig.parts)._metrics.registry.get_sample_value(
        "plantwire_gateway_connections_closed_total", {"reason": "header-timeout"}
    )
    assert closed == 1

"""The local WebSocket, served by the gateway's web server: who gets in, what comes, who is let go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from websockets.asyncio.client import connect

from plantwire.gateway.edge_alarms.local_socket import AT_CAPACITY, LocalSocket
from plantwire.gateway.edge_alarms.metrics import EdgeAlarmMetrics
from plantwire.gateway.edge_alarms.settings import EdgeAlarmSettings
from plantwire.schemas.records import AlarmEvent, AlarmKind
from plantwire.schemas.wire import alarm_to_wire
from tests.builders import AUTHORITY, alarm_event, token
from tests.integration.gateway.edge_rig import local_client, refusal, until


class Served:
    """A LocalSocket on a free port."""

    def __init__(self, **settings: Any) -> None:
        self.settings = EdgeAlarmSettings(
            **{f"gateway_edge_{name}": value for name, value in settings.items()}
        )
        self.registry = CollectorRegistry()
        self.active: list[AlarmEvent] = []
        self.rules: int | None = 3

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"plantwire_gateway_edge_{name}", labels) or 0.0

    async def __aenter__(self) -> Served:
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.local = LocalSocket(
            self.settings,
            port,
            AUTHORITY,
            EdgeAlarmMetrics(self.registry),
            lambda: self.active,
            lambda: self.rules,
        )
        config = uvicorn.Config(
            self.local,  # type: ignore[arg-type]
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_ping_interval=None,
            lifespan="off",
            log_config=None,
        )
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server._serve([self._listener]))
        await until(lambda: self._server.started)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.local.close()
        self._server.should_exit = True
        await self._task
        self._listener.close()


async def test_a_client_gets_the_state_and_then_every_event_once_in_order() -> None:
    async with Served() as served:
        raised = alarm_event()
        served.active.append(raised)
        async with local_client(served.url, token()) as client:
            assert client.initial["rules"] == 3
            assert client.initial["alarms"] == [alarm_to_wire(raised)]
            changed = alarm_event(revision=2, kind=AlarmKind.SEVERITY_CHANGED)
            cleared = alarm_event(revision=3, kind=AlarmKind.CLEARED, value=1.0)
            again = alarm_event(revision=4, kind=AlarmKind.RAISED)
            for event in (changed, cleared, again):
                served.local.tell(event)
            await until(lambda: len(client.events) == 4)
        names = [name for name, _ in client.events]
        assert names == ["initial-state", "alarm-updated", "alarm-cleared", "alarm"]
        told = client.events[2][1]
        assert told["hops"].pop("emitted") >= cleared.published_us / 1000
        assert told == alarm_to_wire(cleared)
        assert told["state"] == "CLEARED_UNACKNOWLEDGED"
        await until(lambda: served.counted("clients") == 0)


async def test_a_token_covers_its_devices_and_no_other() -> None:
    async with Served() as served:
        served.active += [alarm_event(device_id="press-1"), alarm_event(device_id="oven-1", severity=3)]
        async with (
            local_client(served.url, token("oven-1")) as one,
            local_client(served.url, token()) as every,
        ):
            assert [alarm["deviceId"] for alarm in one.initial["alarms"]] == ["oven-1"]
            assert [alarm["deviceId"] for alarm in every.initial["alarms"]] == ["press-1", "oven-1"]
            for device_id in ("press-1", "press-2", "oven-1"):
                served.local.tell(alarm_event(device_id=device_id))
            await until(lambda: len(every.of("alarm")) == 3)
            await until(lambda: one.of("alarm"))
            assert [alarm["deviceId"] for alarm in one.of("alarm")] == ["oven-1"]


async def test_only_who_has_a_valid_token_from_an_allowed_origin_gets_in() -> None:
    async with Served(origins="https://plant.example, https://panel.example") as served:
        assert await refusal(served.url, None) == {"message": "no token"}
        assert (await refusal(served.url, "nonsense"))["message"].startswith("token not valid")
        expired = token(lifetime_s=-10)
        assert await refusal(served.url, expired) == {"message": "token expired"}
        forged = token()[:-8] + "AAAAAAAA"
        assert (await refusal(served.url, forged))["message"].startswith("token not valid")
        assert served.counted("clients_refused_total", reason="token") == 4
        await refusal(served.url, token(), headers={"Origin": "https://elsewhere.example"})
        headers = {"Origin": "https://panel.example"}
        async with local_client(served.url, token(), headers=headers) as client:
            assert client.initial["alarms"] == []


async def test_clients_are_bounded_and_who_leaves_makes_room() -> None:
    async with Served(clients_max=2) as served:
        async with local_client(served.url, token()), local_client(served.url, token()):
            assert await refusal(served.url, token()) == {"message": AT_CAPACITY}
        await until(lambda: served.counted("clients") == 0)
        async with local_client(served.url, token()):
            pass


async def test_a_session_ends_with_its_token() -> None:
    async with Served() as served, local_client(served.url, token(lifetime_s=2)) as client:
        await asyncio.wait_for(client.lost.wait(), 10)
        assert client.events[-1] == ("session-ended", {"reason": "token-expired"})
        served.local.tell(alarm_event())
        assert client.of("alarm") == []


async def test_who_shows_no_token_is_closed_and_what_is_no_packet_too() -> None:
    async with Served(connect_timeout_s=0.2) as served:
        address = served.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        async with connect(address) as idle:
            await asyncio.wait_for(idle.wait_closed(), 10)
            assert idle.close_code == 1008
        async with connect(address) as rude:
            await rude.send("4nonsense")
            await asyncio.wait_for(rude.wait_closed(), 10)
            assert rude.close_code == 1007
        async with local_client(served.url, token()) as client:
            await client.client.emit("acknowledge", {"alarmId": "x"}, namespace="/edge")
            answer = await client.client.call("anything", namespace="/edge", timeout=5)
            assert answer == {"error": "unknown event"}


async def test_a_client_that_does_not_read_is_let_go_and_others_do_not_wait() -> None:
    async with Served(backlog_max_bytes=65536) as served:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect(("127.0.0.1", int(served.url.rpartition(":")[2])))
        address = served.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        async with local_client(served.url, token()) as quick, connect(address, sock=narrow) as slow:
            await slow.recv()
            await slow.send("40/edge," + json.dumps({"token": token()}))
            await until(lambda: served.counted("clients") == 2)
            slow.transport.pause_reading()  # type: ignore[union-attr]
            told = 0
            while not served.counted("clients_disconnected_total", reason="slow-client"):
                served.local.tell(alarm_event(revision=told))
                told += 1
                assert told < 2000, "a client that does not read is not noticed"
                if told % 20 == 0:
                    await asyncio.sleep(0)
            await until(lambda: len(quick.of("alarm")) == told)
            await until(lambda: served.counted("clients") == 1)
            slow.transport.abort()  # type: ignore[union-attr]
            with contextlib.suppress(Exception):
                await slow.wait_closed()


async def test_a_stop_tells_clients_to_come_again() -> None:
    async with Served() as served:
        address = served.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        async with connect(address) as client:
            await client.recv()
            await client.send("40/edge," + json.dumps({"token": token()}))
            await until(lambda: served.counted("clients") == 1)
            await served.local.close()
            await asyncio.wait_for(client.wait_closed(), 10)
            assert client.close_code == 1012

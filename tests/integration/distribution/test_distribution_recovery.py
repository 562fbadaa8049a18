"""What clients see when Redis or the process goes away and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from plantwire.platform.live_state import LiveState
from plantwire.schemas.records import AlarmKind
from plantwire.schemas.severity import Severity
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.redis import Redis
from tests.builders import alarm_event, token
from tests.integration.distribution.conftest import DEADLINE_S, READY_S, Distribution, screen, until


class Cable:
    """A TCP relay to Redis that can be cut and joined again; Redis itself keeps running."""

    def __init__(self, redis_url: str) -> None:
        target = urlsplit(redis_url)
        self._target = (str(target.hostname), int(target.port or 0))
        self._port = free_ports(1)[0]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    async def join(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self._port)

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await self._server.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            redis_reader, redis_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, redis_writer}
        for source, sink in ((reader, redis_writer), (redis_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()
        self._writers.discard(sink)


@pytest.fixture
async def cable(redis_url: str) -> AsyncIterator[Cable]:
    cable = Cable(redis_url)
    await cable.join()
    yield cable
    await cable.cut()


async def test_what_happened_while_redis_was_out_of_reach_is_told_afterwards(
    live: LiveState, cable: Cable, start_distribution: Callable[..., Distribution]
) -> None:
    live.publish_telemetry("press-1", 1, {"n": 1})
    live.publish_alarm(alarm_event(alarm_id="goes"))
    live.publish_alarm(alarm_event(alarm_id="stays"))
    live.publish_alarm(alarm_event(alarm_id="grows", severity=Severity.HIGH.value))
    distribution = await asyncio.to_thread(start_distribution, cable.url)
    async with screen(distribution.url) as client:
        await cable.cut()
        await client.until(lambda: client.of("source-status"))
        assert client.of("source-status")[-1]["live"] is False
        assert await asyncio.to_thread(distribution.status, "/readyz") == 503
        assert await asyncio.to_thread(distribution.status, "/healthz") == 200
        async with screen(distribution.url) as late:
            (state,) = late.of("initial-state")
            assert (state["live"], len(state["alarms"]), len(state["devices"])) == (False, 3, 1)
        live.publish_alarm(alarm_event(alarm_id="comes"))
        live.publish_alarm(alarm_event(alarm_id="goes", revision=2, kind=AlarmKind.CLEARED))
        live.publish_alarm(alarm_event(alarm_id="grows", revision=2, kind=AlarmKind.SEVERITY_CHANGED))
        live.publish_alarm(alarm_event(alarm_id="brief"))
        live.publish_alarm(alarm_event(alarm_id="brief", revision=2, kind=AlarmKind.CLEARED))
        live.publish_telemetry("press-1", 2, {"n": 2})
        client.events.clear()
        await cable.join()
        await client.until(lambda: client.of("source-status") and client.of("initial-state"))
        assert client.of("source-status")[-1]["live"] is True
        assert [a["alarmId"] for a in client.of("alarm")] == ["comes"]
        assert [a["alarmId"] for a in client.of("alarm-updated")] == ["grows"]
        assert [(a["alarmId"], a["revision"]) for a in client.of("alarm-cleared")] == [("goes", 2)]
        (state,) = client.of("initial-state")
        assert [device["seq"] for device in state["devices"]] == [2]
        live.publish_telemetry("press-1", 3, {"n": 3})
        await client.until(lambda: client.of("telemetry"))
        assert client.of("telemetry")[-1]["seq"] == 3
        assert await asyncio.to_thread(distribution.status, "/readyz") == 200


async def test_a_redis_that_lost_everything_keeps_alarms_until_they_are_known_again(
    tmp_path: Path, start_distribution: Callable[..., Distribution]
) -> None:
    port = free_ports(1)[0]
    server = Redis(tmp_path / "redis", port, tmp_path / "redis.log")
    server.prepare()

    def started() -> LiveState:
        server.start()
        server.wait_ready(READY_S)
        return LiveState(redis.Redis.from_url(server.url))

    def killed() -> None:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)  # an orderly stop would keep the data
        server.stop()

    live = await asyncio.to_thread(started)
    try:
        live.mark_alarms_complete()
        for number in (1, 2, 3):
            live.publish_telemetry("press-1", number, {"n": number})
        live.publish_alarm(alarm_event(alarm_id="stays"))
        live.publish_alarm(alarm_event(alarm_id="over"))
        distribution = await asyncio.to_thread(start_distribution, server.url)
        async with screen(distribution.url) as client:
            (before,) = client.of("initial-state")
            await asyncio.to_thread(killed)
            await client.until(lambda: client.of("source-status"))
            live = await asyncio.to_thread(started)
            await client.until(lambda: client.of("source-status")[-1]["live"])
            live.publish_telemetry("press-1", 9, {"n": 9})
            await client.until(
                lambda: (
                    [s for s in client.of("initial-state") if s["epoch"] not in {None, before["epoch"]}]
                    and client.events[-1][0] in {"initial-state", "telemetry"}
                )
            )
            after = client.of("initial-state")[-1]
            assert {a["alarmId"] for a in after["alarms"]} == {"stays", "over"}
            assert client.of("alarm-cleared") == []
            assert after["alarmsComplete"] is False
            seen = [d["seq"] for d in after["devices"]] + [m["seq"] for m in client.of("telemetry")]
            assert set(seen) == {1}
            live.publish_alarm(alarm_event(alarm_id="stays"))
            live.mark_alarms_complete()
            await client.until(lambda: client.of("alarm-cleared"))
            assert [a["alarmId"] for a in client.of("alarm-cleared")] == ["over"]
            assert client.of("alarm") == []
            await client.until(lambda: client.of("initial-state")[-1]["alarmsComplete"])
            assert [a["alarmId"] for a in client.of("initial-state")[-1]["alarms"]] == ["stays"]
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_process_that_starts_before_redis_has_all_alarms_serves_what_there_is_and_says_so(
    redis_url: str, start_distribution: Callable[..., Distribution]
) -> None:
    def emptied() -> LiveState:
        client = redis.Redis.from_url(redis_url)
        client.flushall()
        return LiveState(client)

    live = await asyncio.to_thread(emptied)
    live.publish_telemetry("press-1", 1, {"n": 1})
    distribution = await asyncio.to_thread(start_distribution, redis_url)

    async def answer(path: str) -> httpx.Response:
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token()}"}) as client:
            return await client.get(distribution.url + path)

    async with screen(distribution.url) as client:
        (state,) = client.of("initial-state")
        assert (state["live"], state["alarmsComplete"], state["alarms"]) == (True, False, [])
        assert (await answer("/api/alarms")).headers["plantwire-live"] == "false"
        assert (await answer("/api/devices/telemetry/latest")).headers["plantwire-live"] == "true"
        assert (await answer("/readyz")).json()["alarmsComplete"] is False
        live.publish_telemetry("press-1", 2, {"n": 2})
        live.publish_alarm(alarm_event(alarm_id="raised"))
        await client.until(lambda: client.of("telemetry") and client.of("alarm"))
        live.mark_alarms_complete()
        await client.until(lambda: len(client.of("initial-state")) > 1)
        state = client.of("initial-state")[-1]
        assert (state["alarmsComplete"], [a["alarmId"] for a in state["alarms"]]) == (True, ["raised"])
        assert client.of("alarm-cleared") == []
        assert (await answer("/api/alarms")).headers["plantwire-live"] == "true"


async def test_without_redis_the_process_is_up_and_says_so(
    tmp_path: Path, start_distribution: Callable[..., Distribution]
) -> None:
    port = free_ports(1)[0]
    distribution = await asyncio.to_thread(start_distribution, f"redis://127.0.0.1:{port}/0", "/healthz")
    assert distribution.status("/readyz") == 503
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token()}"}) as client:
        answer = await client.get(f"{distribution.url}/api/alarms")
    assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
    server = Redis(tmp_path / "redis", port, tmp_path / "redis.log")
    server.prepare()
    server.start()
    try:
        await until(lambda: distribution.status("/readyz") == 200)
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_killed_process_comes_back_and_its_clients_have_the_alarms(
    live: LiveState, distribution: Distribution
) -> None:
    live.publish_alarm(alarm_event(alarm_id="before"))
    async with screen(distribution.url, reconnection=True) as client:
        await asyncio.to_thread(distribution.kill)
        await client.until(lambda: not client.client.connected)
        live.publish_alarm(alarm_event(alarm_id="meanwhile"))
        client.events.clear()
        await asyncio.to_thread(distribution.start)
        await client.until(lambda: client.of("initial-state"))
        state = client.of("initial-state")[0]
        assert {a["alarmId"] for a in state["alarms"]} == {"before", "meanwhile"}
        live.publish_alarm(alarm_event(alarm_id="after"))
        await client.until(lambda: client.of("alarm"))
        assert client.of("alarm")[0]["alarmId"] == "after"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_cleanly_and_clients_try_again(
    live: LiveState, distribution: Distribution, number: signal.Signals
) -> None:
    async with screen(distribution.url, reconnection=True) as client:
        assert distribution.process is not None
        distribution.process.send_signal(number)
        assert await asyncio.to_thread(distribution.process.wait, DEADLINE_S) == 0
        await client.until(lambda: not client.client.connected)
        client.events.clear()
        await asyncio.to_thread(distribution.start)
        await client.until(lambda: client.of("initial-state"))
    assert "Traceback" not in distribution.log()

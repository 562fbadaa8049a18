"""The bench's light clients see what unchanged official clients see, from a real distribution process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
import redis

from bench.bench_process import bench_process
from bench.receipts import Receipts, read_receipts
from bench.socket_clients import ClientOrder
from bench.stack_control import BenchError
from plantwire.platform.live_state import LiveState
from plantwire.schemas.records import AlarmKind
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.process import wait_until
from tests.builders import TOKEN_SECRET, alarm_event, token

READY_S = 60
LIGHT, OFFICIAL = 3, 2
ALARMS, TELEMETRY = 20, 15


@pytest.fixture
def distribution_url(redis_url: str, tmp_path: Path) -> Iterator[str]:
    """A distribution process on an empty Redis."""
    redis.Redis.from_url(redis_url).flushdb()
    port = free_ports(1)[0]
    environment = {
        **os.environ,
        "PLANTWIRE_REDIS": redis_url,
        "PLANTWIRE_TOKEN_SECRET": TOKEN_SECRET,
        "PLANTWIRE_DISTRIBUTION_PORT": str(port),
    }
    with (tmp_path / "distribution.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "plantwire.distribution"], env=environment, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"

    def probe() -> str | None:
        try:
            status = httpx.get(url + "/readyz", timeout=5).status_code
        except httpx.TransportError as error:
            return str(error)
        return None if status == 200 else f"status {status}"

    try:
        wait_until(probe, READY_S, "distribution")
        yield url
    finally:
        process.terminate()
        process.wait(READY_S)


def events_of(receipts: Receipts, client: int) -> Counter[tuple[str, str, int]]:
    seen: Counter[tuple[str, str, int]] = Counter()
    for who, number in zip(receipts.clients, receipts.numbers, strict=True):
        if who == client:
            event, alarm = msgspec.json.decode(receipts.messages[number])
            seen[event, alarm["alarmId"], alarm["revision"]] += 1
    return seen


async def test_light_and_official_clients_record_the_same(
    distribution_url: str, redis_url: str, tmp_path: Path
) -> None:
    files = tmp_path / "light.json", tmp_path / "official.json"
    light_order = ClientOrder(distribution_url, token(), LIGHT, 0, str(files[0]))
    official_order = ClientOrder(distribution_url, token(), OFFICIAL, LIGHT, str(files[1]))
    live_state = LiveState(redis.Redis.from_url(redis_url))
    async with (
        bench_process("bench.socket_clients", light_order) as light,
        bench_process("bench.official_clients", official_order) as official,
    ):
        await light.hear("ready", READY_S)
        await official.hear("ready", READY_S)
        before_ns = time.time_ns()
        for number in range(ALARMS):
            raised = alarm_event(alarm_id=f"alarm-{number}")
            live_state.publish_alarm(raised)
            live_state.publish_alarm(
                msgspec.structs.replace(raised, kind=AlarmKind.CLEARED, revision=raised.revision + 1)
            )
        for number in range(TELEMETRY):
            live_state.publish_telemetry("press-1", 1_750_000_000_000 + number, {"temperature": 1.0 + number})
        for clients, count in ((light, LIGHT), (official, OFFICIAL)):
            telemetry = 0
            deadline_s = time.monotonic() + READY_S
            while telemetry < TELEMETRY * count and time.monotonic() < deadline_s:
                clients.say(b"mark")
                telemetry = int((await clients.hear("mark", READY_S))["telemetry"])
            assert telemetry == TELEMETRY * count
            await clients.end()
    light_receipts, official_receipts = (read_receipts(file) for file in files)
    wanted = Counter({("alarm", f"alarm-{n}", 1): 1 for n in range(ALARMS)})
    wanted += Counter({("alarm-cleared", f"alarm-{n}", 2): 1 for n in range(ALARMS)})
    for client in range(LIGHT):
        assert events_of(light_receipts, client) == wanted
    for client in range(LIGHT, LIGHT + OFFICIAL):
        assert events_of(official_receipts, client) == wanted
    assert light_receipts.disconnected == official_receipts.disconnected == []
    assert min(light_receipts.received_ns) > before_ns


@pytest.mark.parametrize("module", ["bench.socket_clients", "bench.official_clients"])
async def test_a_refused_client_says_so(module: str, distribution_url: str, tmp_path: Path) -> None:
    order = ClientOrder(distribution_url, token(lifetime_s=-10), 1, 0, str(tmp_path / "none.json"))
    async with bench_process(module, order) as clients:
        with pytest.raises(BenchError, match="refused"):
            await clients.hear("ready", READY_S)

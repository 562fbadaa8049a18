"""The load generator sends the plan as planned and counts what becomes of it, over real connections."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import defaultdict
from typing import Any

from bench.load_generator import LoadResult, Order, generate
from bench.load_schedule import LoadPlan, device_id, metric_name

PLAN = LoadPlan(
    frames_per_s=200, devices=10, raises_per_s=5, hold_ms=300, warm_up_ms=200, window_ms=600, tail_ms=700
)


class Gateway:
    """Answers every request with the next of `statuses`, over and over; 0 closes the connection."""

    def __init__(self, statuses: list[int], delay_s: float = 0.0) -> None:
        self._statuses = statuses
        self._delay_s = delay_s
        self.frames: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.heads: list[str] = []
        self._count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
                body = await reader.readexactly(int(fields["Content-Length"]))
                self.heads.append(head)
                self.frames[head.split("/")[4]].append(json.loads(body))
                await asyncio.sleep(self._delay_s)
                status = self._statuses[self._count % len(self._statuses)]
                self._count += 1
                if status == 0:
                    break
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        except asyncio.IncompleteReadError:
            pass  # the generator has closed the connection
        finally:
            writer.close()


async def load(gateway: Gateway, plan: LoadPlan = PLAN) -> LoadResult:
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await generate(Order(f"http://127.0.0.1:{port}", "a-token", plan))


async def test_every_frame_is_sent_once_at_its_device_in_order() -> None:
    gateway = Gateway([202])
    result = await load(gateway)
    assert (result.planned, result.sent, result.accepted) == (PLAN.frame_count,) * 3
    assert result.not_accepted == {}
    for device in range(PLAN.devices):
        times = [frame["timestamp"] for frame in gateway.frames[device_id(device)]]
        assert len(times) == PLAN.frame_count / PLAN.devices
        assert {b - a for a, b in itertools.pairwise(times)} == {PLAN.device_interval_ms}
    assert all("Authorization: Bearer a-token" in head for head in gateway.heads)


async def test_metrics_are_over_the_limit_exactly_while_planned() -> None:
    gateway = Gateway([202])
    await load(gateway)
    first_ms = gateway.frames[device_id(0)][0]["timestamp"]
    over = {
        (device, frame["timestamp"] - first_ms, name)
        for device, frames in gateway.frames.items()
        for frame in frames
        for name, value in frame["metrics"].items()
        if value > 100
    }
    planned = {
        (device_id(r.device), offset_ms, metric_name(r.metric))
        for r in PLAN.raises()
        for offset_ms in range(r.raise_offset_ms, r.clear_offset_ms, PLAN.device_interval_ms)
    }
    assert over == planned
    assert planned


async def test_what_is_not_accepted_is_counted_by_reason() -> None:
    result = await load(Gateway([202, 202, 202, 503]))
    assert result.accepted == PLAN.frame_count * 3 / 4
    assert result.not_accepted == {"status 503": PLAN.frame_count / 4}


async def test_a_slow_gateway_makes_answers_late_but_not_the_schedule() -> None:
    gateway = Gateway([202], delay_s=0.1)  # a device sends every 50 ms, without pipelining
    result = await load(gateway)
    times = [frame["timestamp"] for frame in gateway.frames[device_id(3)]]
    assert {b - a for a, b in itertools.pairwise(times)} == {PLAN.device_interval_ms}
    assert result.accepted == PLAN.frame_count
    assert result.late_ms is not None
    assert result.late_ms.max > 300


async def test_lost_connections_are_counted_and_nothing_is_sent_twice() -> None:
    gateway = Gateway([202] * 99 + [0])
    result = await load(gateway)
    received = sum(len(frames) for frames in gateway.frames.values())
    assert result.not_accepted["connection lost"] >= 1
    assert received == result.sent == result.accepted + result.not_accepted["connection lost"]
    assert result.accepted + sum(result.not_accepted.values()) == result.planned

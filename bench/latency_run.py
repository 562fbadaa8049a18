"""One measured run of the whole path: load in at the gateway, alarms out at many clients.

In: a running stack, a plan. Out: `LatencyRun`.
Guarantees: clients are connected before the load begins; CPU seconds are of the window alone; what
`alarms.fire` holds is read afterwards, so that reading it costs the measurement nothing.
Not here: targets and tables (`bench.latency`), the search for the knee (`bench.knee`).
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import msgspec
import psutil

from bench.alarm_topic import AlarmTopicReader
from bench.bench_process import BenchProcess, bench_process
from bench.cpu import Usage, family, take_moment, usage_between
from bench.deliveries import Deliveries, ExpectedRaise, compare
from bench.fire_check import FireCheck, check_fire
from bench.freshness import Freshness, FreshnessWatch
from bench.load_generator import LoadResult, Order
from bench.load_schedule import LoadPlan, device_id, metric_name
from bench.receipts import read_receipts
from bench.socket_clients import ClientOrder
from bench.stack_control import Stack, merged
from plantwire.schemas.topics import ALARMS_FIRE

CONNECT_TIMEOUT_S: Final = 120.0
MARK_TIMEOUT_S: Final = 10.0
# After the load: how long the pipeline may take to catch up before what is missing counts as lost.
CATCH_UP_QUIET_S: Final = 2.0
FINISH_TIMEOUT_S: Final = 60.0


class LatencyRun(msgspec.Struct, frozen=True):
    """What one run gave."""

    plan: LoadPlan
    load: LoadResult
    delivered: Deliveries
    official: Deliveries
    """The unchanged official clients: lost and doubled alone."""
    fire: FireCheck
    cpu: Usage
    window_s: float
    cores_by_part: dict[str, float]
    """CPU seconds per second, within the window."""
    other_cores: float
    """What all else on this machine used: near nothing when it is quiet."""
    telemetry_messages_per_s: float
    """At all clients together, within the window."""
    disconnected: tuple[str, ...]
    pending_records: int
    """Unread by Flink at the end of the load."""
    freshness: Freshness
    """The second table: from a device to a row that a query finds."""

    @property
    def accepted_all(self) -> bool:
        """Whether the gateway accepted every planned frame."""
        return self.load.accepted == self.load.planned

    @property
    def p99_ms(self) -> float | None:
        """Of the whole path; None where no alarm came."""
        return self.delivered.whole.ms.p99 if self.delivered.whole.ms else None


def expected_raises(plan: LoadPlan, start_ms: int) -> list[ExpectedRaise]:
    """The plan's raises as what must come out."""
    return [
        ExpectedRaise(
            device_id=device_id(planned.device),
            metric=metric_name(planned.metric),
            raise_ms=start_ms + planned.raise_offset_ms,
            clear_ms=start_ms + planned.clear_offset_ms,
            measured=plan.in_window(planned.raise_offset_ms),
        )
        for planned in plan.raises()
    ]


async def run_latency(stack: Stack, plan: LoadPlan, clients: int, official: int, folder: Path) -> LatencyRun:
    """Run `plan` with `clients` in all, of which `official` are unchanged. Raises BenchError,
    psycopg.Error."""
    viewer, device = stack.token("bench-viewer", "viewer"), stack.token("bench-device", "device")
    addresses, light = stack.status.addresses, clients - official
    files = (folder / "light.json", folder / "official.json")

    def order(first: int, count: int, file: Path) -> ClientOrder:
        return ClientOrder(addresses.dashboard, viewer, count, first, str(file))

    reader = AlarmTopicReader(addresses.kafka, ALARMS_FIRE)
    reader.start_at_end()
    try:
        async with (
            bench_process("bench.socket_clients", order(0, light, files[0])) as light_clients,
            bench_process("bench.official_clients", order(light, official, files[1])) as official_clients,
        ):
            await light_clients.hear("ready", CONNECT_TIMEOUT_S)
            await official_clients.hear("ready", CONNECT_TIMEOUT_S)
            load_order = Order(addresses.gateway, device, plan)
            async with bench_process("bench.load_generator", load_order) as generator:
                own = {
                    "bench: itself, with the freshness queries": [psutil.Process()],
                    "bench: load generator": family(generator.pid),
                    "bench: light clients": family(light_clients.pid),
                    "bench: official clients": family(official_clients.pid),
                }
                parts = merged(stack.parts(), own)
                start_ms = int((await generator.hear("started", CONNECT_TIMEOUT_S))["start_ms"])
                watch = _watch(stack, plan, start_ms)
                await _until(start_ms + plan.warm_up_ms)
                begin, begin_s = take_moment(parts), time.monotonic()
                telemetry = -await _telemetry(light_clients)
                await _until(start_ms + plan.warm_up_ms + plan.window_ms)
                telemetry += await _telemetry(light_clients)
                end, window_s = take_moment(parts), time.monotonic() - begin_s
                finished = await generator.hear("finished", plan.tail_ms / 1000 + FINISH_TIMEOUT_S)
            load = msgspec.convert(finished["result"], LoadResult)
            pending = stack.pending_records()
            events = await asyncio.to_thread(reader.read_until_quiet, CATCH_UP_QUIET_S)
            freshness = await asyncio.to_thread(watch.result)
            await light_clients.end()
            await official_clients.end()
    finally:
        reader.close()
    expected = expected_raises(plan, start_ms)
    receipts, official_receipts = (read_receipts(file) for file in files)
    usage = usage_between(begin, end)
    return LatencyRun(
        plan=plan,
        load=load,
        delivered=compare(expected, receipts, range(light)),
        official=compare(expected, official_receipts, range(light, clients), timed=False),
        fire=check_fire(expected, events),
        cpu=usage,
        window_s=round(window_s, 3),
        cores_by_part={part: round(used / window_s, 3) for part, used in usage.by_part_s.items()},
        other_cores=round((usage.machine_busy_s - sum(usage.by_part_s.values())) / window_s, 3),
        telemetry_messages_per_s=round(telemetry / window_s, 1),
        disconnected=(*receipts.disconnected, *official_receipts.disconnected),
        pending_records=pending,
        freshness=freshness,
    )


def _watch(stack: Stack, plan: LoadPlan, start_ms: int) -> FreshnessWatch:
    begin_ms = start_ms + plan.warm_up_ms
    devices = [device_id(device) for device in range(plan.devices)]
    watch = FreshnessWatch(stack.database(), devices, metric_name(0), (begin_ms, begin_ms + plan.window_ms))
    watch.start()
    return watch


async def _telemetry(clients: BenchProcess) -> int:
    clients.say(b"mark")
    return int((await clients.hear("mark", MARK_TIMEOUT_S))["telemetry"])


async def _until(moment_ms: int) -> None:
    """Wait for a moment of the schedule."""
    await asyncio.sleep(max(0.0, moment_ms / 1000 - time.time()))

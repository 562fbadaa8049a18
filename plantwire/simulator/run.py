"""A run of the simulator: each device makes its frames on time and sends them by its outlet.

In: what to simulate (`Plan`) and the outlets. Out: frames, and a `Tally` of what became of them.
Guarantees: frames keep to a fixed schedule: one that takes long does not shift those after it, and what
could not be made in time is counted as skipped. Event time is the moment that a frame is made. Each
device has one frame in flight at most, so a slow gateway piles nothing up here.
Not here: signals (`simulator.machines`), transports (`simulator.outlet`), options (`simulator.cli`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec
import structlog

from plantwire.simulator import nab
from plantwire.simulator.frame import Frame, Value
from plantwire.simulator.outlet import Accepted, Outlet, Rejected, Tally, Unchanged
from plantwire.simulator.plant import Machine

# Spreads the devices over each period, so that the plant is a stream and not a beat.
_GOLDEN: Final = 0.6180339887498949

_log = structlog.get_logger(__name__)


class Device(Protocol):
    """A source of frames."""

    device_id: str
    site: str
    period_s: float

    def values_at(self, t_s: float, number: int) -> Mapping[str, Value]:
        """The metrics of the schedule's frame `number` (from 0), `t_s` seconds after the run's start; none
        where the device cannot be read then.
        """
        ...


class SimulatedMachine:
    """A machine of the plant as a device; `speed` makes its own time run faster."""

    def __init__(self, machine: Machine, period_s: float, speed: float) -> None:
        self.device_id = machine.device_id
        self.site = machine.site
        self.period_s = period_s
        self._machine = machine
        self._speed = speed

    def values_at(self, t_s: float, number: int) -> Mapping[str, Value]:  # noqa: ARG002 - time decides
        """The model's metrics at that time."""
        return self._machine.metrics_at(t_s * self._speed)


class ReplayedMachine:
    """The recorded machine as a device: a frame for every sample."""

    device_id = nab.DEVICE_ID
    site = nab.SITE

    def __init__(self, replay: nab.Replay, samples_per_s: float) -> None:
        self.period_s = 1.0 / samples_per_s
        self._replay = replay

    def values_at(self, t_s: float, number: int) -> Mapping[str, Value]:  # noqa: ARG002 - the order decides
        """The recording's next sample."""
        return {nab.METRIC: self._replay.sample_at(number).value}


class Sender(msgspec.Struct, frozen=True):
    """A device and its way to the gateway."""

    device: Device
    outlet: Outlet


async def run_senders(senders: Sequence[Sender], tally: Tally, stop: asyncio.Event) -> None:
    """Run all devices until `stop` is set; returns when their last frames are through."""
    start_s = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for index, sender in enumerate(senders):
            offset_s = (index * _GOLDEN % 1.0) * sender.device.period_s
            tasks.create_task(_run_device(sender, start_s, offset_s, tally, stop))


async def _run_device(
    sender: Sender, start_s: float, offset_s: float, tally: Tally, stop: asyncio.Event
) -> None:
    device = sender.device
    number = 0  # of the schedule, skipped ones included; what is sent is numbered without a gap
    sequence = 0
    while not await _stopped_before(stop, start_s + offset_s + number * device.period_s):
        now_s = time.monotonic()
        values = device.values_at(now_s - start_s, number)
        timestamp_ms = time.time_ns() // 1_000_000
        frame = Frame(device.device_id, device.site, sequence, timestamp_ms, values)
        outcome = await sender.outlet.send(frame)
        if tally.count(sender.outlet.name, outcome) and not isinstance(outcome, Accepted | Unchanged):
            detail = outcome.detail if isinstance(outcome, Rejected) else ""
            _log.warning(
                "frame-not-accepted",
                outlet=sender.outlet.name,
                device_id=device.device_id,
                reason=outcome.reason,
                detail=detail,
            )
        number += 1
        sequence += 1
        late = int((time.monotonic() - start_s - offset_s) / device.period_s) - number
        if late > 0:
            tally.skipped += late
            number += late


async def _stopped_before(stop: asyncio.Event, due_s: float) -> bool:
    """Wait until `due_s` (monotonic) or for `stop`; whether it is set."""
    wait_s = due_s - time.monotonic()
    if wait_s > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await stop.wait()
    return stop.is_set()

"""A host application, the broker that it talks to, and what it gives to the intake, for the tests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from plantwire.gateway.buffer.entry import DropReason
from plantwire.gateway.forwarder import DeadLetter, Obstacle, UnavailableError
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.sparkplug.host import SparkplugHost
from plantwire.gateway.sparkplug.outcome import EdgeNodeId
from plantwire.schemas.records import TelemetryFrame
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from tests.integration.gateway.sparkplug.recording_broker import (
    Packet,
    RecordingBroker,
)

STATE = "spBv1.0/STATE/plant-7"
PRESS = EdgeNodeId("G", "Press")


class Intake:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.frames: list[TelemetryFrame] = []
        self.letters: list[DeadLetter] = []
        self.refuses = False

    def put(
        self, frames: Sequence[TelemetryFrame], refusal: DropReason = DropReason.RETURNED
    ) -> asyncio.Future[None]:
        if self.refuses:
            raise UnavailableError(Obstacle.IN_FLIGHT_FULL, "full")
        self.frames += frames
        return self._done()

    def put_or_drop(self, frames: Sequence[TelemetryFrame]) -> None:
        self.frames += frames

    def put_dead_letter(
        self, letter: DeadLetter, refusal: DropReason = DropReason.RETURNED
    ) -> asyncio.Future[None]:
        if self.refuses:
            raise UnavailableError(Obstacle.IN_FLIGHT_FULL, "full")
        self.letters.append(letter)
        return self._done()

    def _done(self) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


class Rig:
    """A host, its broker and its intake."""

    def __init__(self, broker: RecordingBroker, **settings: Any) -> None:
        self.broker = broker
        self.intake = Intake()
        self.metrics = GatewayMetrics()
        self.host = SparkplugHost(
            GatewaySettings(
                mqtt=broker.url,
                mqtt_client_id="gateway-1",
                sparkplug_host_id="plant-7",
                gateway_mqtt_backoff_max_s=0.2,
                **settings,
            ),
            self.intake,
            self.metrics,
        )
        self.running = asyncio.create_task(self.host.run())

    async def online(self, connection: int = 1) -> Packet:
        """Our birth on that connection, once the host calls itself ready."""
        await self.broker.wait_for(lambda _: self.broker.published(STATE, connection))
        while await self.host.ready() is not None:  # noqa: ASYNC110 - it tells nobody of itself
            await asyncio.sleep(0.005)
        return self.broker.published(STATE, connection)[0]

    async def until(self, condition: Any, timeout_s: float = 5) -> None:
        """What the host makes of a delivered message shows in its memory alone."""
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - it tells nobody of itself
                await asyncio.sleep(0.005)

    def note(self, note: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "plantwire_gateway_sparkplug_notes_total", {"note": note}
        )
        return value or 0.0

    async def close(self) -> None:
        await self.host.close(1.0)
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running


def of_kind(broker: RecordingBroker, kind: int) -> list[Packet]:
    return [packet for packet in broker.packets if packet.kind == kind]


def birth(sequence: int = 0, bd_seq: int = 0) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    payload = pb.Payload(timestamp=now_ms, seq=sequence)
    payload.metrics.add(name="bdSeq", datatype=pb.Int64, timestamp=now_ms, long_value=bd_seq)
    payload.metrics.add(
        name="Node Control/Rebirth", datatype=pb.Boolean, timestamp=now_ms, boolean_value=False
    )
    payload.metrics.add(name="Speed", alias=1, datatype=pb.Double, timestamp=now_ms, double_value=5.0)
    return payload.SerializeToString()


def device_birth(sequence: int) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    payload = pb.Payload(timestamp=now_ms, seq=sequence)
    payload.metrics.add(name="Valve", alias=2, datatype=pb.Boolean, timestamp=now_ms, boolean_value=False)
    payload.metrics.add(name="Level", datatype=pb.Int16, timestamp=now_ms, int_value=3)
    return payload.SerializeToString()


def data(sequence: int, value: float) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    payload = pb.Payload(timestamp=now_ms, seq=sequence)
    payload.metrics.add(alias=1, timestamp=now_ms, double_value=value)
    return payload.SerializeToString()

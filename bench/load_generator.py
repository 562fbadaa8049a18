"""The plant of `bench.latency`: sends a planned load to the gateway over HTTP, in a process of its own.

In: one JSON object on standard input: `{"gateway": "http://host:port", "token": ..., "plan": {...}}`.
Out: JSON lines on standard output: `started` with the moment of the first frame, `finished` with counts.
Guarantees: open loop: frame n is due at start + its planned offset, whatever the answers; its `timestamp`
is that intended time, so waiting in this process counts against the pipeline. One keep-alive connection
per device, without pipelining. A device's queue holds `DEVICE_QUEUE_FRAMES`; a frame that finds it full
is dropped and counted, as is every frame that is not answered with 202: nothing is sent twice.
Not here: the plan (`bench.load_schedule`).
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from array import array
from collections import Counter, defaultdict, deque
from functools import partial
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httptools
import msgspec
import uvloop

from bench.load_schedule import LoadPlan, device_id, metric_name
from bench.spread import Distribution, distribution

DEVICE_QUEUE_FRAMES: Final = 200
VARIANTS: Final = 64
OVER_LIMIT_VALUE: Final = b"120.5"
START_DELAY_MS: Final = 300
ANSWER_TIMEOUT_S: Final = 15.0
ACCEPTED: Final = 202


class Order(msgspec.Struct, frozen=True):
    """What the parent asks for."""

    gateway: str
    token: str
    plan: LoadPlan


class LoadResult(msgspec.Struct, frozen=True):
    """What became of the frames, and how punctual this process was."""

    planned: int
    sent: int
    accepted: int
    not_accepted: dict[str, int]
    late_ms: Distribution | None
    """From the intended time to the write to the socket, frames of the window."""
    answer_ms: Distribution | None
    """From the intended time to the whole answer, frames of the window."""
    cpu_s: float


class Tally:
    """Counts and times of all connections."""

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.start_ms = 0
        self.sent = 0
        self.accepted = 0
        self.not_accepted: Counter[str] = Counter()
        self.late_ms = array("d")
        self.answer_ms = array("d")

    def finish(self, planned: int) -> LoadResult:
        """The result so far."""
        return LoadResult(
            planned=planned,
            sent=self.sent,
            accepted=self.accepted,
            not_accepted=dict(+self.not_accepted),
            late_ms=distribution(self.late_ms),
            answer_ms=distribution(self.answer_ms),
            cpu_s=time.process_time(),
        )


class DeviceConnection(asyncio.Protocol):
    """One device: a keep-alive connection that has at most one request under way."""

    def __init__(self, head: bytes, tally: Tally) -> None:
        self._head = head
        self._tally = tally
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._in_flight_ms: int | None = None
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._drained: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._transport = None
        if self._in_flight_ms is not None:
            self._tally.not_accepted["connection lost"] += 1
            self._in_flight_ms = None
        self._tally.not_accepted["connection lost before sending"] += len(self._waiting)
        self._waiting.clear()
        self._tell_if_drained()

    async def drained(self) -> None:
        """Wait until nothing waits and nothing is under way; call it when the last frame was given."""
        self._drained = asyncio.get_running_loop().create_future()
        self._tell_if_drained()
        await self._drained

    def _tell_if_drained(self) -> None:
        idle = self._in_flight_ms is None and not self._waiting
        if idle and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def send(self, intended_ms: int, body: bytes) -> None:
        """Send a frame now, or as soon as the answer to the one before has come."""
        if self._transport is None:
            self._tally.not_accepted["connection lost before sending"] += 1
            return
        if len(self._waiting) >= DEVICE_QUEUE_FRAMES:
            self._tally.not_accepted["device queue full"] += 1
            return
        self._waiting.append((intended_ms, body))
        if self._in_flight_ms is None:
            self.send_next()

    def send_next(self) -> None:
        """Write the oldest waiting frame."""
        if not self._waiting or self._transport is None:
            return
        self._in_flight_ms, body = self._waiting.popleft()
        self._transport.write(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))
        tally = self._tally
        tally.sent += 1
        if tally.plan.in_window(self._in_flight_ms - tally.start_ms):
            tally.late_ms.append(time.time() * 1000 - self._in_flight_ms)

    def on_message_complete(self) -> None:
        """Called by the HTTP parser when a whole answer is there."""
        intended_ms, tally = self._in_flight_ms, self._tally
        self._in_flight_ms = None
        status = self._parser.get_status_code()
        if status == ACCEPTED:
            tally.accepted += 1
        else:
            tally.not_accepted[f"status {status}"] += 1
        if intended_ms is not None and tally.plan.in_window(intended_ms - tally.start_ms):
            tally.answer_ms.append(time.time() * 1000 - intended_ms)
        self.send_next()
        if self._drained is not None:
            self._tell_if_drained()


class Bodies:
    """Makes the frames' JSON: ten numbers that wander below every limit, those raised above it."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        rng = random.Random(plan.first_raise)
        names = [metric_name(metric).encode() for metric in range(plan.metrics)]
        self._normal = [
            [b'"%s":%.2f' % (name, 50 + 8 * math.sin(v / VARIANTS * math.tau) + rng.uniform(-2, 2))
             for v in range(VARIANTS)]
            for name in names
        ]  # fmt: skip
        self._raised = [b'"%s":%s' % (name, OVER_LIMIT_VALUE) for name in names]
        self._over: list[set[int]] = [set() for _ in range(plan.devices)]
        self._raise_at: defaultdict[int, list[int]] = defaultdict(list)
        self._clear_at: defaultdict[int, list[int]] = defaultdict(list)
        for planned in plan.raises():
            self._raise_at[planned.raise_frame].append(planned.metric)
            self._clear_at[planned.clear_frame].append(planned.metric)

    def body(self, frame: int, intended_ms: int) -> bytes:
        """The JSON of frame number `frame`; to be called for every frame, in order."""
        over = self._over[self._plan.device_of(frame)]
        over.difference_update(self._clear_at.get(frame, ()))
        over.update(self._raise_at.get(frame, ()))
        variant = frame // 7
        values = [
            self._raised[metric] if metric in over else normal[(variant + 5 * metric) % VARIANTS]
            for metric, normal in enumerate(self._normal)
        ]
        return b'{"timestamp":%d,"metrics":{%s}}' % (intended_ms, b",".join(values))


class Sender:
    """Sends every frame of the plan when it is due."""

    def __init__(self, plan: LoadPlan, devices: list[DeviceConnection], tally: Tally) -> None:
        self._plan = plan
        self._devices = devices
        self._tally = tally
        self._bodies = Bodies(plan)
        self._next_frame = 0
        self.done = asyncio.Event()

    def tick(self) -> None:
        """Send what is due and come back for the next frame."""
        plan, start_ms = self._plan, self._tally.start_ms
        now_ms = time.time() * 1000
        while self._next_frame < plan.frame_count:
            due_ms = start_ms + plan.offset_ms(self._next_frame)
            if due_ms > now_ms:
                # Whole milliseconds, rounded up: the event loop's timers know no finer ones.
                asyncio.get_running_loop().call_later(math.ceil(due_ms - now_ms) / 1000, self.tick)
                return
            device = self._devices[plan.device_of(self._next_frame)]
            device.send(due_ms, self._bodies.body(self._next_frame, due_ms))
            self._next_frame += 1
        self.done.set()


async def generate(order: Order) -> LoadResult:
    """Run the whole plan; raises OSError when the gateway cannot be reached."""
    plan, tally = order.plan, Tally(order.plan)
    loop = asyncio.get_running_loop()
    address = urlsplit(order.gateway)
    if address.scheme != "http" or address.hostname is None or address.port is None:
        raise SystemExit(f"the gateway's address is not http://host:port: {order.gateway}")
    devices: list[DeviceConnection] = []
    for device in range(plan.devices):
        head = (
            f"POST /api/v1/devices/{device_id(device)}/telemetry HTTP/1.1\r\n"
            f"Host: {address.netloc}\r\nAuthorization: Bearer {order.token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        connection = DeviceConnection(head, tally)
        devices.append(connection)
        await loop.create_connection(partial(_same, connection), address.hostname, address.port)
    sender = Sender(plan, devices, tally)
    tally.start_ms = math.ceil(time.time() * 1000) + START_DELAY_MS
    _tell({"event": "started", "start_ms": tally.start_ms})
    sender.tick()
    await sender.done.wait()
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await asyncio.gather(*(device.drained() for device in devices))
    except TimeoutError:
        tally.not_accepted["no answer"] += plan.frame_count - tally.accepted - tally.not_accepted.total()
    return tally.finish(plan.frame_count)


def _same(connection: DeviceConnection) -> DeviceConnection:
    return connection


def _tell(message: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Read the order, carry it out, tell the result."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    result = uvloop.run(generate(order))
    _tell({"event": "finished", "result": result})


if __name__ == "__main__":
    main()

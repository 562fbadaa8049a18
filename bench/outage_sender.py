"""The devices of `bench.outage`: half of them by HTTP, half by MQTT at QoS 1, each keeping what is not taken.

In: an `OutageOrder` as the first line of standard input; the next line means: stop making frames. Out: JSON
lines: `started`, then `finished` with how many frames of each device were acknowledged.
Guarantees: frame n of a device is due at a fixed time, which is its `timestamp`; it is sent again until it is
acknowledged (HTTP 202, PUBACK), and the next one after it: what was acknowledged is 0 … n - 1, in order.
Not here: what arrived (`bench.outage_arrivals`).
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec
import uvloop
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

CONNECT_TIMEOUT_S: Final = 10.0
RETRY_S: Final = 0.1
ACCEPTED: Final = b"202"
LENGTH: Final = b"content-length:"


class OutageOrder(msgspec.Struct, frozen=True):
    """The plant: `devices` in all, `frames_per_s` of all together."""

    name: str
    gateway: str
    mqtt: str
    token: str
    devices: int
    frames_per_s: float

    def device_id(self, device: int) -> str:
        """Even numbers speak HTTP, odd ones MQTT."""
        return f"{self.name}-{'mqtt' if device % 2 else 'http'}-{device}"


class Way(Protocol):
    """How a device reaches the gateway."""

    async def send(self, body: bytes) -> bool:
        """Whether the frame was acknowledged."""


class HttpWay:
    """One keep-alive connection, made anew when it broke."""

    def __init__(self, order: OutageOrder, device_id: str) -> None:
        self._address = urlsplit(order.gateway)
        self._head = (
            f"POST /api/v1/devices/{device_id}/telemetry HTTP/1.1\r\nHost: {self._address.netloc}\r\n"
            f"Authorization: Bearer {order.token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, body: bytes) -> bool:
        """See `Way.send`."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._address.hostname, self._address.port)
            reader, writer = self._streams
            writer.write(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().splitlines()
            length = next(int(line[len(LENGTH) :]) for line in lines if line.startswith(LENGTH))
            await reader.readexactly(length)
            return head.split(b" ", 2)[1] == ACCEPTED
        except (OSError, asyncio.IncompleteReadError):
            if self._streams is not None:
                self._streams[1].close()
            self._streams = None
            return False


class Broker:
    """One MQTT client for all devices."""

    def __init__(self, order: OutageOrder) -> None:
        self._address = urlsplit(order.mqtt)
        self._loop = asyncio.get_running_loop()
        self._acknowledged: dict[int, asyncio.Future[bool]] = {}
        self._early: set[int] = set()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"bench-{order.name}")
        self._client.max_inflight_messages_set(10_000)

    async def connect(self) -> None:
        """Returns once connected."""
        connected: asyncio.Future[None] = self._loop.create_future()

        def on_connect(*_: Any) -> None:
            self._loop.call_soon_threadsafe(connected.set_result, None)

        def on_publish(_client: paho.Client, _data: Any, mid: int, *_: Any) -> None:
            self._loop.call_soon_threadsafe(self._note, mid)

        self._client.on_connect = on_connect
        self._client.on_publish = on_publish
        assert self._address.hostname is not None
        assert self._address.port is not None
        self._client.connect(self._address.hostname, self._address.port)
        self._client.loop_start()
        await asyncio.wait_for(connected, CONNECT_TIMEOUT_S)

    async def publish(self, topic: str, body: bytes) -> bool:
        """Returns once the broker has it."""
        mid: int = self._client.publish(topic, body, 1).mid
        if mid in self._early:
            self._early.discard(mid)
            return True
        future: asyncio.Future[bool] = self._loop.create_future()
        self._acknowledged[mid] = future
        return await future

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _note(self, mid: int) -> None:
        future = self._acknowledged.pop(mid, None)
        if future is None:
            self._early.add(mid)
        else:
            future.set_result(True)


class MqttWay:
    """A device's topic."""

    def __init__(self, broker: Broker, device_id: str) -> None:
        self._broker = broker
        self._topic = f"devices/{device_id}/telemetry"

    async def send(self, body: bytes) -> bool:
        """See `Way.send`."""
        return await self._broker.publish(self._topic, body)


async def run_device(way: Way, number: int, order: OutageOrder, start_s: float, stop: asyncio.Event) -> int:
    """Frames until `stop`, and the one in hand to its end; how many were acknowledged."""
    interval_s = order.devices / order.frames_per_s
    frame = 0
    while not stop.is_set():
        due_s = start_s + (frame + number / order.devices) * interval_s
        if (wait_s := due_s - time.time()) > 0:
            await asyncio.sleep(wait_s)  # until it is due
        values = ",".join(f'"metric-{metric}":{frame % 100}.{metric}' for metric in range(10))
        body = f'{{"timestamp":{int(due_s * 1000)},"sequence":{frame},"metrics":{{{values}}}}}'.encode()
        while not await way.send(body):  # noqa: ASYNC110 - the gateway is away, and tells nobody when not
            await asyncio.sleep(RETRY_S)
        frame += 1
    return frame


async def run(order: OutageOrder, asked: asyncio.StreamReader) -> dict[str, int]:
    """Everything until the next line of standard input."""
    broker = Broker(order)
    await broker.connect()
    ids = [order.device_id(device) for device in range(order.devices)]
    ways: list[Way] = [
        MqttWay(broker, name) if device % 2 else HttpWay(order, name) for device, name in enumerate(ids)
    ]
    stop = asyncio.Event()
    start_s = time.time() + RETRY_S
    devices = [
        asyncio.create_task(run_device(way, number, order, start_s, stop)) for number, way in enumerate(ways)
    ]
    _tell({"event": "started"})
    await asked.readline()
    stop.set()
    counts = await asyncio.gather(*devices)
    broker.close()
    return dict(zip(ids, counts, strict=True))


async def main() -> None:
    """Take the order, run it, tell."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    order = msgspec.json.decode(await reader.readline(), type=OutageOrder)
    acknowledged = await run(order, reader)
    _tell({"event": "finished", "acknowledged": acknowledged})


def _tell(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(main())

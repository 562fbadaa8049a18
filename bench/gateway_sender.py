"""The devices of `bench.gateway`: one process that sends one protocol's messages.

In: an `Order` as the first line of standard input; then lines with how many records were seen in Kafka.
Out: JSON lines: `started` with the moment, `finished` with counts.
Guarantees: with a rate, open loop: message n is due at start + n / rate, and that is its time stamp. Without,
closed loop over the whole path: at most `window` messages are ahead of the records seen, so that no queue on
the way grows and none overflows, whatever the protocol acknowledges.
Not here: what is sent (`bench.gateway_payloads`).
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import httptools
import msgspec
import uvloop
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from bench.gateway_payloads import HTTP, SPARKPLUG, Plant

START_DELAY_S: Final = 0.3
CONNECT_TIMEOUT_S: Final = 10.0


class Order(msgspec.Struct, frozen=True):
    """One run."""

    protocol: str
    name: str
    gateway: str
    mqtt: str
    token: str
    devices: int
    duration_s: float
    rate_per_s: float | None
    """None: as fast as records come out at the other end."""
    window: int


class Finished(msgspec.Struct, frozen=True):
    """What became of a run, as far as the sender knows."""

    sent: int
    refused: int
    late_ms_max: float


class Outlet(Protocol):
    """How messages leave."""

    refused: int

    async def connect(self) -> None: ...
    def send(self, device: int, payload: bytes) -> None: ...
    async def close(self) -> None: ...


class _Connection(asyncio.Protocol):
    """A keep-alive HTTP connection with at most one request under way; others wait in it."""

    def __init__(self, head: bytes, outlet: HttpOutlet) -> None:
        self._head = head
        self._outlet = outlet
        self._waiting: list[bytes] = []
        self._busy = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def send(self, payload: bytes) -> None:
        if self._busy:
            self._waiting.append(payload)
            return
        self._busy = True
        self._transport.write(b"%s%d\r\n\r\n%s" % (self._head, len(payload), payload))

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() != 202:
            self._outlet.refused += 1
        self._busy = False
        if self._waiting:
            self.send(self._waiting.pop(0))


def _same(connection: _Connection) -> _Connection:
    return connection


class HttpOutlet:
    """One connection per device."""

    def __init__(self, order: Order, plant: Plant) -> None:
        self._order = order
        self._plant = plant
        self._connections: list[_Connection] = []
        self.refused = 0

    async def connect(self) -> None:
        address = urlsplit(self._order.gateway)
        assert address.hostname is not None
        assert address.port is not None
        loop = asyncio.get_running_loop()
        for device in range(self._order.devices):
            head = (
                f"POST {self._plant.topic(device)} HTTP/1.1\r\nHost: {address.netloc}\r\n"
                f"Authorization: Bearer {self._order.token}\r\n"
                "Content-Type: application/json\r\nContent-Length: "
            ).encode()
            connection = _Connection(head, self)
            await loop.create_connection(partial(_same, connection), address.hostname, address.port)
            self._connections.append(connection)

    def send(self, device: int, payload: bytes) -> None:
        self._connections[device].send(payload)

    async def close(self) -> None:
        return


class MqttOutlet:
    """One MQTT client for all devices, as a gateway of the field or a network server has."""

    def __init__(self, order: Order, plant: Plant) -> None:
        self._address = urlsplit(order.mqtt)
        self._plant = plant
        # The standard has Sparkplug's births and data at QoS 0.
        self._qos = 0 if plant.protocol == SPARKPLUG else 1
        self._topics = [plant.topic(device) for device in range(order.devices)]
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"bench-{order.name}")
        self._client.max_inflight_messages_set(10_000)
        self.refused = 0

    async def connect(self) -> None:
        assert self._address.hostname is not None
        assert self._address.port is not None
        loop = asyncio.get_running_loop()
        connected = loop.create_future()

        def on_connect(*_: Any) -> None:
            loop.call_soon_threadsafe(connected.set_result, None)

        self._client.on_connect = on_connect
        self._client.connect(self._address.hostname, self._address.port)
        self._client.loop_start()
        await asyncio.wait_for(connected, CONNECT_TIMEOUT_S)
        for topic, payload in self._plant.births(time.time_ns() // 1_000_000):
            self._publish(topic, payload)

    def send(self, device: int, payload: bytes) -> None:
        self._publish(self._topics[device], payload)

    def _publish(self, topic: str, payload: bytes) -> None:
        if self._client.publish(topic, payload, self._qos).rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.refused += 1

    async def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Sender:
    """Carries out one order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._plant = Plant(order.protocol, order.name, order.devices)
        self._outlet: Outlet = (HttpOutlet if order.protocol == HTTP else MqttOutlet)(order, self._plant)
        self._sent = 0
        self._seen = 0
        self._late_s = 0.0
        self._moved = asyncio.Event()

    async def run(self) -> Finished:
        order = self._order
        listening = asyncio.create_task(self._listen())
        await self._outlet.connect()
        start_s = time.time() + START_DELAY_S
        _tell({"event": "started", "start_s": start_s})
        await asyncio.sleep(START_DELAY_S)
        if order.rate_per_s is None:
            await self._closed_loop(start_s + order.duration_s)
        else:
            await self._open_loop(start_s, order.rate_per_s)
        # Until the last one came out at the other end, or nothing moves any more.
        while self._seen < self._sent:
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), 5)
            except TimeoutError:
                break
        await self._outlet.close()
        listening.cancel()
        return Finished(self._sent, self._outlet.refused, round(self._late_s * 1000, 3))

    async def _open_loop(self, start_s: float, rate_per_s: float) -> None:
        for number in range(int(self._order.duration_s * rate_per_s)):
            due_s = start_s + number / rate_per_s
            wait_s = due_s - time.time()
            if wait_s > 0:
                # Event loops' timers know whole milliseconds.
                await asyncio.sleep(math.ceil(wait_s * 1000) / 1000)
            self._late_s = max(self._late_s, time.time() - due_s)
            self._send(int(due_s * 1e6))

    async def _closed_loop(self, until_s: float) -> None:
        while (now_s := time.time()) < until_s:
            if self._sent - self._seen >= self._order.window:
                self._moved.clear()
                await asyncio.wait_for(self._moved.wait(), 30)
                continue
            for _ in range(min(20, self._order.window - self._sent + self._seen)):
                self._send(int(now_s * 1e6))
            await asyncio.sleep(0)

    def _send(self, sent_us: int) -> None:
        device = self._sent % self._order.devices
        self._sent += 1
        self._outlet.send(device, self._plant.payload(device, sent_us))

    async def _listen(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
        )
        while line := await reader.readline():
            self._seen = int(line)
            self._moved.set()


def _tell(message: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Read the order, carry it out, tell the result."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    result = uvloop.run(Sender(order).run())
    _tell({"event": "finished", "result": result})


if __name__ == "__main__":
    main()

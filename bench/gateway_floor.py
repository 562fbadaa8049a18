"""The floor of `bench.gateway`: the same client libraries in a bare loop, which passes bytes on unread.

In: environment: BENCH_PORT (HTTP), BENCH_KAFKA, BENCH_MQTT, BENCH_TOPIC.
Out: records with the message as it came, keyed by path or topic.
Guarantees: as a gateway must, it answers 202 and acknowledges QoS 1 only once Kafka has the record. It
checks, decodes, counts and authorises nothing: what a gateway costs beyond this is its own work.
Not here: the gateway.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import uvicorn
import uvloop
from confluent_kafka import Producer
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

FILTERS = [("devices/+/telemetry", 1), ("application/+/device/+/event/+", 1), ("spBv1.0/#", 1)]


class Floor:
    """An ASGI application and an MQTT subscriber on one producer."""

    def __init__(self, kafka: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": kafka,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 0,
                "partitioner": "murmur2_random",
            }
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._producer.flush(5)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            status, body = 200, b"ok"
        else:
            message = await receive()
            body = message["body"]
            while message["more_body"]:
                message = await receive()
                body += message["body"]
            done: asyncio.Future[None] = self._loop.create_future()
            self.produce(scope["path"], body, lambda: self._loop.call_soon_threadsafe(done.set_result, None))
            await done
            status, body = 202, b'{"accepted":1}'
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-length", str(len(body)).encode())],
            }
        )
        await send({"type": "http.response.body", "body": body})

    def produce(self, key: str, body: bytes, done: Any) -> None:
        self._producer.produce(self._topic, body, key=key, on_delivery=lambda *_: done())

    def _poll(self) -> None:
        while not self._stopped.is_set():
            self._producer.poll(0.2)


def subscribe(floor: Floor, url: str) -> paho.Client:
    """A client in a thread of its own that acknowledges what Kafka has."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-floor", manual_ack=True)

    def on_message(_client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        floor.produce(message.topic, bytes(message.payload), lambda: client.ack(message.mid, message.qos))

    client.on_message = on_message
    client.on_connect = _subscribe
    client.on_socket_open = _without_delay
    client.connect(address.hostname, address.port)
    client.loop_start()
    return client


def _subscribe(client: paho.Client, *_: Any) -> None:
    client.subscribe(FILTERS)


def _without_delay(_client: paho.Client, _data: Any, sock: Any) -> None:
    """Else acknowledgements wait for each other in Nagle's algorithm, and the floor is none."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def _run() -> None:
    floor = Floor(os.environ["BENCH_KAFKA"], os.environ["BENCH_TOPIC"])
    floor.start()
    client = subscribe(floor, os.environ["BENCH_MQTT"])
    config = uvicorn.Config(
        floor,
        port=int(os.environ["BENCH_PORT"]),
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
    )
    server = uvicorn.Server(config)
    await server.serve()
    client.disconnect()
    client.loop_stop()
    floor.stop()


def main() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    uvloop.run(_run())


if __name__ == "__main__":
    main()

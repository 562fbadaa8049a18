"""The embedded MQTT broker keeps what it acknowledged, and keeps to this machine."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from plantwire.stack.ports import free_ports
from plantwire.stack.servers.mqtt import Mqtt

TOPIC = "devices/press-1/telemetry"
MESSAGES = 300
TIMEOUT_S = 20


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mqtt]:
    server = Mqtt(tmp_path / "mqtt", *free_ports(1), tmp_path / "mqtt.log")
    server.prepare()
    server.start()
    try:
        server.wait_ready(60)
        yield server
    finally:
        server.stop()


class Subscriber:
    """A client with a persistent session; what comes is in `messages`."""

    def __init__(self, port: int, *, acknowledges: bool = True) -> None:
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.session_present: bool | None = None
        self._ready = threading.Event()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, "subscriber", clean_session=False, manual_ack=not acknowledges
        )
        self.client.on_message = lambda _client, _data, message: self.messages.put(message)
        self.client.on_connect = self._handle_connect
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self._ready.wait(TIMEOUT_S)

    def take(self, number: int) -> list[paho.MQTTMessage]:
        return [self.messages.get(timeout=TIMEOUT_S) for _ in range(number)]

    def leave(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def break_off(self) -> None:
        """End the connection without DISCONNECT, as the death of the process does."""
        sock = self.client.socket()
        assert sock is not None
        self.client.loop_stop()
        sock.close()

    def _handle_connect(
        self, client: paho.Client, _data: object, flags: paho.ConnectFlags, *_: object
    ) -> None:
        self.session_present = flags.session_present
        if flags.session_present:
            self._ready.set()
        else:
            client.subscribe(TOPIC, 1)


@contextmanager
def publisher(port: int) -> Iterator[Callable[[range], None]]:
    """A function that publishes numbers at QoS 1 and returns when all are acknowledged."""
    client = paho.Client(CallbackAPIVersion.VERSION2, "publisher")
    client.connect("127.0.0.1", port)
    client.loop_start()

    def publish(numbers: range) -> None:
        promises = [client.publish(TOPIC, str(number), 1) for number in numbers]
        for promise in promises:
            promise.wait_for_publish(TIMEOUT_S)
        assert all(promise.is_published() for promise in promises)

    yield publish
    client.disconnect()
    client.loop_stop()


def _numbers(messages: list[paho.MQTTMessage]) -> list[int]:
    return [int(message.payload) for message in messages]


def test_a_session_outlives_its_client_and_the_killed_broker(broker: Mqtt) -> None:
    subscriber = Subscriber(broker.port or 0)
    assert not subscriber.session_present
    subscriber.leave()
    with publisher(broker.port or 0) as publish:
        publish(range(MESSAGES))
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
    broker.stop()
    broker.start()
    broker.wait_ready(60)
    subscriber = Subscriber(broker.port or 0)
    try:
        assert subscriber.session_present
        assert _numbers(subscriber.take(MESSAGES)) == list(range(MESSAGES))
    finally:
        subscriber.leave()


def test_what_a_lost_subscriber_has_not_acknowledged_comes_again(broker: Mqtt) -> None:
    Subscriber(broker.port or 0).leave()
    with publisher(broker.port or 0) as publish:
        publish(range(MESSAGES))
        # What waited comes in batches, each after the acknowledgements of the one before.
        lost = Subscriber(broker.port or 0, acknowledges=False)
        assert _numbers(lost.take(10)) == list(range(10))
        lost.break_off()
        publish(range(MESSAGES, 2 * MESSAGES))
    subscriber = Subscriber(broker.port or 0)
    try:
        messages = subscriber.take(2 * MESSAGES)
        assert _numbers(messages) == list(range(2 * MESSAGES))
        assert all(message.dup for message in messages[:10])
    finally:
        subscriber.leave()


def test_it_listens_here_and_calls_nobody(broker: Mqtt) -> None:
    sockets = psutil.Process(broker.pid).net_connections("inet")
    assert [entry.laddr.port for entry in sockets if entry.status == psutil.CONN_LISTEN] == [broker.port]
    ends = {end.ip.removeprefix("::ffff:") for entry in sockets for end in (entry.laddr, entry.raddr) if end}
    assert ends == {"127.0.0.1"}

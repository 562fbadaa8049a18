"""Sees what passes over the MQTT broker below spBv1.0/, with QoS and retain flag, in order of arrival."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from plantwire.schemas.sparkplug.sparkplug_b_pb2 import Payload


@dataclass(frozen=True)
class Seen:
    """One message."""

    topic: str
    payload: bytes
    qos: int
    retain: bool

    def decoded(self) -> Payload:
        return Payload.FromString(self.payload)


class Witness:
    """A subscriber of everything, at QoS 1: what it sees with QoS 0 was published so."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"witness-{secrets.token_hex(4)}", clean_session=True
        )
        self._subscribed = threading.Event()
        self._heard = threading.Condition()
        self.messages: list[Seen] = []

    def start(self) -> None:
        """Connect and subscribe."""
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._handle_message
        self._client.connect(str(self._url.hostname), int(self._url.port or 0))
        self._client.loop_start()
        self._client.subscribe("spBv1.0/#", 1)
        assert self._subscribed.wait(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None:
        """Publish something ourselves."""
        self._client.publish(topic, payload, qos, retain).wait_for_publish(10)

    def of(self, topic: str) -> list[Seen]:
        """What was published to a topic since we subscribed; not what was retained before."""
        with self._heard:
            return [seen for seen in self.messages if seen.topic == topic and not seen.retain]

    def wait_for_retained(self, topic: str, timeout_s: float = 15) -> Seen:
        """What the broker kept of a topic when we subscribed; fails at the time-out."""
        deadline = time.monotonic() + timeout_s
        with self._heard:
            while not (kept := [seen for seen in self.messages if seen.topic == topic and seen.retain]):
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"nothing is retained on {topic}"
                self._heard.wait(left_s)
        return kept[-1]

    def wait_for(
        self, topic: str, wanted: Callable[[list[Seen]], Any] = bool, timeout_s: float = 15
    ) -> list[Seen]:
        """What was published to a topic, once `wanted` says so of it; fails at the time-out."""
        deadline = time.monotonic() + timeout_s
        with self._heard:
            while not wanted(seen := self.of(topic)):
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"not what was waited for on {topic}: {seen}"
                self._heard.wait(left_s)
        return seen

    def _handle_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        with self._heard:
            self.messages.append(Seen(message.topic, message.payload, message.qos, message.retain))
            self._heard.notify_all()

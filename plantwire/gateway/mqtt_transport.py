"""Plain JSON over MQTT: devices/{id}/telemetry.

In: messages of an MQTT broker. Out: frames, or dead letters with their reason, to the forwarder.
Guarantees: a QoS 1 message is acknowledged to the broker only after Kafka has its frames or its dead
letter; until then the gateway keeps trying, and a message that the connection is lost over comes again:
at least once. At most `gateway_mqtt_in_flight_max` messages are in hand; at the bound reading pauses
and the broker queues. A message that has to be tried again may be overtaken by a later one.
Not here: the socket (`mqtt_connection`), the payload's meaning (`decode_json`). Who may publish where is
the broker's to decide.
"""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial
from typing import Final

import structlog
from paho.mqtt.client import MQTTMessage

from plantwire.gateway.decode_json import DecodeLimits, decode_telemetry
from plantwire.gateway.forwarder import DeadLetter, Forwarder, UnavailableError
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.mqtt_connection import BrokerAddress, MqttConnection, MqttUnreachableError
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.settings import GatewaySettings
from plantwire.platform.backoff import jittered_backoff_s
from plantwire.schemas.records import TelemetryFrame

TRANSPORT: Final = "mqtt"
PROTOCOL: Final = "mqtt-json"
# The second filter is for ids with a slash: they are refused by name rather than never seen.
TOPIC_FILTERS: Final = ("devices/+/telemetry", "devices/+/+/telemetry")
_TOPIC_PREFIX: Final = "devices/"
_TOPIC_SUFFIX: Final = "/telemetry"
_RETRY_FIRST_S: Final = 0.1
_RETRY_LONGEST_S: Final = 5.0
_RECONNECT_FIRST_S: Final = 0.25

log = structlog.get_logger()


def decode_message(
    topic: str,
    payload: bytes,
    received_us: int,
    limits: DecodeLimits,
    payload_limit_bytes: int,
) -> tuple[TelemetryFrame, ...] | Rejected:
    """The frames of one message, or why there are none. Pure."""
    if len(payload) > payload_limit_bytes:
        return Rejected(
            Reason.BODY_TOO_LARGE, f"{len(payload)} bytes in one message; at most {payload_limit_bytes}."
        )
    device_id = topic.removeprefix(_TOPIC_PREFIX).removesuffix(_TOPIC_SUFFIX)
    return decode_telemetry(payload, device_id, PROTOCOL, received_us, limits)


class _Delivery:
    """One message in hand, from its arrival to its acknowledgement."""

    __slots__ = ("connection", "failures", "message", "outcome", "received_us", "topic")

    def __init__(
        self,
        message: MQTTMessage,
        topic: str,
        outcome: tuple[TelemetryFrame, ...] | Rejected,
        received_us: int,
        connection: MqttConnection,
    ) -> None:
        self.message = message
        self.topic = topic
        self.outcome = outcome
        self.received_us = received_us
        self.connection = connection
        self.failures = 0


class MqttTransport:
    """Keeps a connection to the broker; `run` it as a task, `close` it to stop in order."""

    def __init__(self, settings: GatewaySettings, forwarder: Forwarder, metrics: GatewayMetrics) -> None:
        self._address = BrokerAddress.of(settings)
        self._limits = settings.decode_limits()
        self._payload_limit_bytes = settings.gateway_body_limit_bytes
        self._held_max = settings.gateway_mqtt_in_flight_max
        self._backoff_max_s = settings.gateway_mqtt_backoff_max_s
        self._forwarder = forwarder
        self._metrics = metrics
        self._accepted = metrics.accepted.labels(TRANSPORT)
        self._held = 0
        self._connection: MqttConnection | None = None
        self._finding: str | None = "not connected yet"
        self._closing = False

    async def run(self) -> None:
        """Connect, serve, and connect again after every loss, until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        failures = 0
        while True:
            connection = MqttConnection(self._address, self._handle_message)
            # Before it opens: the broker may deliver before it confirms the subscription.
            self._connection = connection
            try:
                await connection.open(TOPIC_FILTERS)
            except MqttUnreachableError as error:
                failures += 1
                self._finding = f"no MQTT broker: {error}"
                log.warning("mqtt_unreachable", detail=str(error), failures=failures)
            else:
                failures = 1
                self._finding = None
                self._metrics.mqtt_connected.set(1)
                self._metrics.mqtt_connections.inc()
                log.info("mqtt_subscribed", host=self._address.host, port=self._address.port)
                try:
                    why = await connection.lost()
                finally:
                    self._metrics.mqtt_connected.set(0)
                self._finding = f"MQTT connection lost: {why}"
                log.warning("mqtt_lost", detail=why)
                await connection.close()
            self._connection = None
            # Spreading out gateways that lost one broker needs no secrecy.
            chance = random.random()  # noqa: S311
            await asyncio.sleep(jittered_backoff_s(failures, _RECONNECT_FIRST_S, self._backoff_max_s, chance))

    async def ready(self) -> str | None:
        """None while subscribed, else what is amiss."""
        return self._finding

    async def close(self, timeout_s: float) -> int:
        """Take no more, wait up to `timeout_s` for the messages in hand; returns how many were left.

        Those left were not acknowledged: the broker keeps them for the next connection.
        """
        self._closing = True
        self._finding = "the gateway is stopping"
        if self._connection is None:
            return self._held
        self._connection.pause_reading()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("mqtt_messages_left", count=self._held)
        await self._connection.close()
        return self._held

    def _handle_message(self, message: MQTTMessage) -> None:
        received_us = time.time_ns() // 1000
        connection = self._connection
        if connection is None or self._closing:
            return  # not acknowledged: it comes again
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "devices/\ufffd/telemetry"
        outcome = decode_message(
            topic,
            bytes(message.payload),
            received_us,
            self._limits,
            self._payload_limit_bytes,
        )
        if isinstance(outcome, Rejected):
            self._metrics.rejected.labels(TRANSPORT, outcome.reason.value).inc()
        self._held += 1
        self._metrics.mqtt_held.set(self._held)
        self._idle.clear()
        if self._held >= self._held_max:
            connection.pause_reading()
        self._attempt(_Delivery(message, topic, outcome, received_us, connection))

    def _attempt(self, delivery: _Delivery) -> None:
        if delivery.message.qos and delivery.connection is not self._connection:
            self._let_go()  # the broker sends it again on the new connection
            return
        try:
            future = self._hand_over(delivery)
        except UnavailableError as unavailable:
            self._try_again(delivery, unavailable)
        else:
            future.add_done_callback(partial(self._handle_settled, delivery))

    def _hand_over(self, delivery: _Delivery) -> asyncio.Future[None]:
        outcome = delivery.outcome
        if not isinstance(outcome, Rejected):
            return self._forwarder.put(outcome)
        return self._forwarder.put_dead_letter(
            DeadLetter(
                payload=bytes(delivery.message.payload),
                rejected=outcome,
                source=f"mqtt:{delivery.topic}",
                received_time_ms=delivery.received_us // 1000,
            )
        )

    def _handle_settled(self, delivery: _Delivery, future: asyncio.Future[None]) -> None:
        if future.cancelled():
            self._let_go()
            return
        error = future.exception()
        if isinstance(error, UnavailableError):
            self._try_again(delivery, error)
            return
        if error is not None:
            raise error
        if isinstance(delivery.outcome, Rejected):
            self._metrics.dead_letters.labels(delivery.outcome.reason.value).inc()
        else:
            self._accepted.inc(len(delivery.outcome))
        if delivery.connection is self._connection:
            delivery.connection.acknowledge(delivery.message)
        self._let_go()

    def _try_again(self, delivery: _Delivery, unavailable: UnavailableError) -> None:
        delivery.failures += 1
        self._metrics.unavailable.labels(TRANSPORT, unavailable.obstacle.value).inc()
        chance = random.random()  # noqa: S311 - as above
        delay_s = jittered_backoff_s(delivery.failures, _RETRY_FIRST_S, _RETRY_LONGEST_S, chance)
        self._loop.call_later(delay_s, self._attempt, delivery)

    def _let_go(self) -> None:
        self._held -= 1
        self._metrics.mqtt_held.set(self._held)
        if self._held == 0:
            self._idle.set()
        if self._held <= self._held_max // 2 and self._connection is not None and not self._closing:
            self._connection.resume_reading()

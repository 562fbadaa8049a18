"""Messages of an MQTT broker → frames and dead letters, on one connection for several kinds of message.

In: messages, and the sources that know what they mean (`mqtt_source`). Out: frames, or dead letters with
their reason, to the forwarder.
Guarantees: a QoS 1 message is acknowledged to the broker only after its frames or its dead letter are
durable, or where there is nothing to forward; until then the gateway keeps trying, and a message that the
connection is lost over comes again: at least once. A message that its protocol names is not forwarded again
within the window. At most `gateway_mqtt_in_flight_max` messages are in hand; at the bound reading pauses
and the broker queues. While messages wait to be tried again, later ones wait behind them; only one whose
attempt was under way already can come before them.
Not here: the socket (`mqtt_connection`), what a message means (the sources), durability (`forwarder`).
Who may publish where is the broker's to decide.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Final

import structlog
from paho.mqtt.client import MQTTMessage

from plantwire.gateway.forwarder import DeadLetter, Forwarder, UnavailableError
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.mqtt_connection import BrokerAddress, MqttConnection, MqttUnreachableError
from plantwire.gateway.mqtt_source import Decoded, MqttSource, Outcome, Unneeded
from plantwire.gateway.recent_keys import RecentKeys
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.slices import slices
from plantwire.platform.backoff import jittered_backoff_s
from plantwire.schemas.records import TelemetryFrame

UNKNOWN_PROTOCOL: Final = "mqtt"
"""What a message of no source counts under."""
_RETRY_FIRST_S: Final = 0.1
_RETRY_LONGEST_S: Final = 5.0
_RECONNECT_FIRST_S: Final = 0.25
_LOGGED_AGAIN_S: Final = 10.0

log = structlog.get_logger()


class _Delivery:
    """One message in hand, from its arrival to its acknowledgement."""

    __slots__ = ("connection", "message", "number", "outcome", "protocol", "received_us", "topic")

    def __init__(
        self,
        number: int,
        message: MQTTMessage,
        topic: str,
        protocol: str,
        outcome: Outcome,
        received_us: int,
        connection: MqttConnection,
    ) -> None:
        self.number = number
        self.message = message
        self.topic = topic
        self.protocol = protocol
        self.outcome = outcome
        self.received_us = received_us
        self.connection = connection

    def __lt__(self, other: _Delivery) -> bool:
        return self.number < other.number

    @property
    def key(self) -> str | None:
        return self.outcome.key if isinstance(self.outcome, Decoded) else None


class MqttTransport:
    """Keeps a connection to the broker; `run` it as a task, `close` it to stop in order."""

    def __init__(
        self,
        settings: GatewaySettings,
        forwarder: Forwarder,
        metrics: GatewayMetrics,
        sources: Sequence[MqttSource],
    ) -> None:
        self._address = BrokerAddress.of(settings)
        self._payload_limit_bytes = settings.gateway_body_limit_bytes
        self._held_max = settings.gateway_mqtt_in_flight_max
        self._backoff_max_s = settings.gateway_mqtt_backoff_max_s
        self._forwarder = forwarder
        self._metrics = metrics
        self._router = SourceRouter(sources)
        self._recent = RecentKeys(
            settings.gateway_mqtt_duplicate_window_s, settings.gateway_mqtt_duplicates_max
        )
        self._under_way: dict[str, list[_Delivery]] = {}
        self._waiting: list[_Delivery] = []
        self._retry: asyncio.TimerHandle | None = None
        self._refusals = 0
        # A message of many frames is being handed over, in turns: later ones wait behind it.
        self._in_turns: asyncio.Task[None] | None = None
        self._numbers = count()
        self._logged_at_s: dict[tuple[str, Reason], float] = {}
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
                await connection.open(self._router.filters)
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
        connection = self._connection
        if connection is None:
            return self._held
        connection.pause_reading()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("mqtt_messages_left", count=self._held)
        if self._retry is not None:
            self._retry.cancel()
        await connection.close()  # this one: it may be lost, and another coming up, by now
        return self._held

    def _handle_message(self, message: MQTTMessage) -> None:
        received_us = time.time_ns() // 1000
        connection = self._connection
        if connection is None or self._closing:
            return  # not acknowledged: it comes again
        topic, protocol, outcome = self._decode(message, received_us)
        if isinstance(outcome, Unneeded):
            self._metrics.mqtt.unneeded.labels(protocol, outcome.value).inc()
            connection.acknowledge(message)
            return
        if isinstance(outcome, Rejected):
            self._note_rejected(protocol, topic, outcome)
        self._held += 1
        self._metrics.mqtt_held.set(self._held)
        self._idle.clear()
        if self._held >= self._held_max:
            connection.pause_reading()
        self._take(_Delivery(next(self._numbers), message, topic, protocol, outcome, received_us, connection))

    def _decode(self, message: MQTTMessage, received_us: int) -> tuple[str, str, Outcome]:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            refused = Rejected(Reason.INVALID_DEVICE_ID, "The topic is not UTF-8.")
            return "\ufffd", UNKNOWN_PROTOCOL, refused
        source = self._router.source_of(topic)
        if source is None:
            return topic, UNKNOWN_PROTOCOL, Unneeded.NOT_SUBSCRIBED
        payload = bytes(message.payload)
        if len(payload) > self._payload_limit_bytes:
            detail = f"{len(payload)} bytes in one message; at most {self._payload_limit_bytes}."
            return topic, source.protocol, Rejected(Reason.BODY_TOO_LARGE, detail)
        outcome = source.decode(topic, payload, received_us)
        # The broker sets the flag on what it kept from before our subscription, not on what comes live.
        if message.retain and isinstance(outcome, Decoded) and _has_no_time(outcome, received_us):
            outcome = Unneeded.RETAINED_UNDATED
        return topic, source.protocol, outcome

    def _note_rejected(self, protocol: str, topic: str, rejected: Rejected) -> None:
        self._metrics.rejected.labels(protocol, rejected.reason.value).inc()
        # The first of a kind says what is wrong; a device that repeats it must not fill the log.
        now_s = time.monotonic()
        kind = (protocol, rejected.reason)
        if now_s - self._logged_at_s.get(kind, -_LOGGED_AGAIN_S) >= _LOGGED_AGAIN_S:
            self._logged_at_s[kind] = now_s
            log.warning(
                "mqtt_message_rejected",
                topic=topic[:256],
                reason=rejected.reason.value,
                detail=rejected.detail,
            )

    def _take(self, delivery: _Delivery) -> None:
        if self._waiting or self._in_turns is not None:
            heapq.heappush(self._waiting, delivery)
        else:
            self._attempt(delivery)

    def _attempt(self, delivery: _Delivery) -> bool:
        """Hand a message on; False where there is no room for it now, and it waits."""
        if delivery.message.qos and delivery.connection is not self._connection:
            self._let_go()  # the broker sends it again on the new connection
            return True
        key = delivery.key
        if key is not None:
            if self._recent.seen(key, time.monotonic()):
                self._finish_duplicate(delivery)
                return True
            if key in self._under_way:
                self._under_way[key].append(delivery)  # decided by the outcome of the first
                return True
        try:
            future = self._hand_over(delivery)
        except UnavailableError as unavailable:
            self._wait(delivery, unavailable)
            return False
        if key is not None:
            self._under_way[key] = []
        future.add_done_callback(partial(self._handle_settled, delivery))
        return True

    def _hand_over(self, delivery: _Delivery) -> asyncio.Future[None]:
        outcome = delivery.outcome
        if isinstance(outcome, Decoded):
            parts = list(slices(outcome.frames))
            first = self._forwarder.put(parts[0])
            if len(parts) == 1:
                return first
            self._in_turns = self._loop.create_task(self._put_in_turns(first, parts[1:]))
            return self._in_turns
        assert isinstance(outcome, Rejected)  # noqa: S101 - the third kind is not in hand
        return self._forwarder.put_dead_letter(
            DeadLetter(
                payload=bytes(delivery.message.payload),
                rejected=outcome,
                source=f"mqtt:{delivery.topic}",
                received_time_ms=delivery.received_us // 1000,
                protocol=delivery.protocol,
            )
        )

    async def _put_in_turns(
        self, first: asyncio.Future[None], parts: Sequence[Sequence[TelemetryFrame]]
    ) -> None:
        promises = [first]
        try:
            for part in parts:
                await asyncio.sleep(0)  # other work comes between
                promises.append(self._forwarder.put(part))
        except UnavailableError:
            for promise in promises:
                promise.add_done_callback(_hear)
            raise
        finally:
            self._in_turns = None
        if self._retry is None:
            self._loop.call_soon(self._take_waiting)
        await asyncio.gather(*promises)

    def _handle_settled(self, delivery: _Delivery, future: asyncio.Future[None]) -> None:
        key = delivery.key
        alike = self._under_way.pop(key, []) if key is not None else []
        error = None if future.cancelled() else future.exception()
        if future.cancelled():
            self._let_go()
        elif isinstance(error, UnavailableError):
            self._wait(delivery, error)
        elif error is not None:
            raise error
        else:
            self._refusals = 0
            self._note_durable(delivery)
            self._acknowledge(delivery)
        for repetition in alike:
            self._take(repetition)

    def _note_durable(self, delivery: _Delivery) -> None:
        outcome = delivery.outcome
        if isinstance(outcome, Rejected):
            self._metrics.dead_letters.labels(outcome.reason.value).inc()
        elif isinstance(outcome, Decoded):
            self._metrics.accepted.labels(delivery.protocol).inc(len(outcome.frames))
            for remark in outcome.remarks:
                self._metrics.mqtt.remarks.labels(delivery.protocol, remark.value).inc()
            if outcome.key is not None:
                self._recent.remember(outcome.key, time.monotonic())

    def _finish_duplicate(self, delivery: _Delivery) -> None:
        self._metrics.mqtt.unneeded.labels(delivery.protocol, Unneeded.DUPLICATE.value).inc()
        self._acknowledge(delivery)

    def _acknowledge(self, delivery: _Delivery) -> None:
        if delivery.connection is self._connection:
            delivery.connection.acknowledge(delivery.message)
        self._let_go()

    def _wait(self, delivery: _Delivery, unavailable: UnavailableError) -> None:
        self._metrics.unavailable.labels(delivery.protocol, unavailable.obstacle.value).inc()
        heapq.heappush(self._waiting, delivery)
        if self._retry is None:
            self._refusals += 1
            chance = random.random()  # noqa: S311 - as above
            delay_s = jittered_backoff_s(self._refusals, _RETRY_FIRST_S, _RETRY_LONGEST_S, chance)
            self._retry = self._loop.call_later(delay_s, self._try_again)

    def _try_again(self) -> None:
        """Try those that wait, in order of arrival, up to the first that there is still no room for."""
        self._retry = None
        self._take_waiting()

    def _take_waiting(self) -> None:
        while self._waiting and self._in_turns is None and self._attempt(heapq.heappop(self._waiting)):
            pass

    def _let_go(self) -> None:
        self._held -= 1
        self._metrics.mqtt_held.set(self._held)
        if self._held == 0:
            self._idle.set()
        if self._held <= self._held_max // 2 and self._connection is not None and not self._closing:
            self._connection.resume_reading()


def _hear(promise: asyncio.Future[None]) -> None:
    """An outcome that nobody waits for: the message is tried again as a whole."""
    if not promise.cancelled():
        promise.exception()


def _has_no_time(decoded: Decoded, received_us: int) -> bool:
    """Whether a frame took the time of its arrival for want of its own."""
    return any(frame.event_time_ms == received_us // 1000 for frame in decoded.frames)


class SourceRouter:
    """Finds the source of a topic by what its filters begin with; the longest beginning wins."""

    def __init__(self, sources: Sequence[MqttSource]) -> None:
        self.filters = tuple(one for source in sources for one in source.filters)
        beginnings = {one.partition("+")[0].partition("#")[0]: s for s in sources for one in s.filters}
        self._beginnings = sorted(beginnings.items(), key=lambda entry: len(entry[0]), reverse=True)

    def source_of(self, topic: str) -> MqttSource | None:
        """The source that subscribed to `topic`, or None."""
        for beginning, source in self._beginnings:
            if topic.startswith(beginning):
                return source
        return None

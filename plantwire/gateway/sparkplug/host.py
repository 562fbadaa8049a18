"""The Sparkplug B 3.0 host application: a connection of its own to the MQTT broker.

In: messages below `spBv1.0/`. Out: frames and dead letters to the intake; our STATE, rebirth requests and
commands to the broker.
Guarantees: as the standard has it. Clean session; the will says offline; we subscribe our STATE and the
namespace in one request, then say online (the first thing that we publish, with the will's time stamp), and
say so again whenever our STATE is seen otherwise. Where it is seen offline as of a later time than that, edge
nodes would not believe us: we leave and come again with a still later time stamp. A stop in order says
offline and then disconnects. When the broker is lost everything that came by it is stale; once it is back
every edge node is asked for its births.
Messages are taken as they come, whatever the intake can hold: QoS 0 has no way to slow a sender down.
Not here: what messages mean (`edge_nodes`), what follows from them (`follow_up`), the socket
(`mqtt_connection`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
import structlog
from paho.mqtt.client import MQTTMessage

from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.mqtt_connection import BrokerAddress, MqttConnection, MqttUnreachableError, Will
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.sparkplug.commands import (
    COMMAND_QOS,
    CommandMetric,
    CommandRefusedError,
    Value,
    command_payload,
    command_topic,
)
from plantwire.gateway.sparkplug.edge_nodes import EdgeNodes
from plantwire.gateway.sparkplug.follow_up import FollowUp, monotonic_ms
from plantwire.gateway.sparkplug.hand_over import SparkplugIntake
from plantwire.gateway.sparkplug.outcome import EdgeNodeId, SparkplugLimits
from plantwire.gateway.sparkplug.rebirth_pace import RebirthPace
from plantwire.gateway.sparkplug.state_topic import STATE_QOS, parse_state, state_payload, state_topic
from plantwire.gateway.sparkplug.topic import NAMESPACE
from plantwire.platform.backoff import jittered_backoff_s

_RECONNECT_FIRST_S: Final = 0.25
_ANNOUNCE_TIMEOUT_S: Final = 10.0
_HOUSEKEEPING_S: Final = 60.0

log = structlog.get_logger()


def limits_of(settings: GatewaySettings) -> SparkplugLimits:
    """Bounds and times for the edge nodes' sessions."""
    return SparkplugLimits(
        payload_bytes_max=settings.gateway_body_limit_bytes,
        edge_nodes_max=settings.sparkplug_edge_nodes_max,
        metrics_per_frame_max=settings.gateway_metrics_per_frame_max,
        time_ahead_max_ms=settings.gateway_time_ahead_max_ms,
        reorder_timeout_ms=settings.sparkplug_reorder_timeout_ms,
        rebirth_first_ms=round(settings.sparkplug_rebirth_interval_s * 1000),
        silent_forget_ms=round(settings.sparkplug_silent_forget_h * 3_600_000),
    )


def topic_filters(groups: Sequence[str]) -> tuple[str, ...]:
    """What to subscribe besides our own STATE: the namespace, or these groups of it."""
    return tuple(f"{NAMESPACE}/{group}/#" for group in groups) or (f"{NAMESPACE}/#",)


class SparkplugHost:
    """Keeps the host application online; `run` it as a task, `close` it to stop in order."""

    def __init__(
        self,
        settings: GatewaySettings,
        intake: SparkplugIntake,
        metrics: GatewayMetrics,
        connect: Callable[..., MqttConnection] = MqttConnection,
    ) -> None:
        address = BrokerAddress.of(settings)
        self._address = msgspec.structs.replace(address, client_id=f"{address.client_id}-sparkplug")
        self._connect = connect
        self._backoff_max_s = settings.gateway_mqtt_backoff_max_s
        self._state_topic = state_topic(settings.sparkplug_host_id)
        self._topic_filters = (self._state_topic, *topic_filters(settings.sparkplug_group_list()))
        self._metrics = metrics.sparkplug
        self._edge_nodes = EdgeNodes(limits_of(settings))
        pace = RebirthPace(
            settings.sparkplug_rebirths_per_s, settings.sparkplug_edge_nodes_max, monotonic_ms()
        )
        self._follow_up = FollowUp(self._edge_nodes, intake, metrics, pace)
        self._connection: MqttConnection | None = None
        self._online_since_ms: int | None = None
        """Time stamp of our STATE on this connection; None while we have not said that we are online."""
        self._state_seen_ms = 0
        """Latest time stamp of a STATE of ours that said offline."""
        self._outdated = asyncio.Event()
        """Our STATE is older than that."""
        self._finding: str | None = "not connected yet"
        self._closing = False
        self._housekeeping: asyncio.TimerHandle | None = None
        self._show_census()

    async def run(self) -> None:
        """Connect, serve, and connect again after every loss, until cancelled or closed."""
        failures = 0
        self._plan_housekeeping()
        while True:
            try:
                connection = await self._come_online()
            except MqttUnreachableError as error:
                failures += 1
                self._finding = f"no MQTT broker: {error}"
                log.warning("sparkplug_unreachable", detail=str(error), failures=failures)
            else:
                failures = 1
                why = await self._until_lost(connection)
                if not self._closing:
                    log.warning("sparkplug_lost", detail=why)
                await connection.close()
                await self._go_offline(f"MQTT connection lost: {why}")
            if self._closing:
                return
            # Spreading out gateways that lost one broker needs no secrecy.
            chance = random.random()  # noqa: S311
            await asyncio.sleep(jittered_backoff_s(failures, _RECONNECT_FIRST_S, self._backoff_max_s, chance))

    async def ready(self) -> str | None:
        """None while edge nodes see us online, else what is amiss."""
        return self._finding

    async def close(self, timeout_s: float) -> None:
        """Say that we go, and go; what came by the broker is stale from now on."""
        self._closing = True
        self._follow_up.stop_trying()
        if self._connection is not None:
            await self._leave(self._connection, timeout_s)
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._go_offline("the gateway is stopping")
                await self._follow_up.close()

    def send_command(
        self, edge_node: EdgeNodeId, device: str | None, values: Mapping[str, Value]
    ) -> asyncio.Future[bool]:
        """Write metrics of an edge node (device None) or of one of its devices, by their names.

        The future says whether the command left; whether it was obeyed only later data can tell. Raises
        `CommandRefusedError` where we are offline, the node or device is not alive, its birth has no such
        metric, or a value does not fit the metric's datatype.
        """
        if self._connection is None or self._online_since_ms is None:
            raise CommandRefusedError("The gateway is not connected to the MQTT broker.")
        metrics: list[CommandMetric] = []
        for name, value in values.items():
            definition = self._edge_nodes.definition(edge_node, device, name)
            if definition is None:
                target = "/".join(edge_node if device is None else (*edge_node, device))
                raise CommandRefusedError(f"{target} is not alive, or its birth has no metric {name}.")
            metrics.append(CommandMetric(name, definition.datatype, value, definition.alias))
        payload = command_payload(metrics, _wall_ms())
        return self._connection.publish(command_topic(edge_node, device), payload, qos=COMMAND_QOS)

    async def _until_lost(self, connection: MqttConnection) -> str:
        """Why the connection is lost, or has been given up."""
        lost = asyncio.create_task(connection.lost())
        outdated = asyncio.create_task(self._outdated.wait())
        try:
            await asyncio.wait((lost, outdated), return_when=asyncio.FIRST_COMPLETED)
            if not lost.done():
                since_ms = self._online_since_ms
                await self._leave(connection, _ANNOUNCE_TIMEOUT_S)
                return f"our STATE of {since_ms} is older than one of {self._state_seen_ms} that says offline"
            return lost.result()
        finally:
            lost.cancel()
            outdated.cancel()

    async def _come_online(self) -> MqttConnection:
        """A connection on which our STATE is online; raises `MqttUnreachableError`."""
        since_ms = max(_wall_ms(), self._state_seen_ms + 1)
        self._outdated.clear()
        connection = self._connect(
            self._address,
            self._handle_message,
            clean_session=True,
            will=Will(self._state_topic, state_payload(False, since_ms), STATE_QOS, retain=True),
        )
        self._connection = connection  # before it opens: messages may come before SUBACK
        try:
            await connection.open(self._topic_filters)
        except MqttUnreachableError:
            await self._go_offline("no MQTT broker")
            raise
        self._online_since_ms = since_ms
        if self._state_seen_ms > since_ms:
            self._outdated.set()  # the retained one came before
        try:
            async with asyncio.timeout(_ANNOUNCE_TIMEOUT_S):
                heard = await self._publish_state(connection, True, since_ms)
        except TimeoutError:
            heard = False
        if not heard:
            await self._leave(connection, 0.0)
            await self._go_offline("no MQTT broker")
            raise MqttUnreachableError("the broker did not acknowledge our STATE")
        self._finding = None
        self._metrics.connected.set(1)
        self._metrics.connections.inc()
        log.info("sparkplug_online", host=self._address.host, port=self._address.port)
        self._follow_up.open_gate(partial(self._publish_rebirth, connection))
        for outcome in self._edge_nodes.regain_broker(monotonic_ms()):
            self._follow_up.apply(outcome)
        return connection

    async def _go_offline(self, finding: str) -> None:
        self._connection = None
        self._online_since_ms = None
        self._finding = finding
        self._metrics.connected.set(0)
        self._follow_up.close_gate()
        await self._follow_up.tell_stale(self._edge_nodes.lose_broker(_wall_us(), monotonic_ms()))

    async def _leave(self, connection: MqttConnection, timeout_s: float) -> None:
        """Publish our death, then DISCONNECT, which makes the broker forget the will."""
        since_ms = self._online_since_ms
        if since_ms is not None:
            # Not older than what it ends. Where we come again it is no newer either, or another host of our
            # id would have to come again over it, and so on.
            timestamp_ms = since_ms if self._outdated.is_set() else max(_wall_ms(), since_ms)
            self._online_since_ms = None  # our own death is not to be answered
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._publish_state(connection, False, timestamp_ms)
        await connection.close()

    def _publish_state(
        self, connection: MqttConnection, online: bool, timestamp_ms: int
    ) -> asyncio.Future[bool]:
        payload = state_payload(online, timestamp_ms)
        return connection.publish(self._state_topic, payload, qos=STATE_QOS, retain=True)

    def _publish_rebirth(self, connection: MqttConnection, topic: str, payload: bytes) -> None:
        connection.publish(topic, payload, qos=COMMAND_QOS)

    def _handle_message(self, message: MQTTMessage) -> None:
        received_us = _wall_us()
        connection = self._connection
        if connection is None:
            return
        # A clean session brings nothing again, so there is nothing to wait for.
        connection.acknowledge(message)
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "\ufffd"
        if topic == self._state_topic:
            self._handle_own_state(connection, bytes(message.payload))
        elif message.retain:
            # Of edge nodes only what is said now counts: a retained birth may be that of a node long dead.
            self._metrics.retained_ignored.inc()
        else:
            payload = bytes(message.payload)
            outcome = self._edge_nodes.take(topic, payload, received_us, monotonic_ms())
            self._follow_up.apply(outcome, topic, payload, received_us)

    def _plan_housekeeping(self) -> None:
        loop = asyncio.get_running_loop()
        self._housekeeping = loop.call_later(_HOUSEKEEPING_S, self._keep_house)

    def _keep_house(self) -> None:
        self._plan_housekeeping()
        if self._finding is None:  # while we are away nobody can say anything
            for outcome in self._edge_nodes.forget_silent(_wall_us(), monotonic_ms()):
                self._follow_up.apply(outcome)

    def _show_census(self) -> None:
        census = self._edge_nodes.census
        self._metrics.edge_nodes.labels("known").set_function(lambda: census().edge_nodes)
        self._metrics.edge_nodes.labels("born").set_function(lambda: census().born)
        self._metrics.devices.set_function(lambda: census().devices)
        self._metrics.metrics.set_function(lambda: census().metrics)

    def _handle_own_state(self, connection: MqttConnection, payload: bytes) -> None:
        """Whoever says otherwise (our own will of an earlier connection, a cleared topic) is answered."""
        state = parse_state(payload)
        if state is not None and not state.online:
            # May come before we are online: the retained one does.
            self._state_seen_ms = max(self._state_seen_ms, state.timestamp)
        since_ms = self._online_since_ms
        if since_ms is None or self._outdated.is_set() or (state is not None and state.online):
            return
        self._metrics.state_repeated.inc()
        if self._state_seen_ms > since_ms:
            self._outdated.set()
        else:
            self._publish_state(connection, True, since_ms)


def _wall_us() -> int:
    return time.time_ns() // 1000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000

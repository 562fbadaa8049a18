"""One Sparkplug edge node on an MQTT connection of its own.

In: frames of the node and its devices; what the broker delivers. Out: what the session says, published in
order; an `Outcome` for each frame; writes of a host, given on to the device.
Guarantees: accepted means written to a live connection: Sparkplug data is QoS 0. A frame in which nothing
changed is counted as unchanged and sends nothing. Cancelled, it publishes its death and disconnects.
Not here: the rules of the session (`sparkplug.session`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import aiomqtt
import structlog

from plantwire.simulator.broker import BrokerAddress, new_client, note_away
from plantwire.simulator.frame import Frame, Value
from plantwire.simulator.outlet import Accepted, Dropped, Gate, Outcome, Unchanged
from plantwire.simulator.sparkplug.session import (
    Action,
    EdgeNodeSession,
    Ignored,
    Leave,
    Phase,
    Publish,
    Written,
)

GOODBYE_TIMEOUT_S: Final = 2.0

_log = structlog.get_logger(__name__)

OnWrite = Callable[[str | None, str, Value], None]
"""(device, or None for the node; metric; value)."""


class SparkplugOutlet:
    """The node's connection, which `run` keeps up; `names` maps device ids to the node's own names."""

    name = "sparkplug"

    def __init__(
        self,
        address: BrokerAddress,
        session: EdgeNodeSession,
        names: Mapping[str, str | None],
        on_write: OnWrite,
    ) -> None:
        self._address = address
        self._session = session
        self._names = names
        self._on_write = on_write
        self._client: aiomqtt.Client | None = None
        self._gate = Gate()
        # A sequence number is on the wire before the next one is given out.
        self._in_order = asyncio.Lock()

    async def run(self) -> None:
        """Connect, be born, and start over after every loss, until cancelled."""
        while True:
            try:
                await self._serve()
            except (aiomqtt.MqttError, OSError) as error:
                note_away(self._gate, error)
            finally:
                self._client = None
                self._session.lost()
            await asyncio.sleep(self._gate.wait_s(time.monotonic()))

    async def send(self, frame: Frame) -> Outcome:
        """Say what has changed; a frame without metrics says that the device cannot be read."""
        device = self._names[frame.device_id]
        async with self._in_order:
            if frame.metrics or device is None:
                actions = self._session.report(device, frame.metrics, frame.timestamp_ms)
            else:
                actions = self._session.device_lost(device, frame.timestamp_ms)
            if self._client is None or self._session.phase is Phase.AWAY:
                return Dropped("broker-away")
            if self._session.phase is Phase.WAITING:
                return Dropped("host-offline")
            try:
                await self._carry_out(self._client, actions)
            except (aiomqtt.MqttError, OSError):
                return Dropped("broker-away")
        return Accepted() if actions else Unchanged()

    async def _serve(self) -> None:
        """One MQTT session; returns when the primary host went offline."""
        death = self._session.connect(_now_ms())
        will = aiomqtt.Will(death.topic, death.payload, qos=death.qos, retain=False)
        async with new_client(self._address, will) as client:
            try:
                await client.subscribe(self._session.subscriptions())
                async with self._in_order:
                    self._client = client
                    await self._carry_out(client, self._session.subscribed(_now_ms()))
                self._gate.succeed()
                async for message in client.messages:
                    if not await self._take(client, message):
                        return
            except asyncio.CancelledError:
                await self._say_goodbye(client)
                raise

    async def _take(self, client: aiomqtt.Client, message: aiomqtt.Message) -> bool:
        """Whether the session goes on."""
        payload = message.payload if isinstance(message.payload, bytes) else b""
        async with self._in_order:
            actions = self._session.receive(message.topic.value, payload, _now_ms())
            await self._carry_out(client, actions)
        return not any(isinstance(action, Leave) for action in actions)

    async def _carry_out(self, client: aiomqtt.Client, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Publish):
                await client.publish(action.topic, action.payload, qos=action.qos)
                if action.topic.split("/")[2] == "NBIRTH":
                    _log.info("edge-node-born", topic=action.topic)
            elif isinstance(action, Written):
                self._on_write(action.device, action.name, action.value)
                _log.info("output-written", device=action.device, metric=action.name, value=action.value)
            elif isinstance(action, Leave):
                _log.info("primary-host-offline")
            elif isinstance(action, Ignored):
                _log.warning("message-ignored", topic=action.topic[:300], reason=action.reason)

    async def _say_goodbye(self, client: aiomqtt.Client) -> None:
        with suppress(aiomqtt.MqttError, OSError, TimeoutError):
            async with asyncio.timeout(GOODBYE_TIMEOUT_S):
                await self._carry_out(client, self._session.leave(_now_ms()))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

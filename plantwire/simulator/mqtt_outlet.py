"""Frames to the gateway by MQTT, as JSON, topic `devices/{id}/telemetry`, QoS 1.

In: frames. Out: an `Outcome` for each.
Guarantees: accepted means that the broker acknowledged the message; it holds it for the gateway, which
tells nobody whether it took it.
Not here: the connection (`simulator.broker`), the interface itself (docs/gateway.md).
"""

from __future__ import annotations

from plantwire.simulator.broker import BrokerAddress, BrokerLink
from plantwire.simulator.frame import Frame, encode_json
from plantwire.simulator.outlet import Outcome


class MqttOutlet:
    """Sends to one broker over one connection, which `run` keeps up."""

    name = "mqtt"

    def __init__(self, address: BrokerAddress) -> None:
        self._link = BrokerLink(address)

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        await self._link.run()

    async def send(self, frame: Frame) -> Outcome:
        """Publish one frame of a device."""
        return await self._link.publish(f"devices/{frame.device_id}/telemetry", encode_json(frame))

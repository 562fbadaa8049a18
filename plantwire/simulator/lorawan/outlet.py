"""A ChirpStack network server's MQTT integration, for simulated sensors.

In: frames of sensors. Out: the events that ChirpStack publishes of them; an `Outcome` for each frame.
Guarantees: accepted means that the broker acknowledged every event of the frame (the integration's `qos` is
1 here; ChirpStack's own default is 0). An uplink that is not is lost, and shows as a gap in `fCnt`.
Not here: the events (`lorawan.chirpstack`), the connection (`simulator.broker`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from plantwire.simulator.broker import BrokerAddress, BrokerLink
from plantwire.simulator.frame import Frame
from plantwire.simulator.lorawan.chirpstack import DeviceRecord
from plantwire.simulator.lorawan.sensors import Sensor
from plantwire.simulator.outlet import Accepted, Outcome


class ChirpStackOutlet:
    """The server's connection, which `run` keeps up."""

    name = "chirpstack"

    def __init__(self, address: BrokerAddress, sensors: Iterable[Sensor]) -> None:
        self._link = BrokerLink(address)
        self._records = {sensor.device_id: DeviceRecord(sensor, _new_id) for sensor in sensors}

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        await self._link.run()

    async def send(self, frame: Frame) -> Outcome:
        """Publish the events of one uplink."""
        record = self._records[frame.device_id]
        outcome: Outcome = Accepted()
        for message in record.messages(frame):
            outcome = await self._link.publish(message.topic, message.body)
            if not isinstance(outcome, Accepted):
                break
        record.sent(is_published=isinstance(outcome, Accepted))
        return outcome


def _new_id() -> str:
    return str(uuid.uuid4())

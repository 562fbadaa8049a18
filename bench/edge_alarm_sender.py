"""The devices of `bench.edge_alarm`: one process that sends one transport's frames, open loop.

In: an `EdgeOrder` as the first line of standard input. Out: JSON lines: `started` with the moment, `finished`
with counts.
Guarantees: frame n is sent at its due time or later, never earlier, whatever the answers; how late the
sender itself was is told.
Not here: what is sent (`bench.edge_alarm_plan`), how (`bench.gateway_sender`).
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from typing import Final

import msgspec
import uvloop

from bench.edge_alarm_plan import EdgePlan
from bench.gateway_payloads import HTTP, MQTT_JSON, Plant
from bench.gateway_sender import HttpOutlet, MqttOutlet, Order

OVER_HTTP: Final = "http"
MQTT_QOS_0: Final = "mqtt, QoS 0"
MQTT_QOS_1: Final = "mqtt, QoS 1"
TRANSPORTS: Final = (MQTT_QOS_0, MQTT_QOS_1, OVER_HTTP)
START_DELAY_S: Final = 0.3
ANSWERS_S: Final = 1.0


class EdgeOrder(msgspec.Struct, frozen=True):
    """One run."""

    transport: str
    plan: EdgePlan
    gateway: str
    mqtt: str
    token: str


class _MqttOutlet(MqttOutlet):
    def __init__(self, order: Order, plant: Plant, qos: int) -> None:
        super().__init__(order, plant)
        self._qos = qos


async def run(order: EdgeOrder) -> None:
    """Send everything."""
    plan = order.plan
    protocol = HTTP if order.transport == OVER_HTTP else MQTT_JSON
    plant = Plant(protocol, plan.name, plan.devices)
    outlet_order = Order(
        protocol, plan.name, order.gateway, order.mqtt, order.token, plan.devices, 0.0, None, 0
    )
    outlet = (
        HttpOutlet(outlet_order, plant)
        if protocol == HTTP
        else _MqttOutlet(outlet_order, plant, 1 if order.transport == MQTT_QOS_1 else 0)
    )
    await outlet.connect()
    start_ms = int((time.time() + START_DELAY_S) * 1000)
    _tell({"event": "started", "start_ms": start_ms})
    late_ms = 0.0
    for frame in range(plan.frames):
        due_ms = plan.due_ms(start_ms, frame)
        payload = plan.payload(start_ms, frame)
        wait_ms = due_ms - time.time() * 1000
        if wait_ms > 0:
            # Event loops' timers know whole milliseconds.
            await asyncio.sleep(math.ceil(wait_ms) / 1000)
        late_ms = max(late_ms, time.time() * 1000 - due_ms)
        outlet.send(frame % plan.devices, payload)
    await asyncio.sleep(ANSWERS_S)  # the last answers; what is missing then shows as lost
    await outlet.close()
    _tell({"event": "finished", "refused": outlet.refused, "late_ms_max": round(late_ms, 3)})


def _tell(message: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(run(msgspec.json.decode(sys.stdin.buffer.readline(), type=EdgeOrder)))

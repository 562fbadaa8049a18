"""What the devices of `bench.edge_alarm` send, which alarm events must follow, and what came. Pure.

In: devices, rate; receipts. Out: payloads, `Deliveries`.
Guarantees: frame n is due at start + n / rate, and its time stamp is that whole millisecond; a device crosses
its limit in every `TOGGLE_EVERY`th of its frames, now up, now down, so every crossing is one event.
Not here: sending (`bench.edge_alarm_sender`), running (`bench.edge_alarm_run`).
"""

from __future__ import annotations

from typing import Final

import msgspec
import orjson

from bench.deliveries import WireAlarm
from bench.receipts import Receipts
from bench.spread import Distribution, distribution
from plantwire.schemas.records import AlarmRule, Limit

METRICS: Final = 10
TOGGLE_EVERY: Final = 4
RULE: Final = AlarmRule("edge-bench", 1, "*", "metric-0", (Limit(0, above=100.0, deadband=2.0),))

Crossing = tuple[str, int]
"""(device id, intended time in ms): names one frame that crosses a limit."""


class EdgePlan(msgspec.Struct, frozen=True):
    """One run's frames."""

    name: str
    devices: int
    frames_per_s: int
    warm_up_s: float
    duration_s: float

    def device_id(self, device: int) -> str:
        """Different in every run: a gateway's former alarms must not count."""
        return f"{self.name}-{device}"

    @property
    def frames(self) -> int:
        """All of them, those of the warm-up too."""
        return int((self.warm_up_s + self.duration_s) * self.frames_per_s)

    def due_ms(self, start_ms: int, frame: int) -> int:
        """When a frame is due, ms since the epoch."""
        return start_ms + round(frame * 1000 / self.frames_per_s)

    def is_hot(self, frame: int) -> bool:
        """Whether the frame is over the limit."""
        return (frame // self.devices + frame % self.devices) // TOGGLE_EVERY % 2 == 1

    def payload(self, start_ms: int, frame: int) -> bytes:
        """The frame as JSON."""
        metrics = {f"metric-{n}": 20.0 + n + frame % 7 / 8 for n in range(METRICS)}
        metrics["metric-0"] = 110.0 if self.is_hot(frame) else 50.0
        return orjson.dumps({"timestamp": self.due_ms(start_ms, frame), "metrics": metrics})

    def crossings(self, start_ms: int) -> list[Crossing]:
        """The frames that must give an event, after the warm-up; the warm-up shows where each device is."""
        found = []
        first = int(self.warm_up_s * self.frames_per_s)
        for frame in range(max(first, self.devices), self.frames):
            if self.is_hot(frame) != self.is_hot(frame - self.devices):
                found.append((self.device_id(frame % self.devices), self.due_ms(start_ms, frame)))
        return found


class EdgeDeliveries(msgspec.Struct, frozen=True):
    """What the clients got."""

    expected: int
    """Events times clients."""
    lost: int
    doubled: int
    """The same (alarm id, revision) twice at one client."""
    path_ms: Distribution | None
    """From the intended time of the frame to the client's having the event."""
    arrival_ms: Distribution | None
    """Of it, from the intended time to the frame's arrival in the gateway: sender, and broker for MQTT."""
    gateway_ms: Distribution | None
    """Of it, from there to the write to the client."""
    client_ms: Distribution | None
    """Of it, from the write to the client's having it."""


def compare(crossings: list[Crossing], clients: int, receipts: Receipts) -> EdgeDeliveries:
    """What came against what had to come."""
    alarms = [msgspec.json.decode(message, type=tuple[str, WireAlarm])[1] for message in receipts.messages]
    wanted = set(crossings)
    found: set[tuple[int, Crossing]] = set()
    told: set[tuple[int, str, int]] = set()
    path_ms: list[float] = []
    arrival_ms: list[float] = []
    gateway_ms: list[float] = []
    client_ms: list[float] = []
    doubled = 0
    for client, number, received_ns in zip(
        receipts.clients, receipts.numbers, receipts.received_ns, strict=True
    ):
        alarm = alarms[number]
        crossing = (alarm.device_id, alarm.timestamp)
        if crossing not in wanted:
            continue
        if (client, alarm.alarm_id, alarm.revision) in told:
            doubled += 1
            continue
        told.add((client, alarm.alarm_id, alarm.revision))
        found.add((client, crossing))
        path_ms.append(received_ns / 1e6 - alarm.timestamp)
        arrival_ms.append(alarm.hops.gateway_in - alarm.timestamp)
        gateway_ms.append(alarm.hops.emitted - alarm.hops.gateway_in)
        client_ms.append(received_ns / 1e6 - alarm.hops.emitted)
    expected = len(wanted) * clients
    return EdgeDeliveries(
        expected=expected,
        lost=expected - len(found),
        doubled=doubled,
        path_ms=distribution(path_ms),
        arrival_ms=distribution(arrival_ms),
        gateway_ms=distribution(gateway_ms),
        client_ms=distribution(client_ms),
    )

"""What a ChirpStack v4 network server publishes of its sensors: topics and JSON. Pure but for its counters.

In: a sensor's frame, a source of ids. Out: messages in their order: a join before the first uplink, an
uplink for each frame, a device status now and then.
Guarantees: as ChirpStack's own JSON: camel case, 64-bit integers as text, bytes in base64; ids of an event
are fresh. ChirpStack writes default values (`"fCnt": 0`) since 4.1 and leaves them out before; within the
radio information it always leaves them out. The sensors with a codec stand behind a new server, those
without behind an old one, so that both forms are seen.
Not here: the connection (`lorawan.outlet`), the payload's bytes (`lorawan.cayenne`).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from plantwire.simulator.frame import Frame
from plantwire.simulator.lorawan import cayenne
from plantwire.simulator.lorawan.sensors import Sensor
from plantwire.simulator.signals import gaussian, mix, uniform

STATUS_EVERY: Final = 12
"""Uplinks from one device status to the next."""
APPLICATION_ID: Final = "7d1f3c52-3a5e-4c0b-9b0f-6f2a5d1c8e10"
_TENANT_ID: Final = "52f14cd4-c6f1-4fbd-8f87-4025e1d49242"
_PROFILE_IDS: Final = {
    True: "14855bf7-d10d-4aee-b618-ebfcb64dc7ad",
    False: "c9a3f4e0-2b67-4d64-8f0e-0a6f1f3a7b21",
}
_GATEWAYS: Final = ("0016c001f153a14c", "0016c001f156d7e5")
_FREQUENCIES_HZ: Final = (868_100_000, 868_300_000, 868_500_000)
_SPREADING_FACTOR_OF_DR_0: Final = 12
_REGION: Final = "eu868"
_F_PORT: Final = 2
_BATTERY_LIFE_UPLINKS: Final = 200_000


class Message(msgspec.Struct, frozen=True):
    """One MQTT message."""

    topic: str
    body: bytes


class DeviceRecord:
    """What the network server remembers of one sensor."""

    def __init__(self, sensor: Sensor, new_id: Callable[[], str]) -> None:
        self._sensor = sensor
        self._new_id = new_id
        self._dev_addr = f"01{mix(sensor.seed, 7) & 0xFFFFFF:06x}"
        self._dr = 5 if uniform(sensor.seed, 3) < 0.6 else 3
        self._f_cnt = 0
        self._has_joined = False
        self._emits_defaults = sensor.kind.has_codec

    def messages(self, frame: Frame) -> list[Message]:
        """The events of one uplink of the sensor, in their order."""
        messages = []
        if not self._has_joined:
            messages.append(self._message("join", self._join(frame)))
        messages.append(self._message("up", self._uplink(frame)))
        if self._f_cnt % STATUS_EVERY == 0:
            messages.append(self._message("status", self._status(frame)))
        return messages

    def sent(self, *, is_published: bool) -> None:
        """The sensor's next frame has the next counter, whatever became of this one."""
        self._has_joined |= is_published
        self._f_cnt += 1

    def _message(self, event: str, body: dict[str, Any]) -> Message:
        topic = f"application/{APPLICATION_ID}/device/{self._sensor.device_id}/event/{event}"
        return Message(topic, msgspec.json.encode(body if self._emits_defaults else _without_defaults(body)))

    def _head(self, frame: Frame) -> dict[str, Any]:
        kind = self._sensor.kind
        return {
            "deduplicationId": self._new_id(),
            "time": _time(frame.timestamp_ms),
            "deviceInfo": {
                "tenantId": _TENANT_ID,
                "tenantName": "Simulated plant",
                "applicationId": APPLICATION_ID,
                "applicationName": "climate",
                "deviceProfileId": _PROFILE_IDS[kind.has_codec],
                "deviceProfileName": f"{kind.name} sensor",
                "deviceName": self._sensor.name,
                "devEui": self._sensor.device_id,
                "deviceClassEnabled": "CLASS_A",
                "tags": {"site": self._sensor.site}
                | ({} if kind.has_codec else {"plantwire_codec": "cayenne-lpp"}),
            },
        }

    def _join(self, frame: Frame) -> dict[str, Any]:
        return {**self._head(frame), "devAddr": self._dev_addr, "regionConfigId": _REGION}

    def _uplink(self, frame: Frame) -> dict[str, Any]:
        body = {
            **self._head(frame),
            "devAddr": self._dev_addr,
            "adr": True,
            "dr": self._dr,
            "fCnt": self._f_cnt,
            "fPort": _F_PORT,
            "confirmed": False,
        }
        if self._sensor.kind.has_codec:
            # The bytes of a vendor's own format, which the server's codec has read.
            scaled = (round(float(value) * 10) & 0xFFFF for value in frame.metrics.values())
            body["data"] = _base64(b"".join(value.to_bytes(2, "big") for value in scaled))
            body["object"] = dict(frame.metrics)
        else:
            body["data"] = _base64(cayenne.encode(frame.metrics))
        body["rxInfo"] = [self._reception(frame, number) for number in range(self._receivers())]
        body["txInfo"] = {
            "frequency": _FREQUENCIES_HZ[mix(self._sensor.seed, self._f_cnt) % len(_FREQUENCIES_HZ)],
            "modulation": {
                "lora": {
                    "bandwidth": 125_000,
                    "spreadingFactor": _SPREADING_FACTOR_OF_DR_0 - self._dr,
                    "codeRate": "CR_4_5",
                }
            },
        }
        body["regionConfigId"] = _REGION
        return body

    def _receivers(self) -> int:
        """How many gateways heard it: one always, often both."""
        return 1 + (uniform(self._sensor.seed + 5, self._f_cnt) < 0.5)

    def _reception(self, frame: Frame, number: int) -> dict[str, Any]:
        seed = self._sensor.seed + 11 * number
        rssi = round(-78 - 14 * number + 4 * gaussian(seed, self._f_cnt))
        reception = {
            "gatewayId": _GATEWAYS[number],
            "uplinkId": mix(seed, self._f_cnt) & 0xFFFF_FFFF,
            "gwTime": _time(frame.timestamp_ms),
            "nsTime": _time(frame.timestamp_ms + 35),
            "rssi": rssi,
            "snr": round(9.0 - 5.0 * number + gaussian(seed + 1, self._f_cnt), 1),
            "channel": mix(self._sensor.seed, self._f_cnt) % len(_FREQUENCIES_HZ),
            "location": {"latitude": 51.5, "longitude": 7.1},
            "context": _base64((self._f_cnt * 9973 & 0xFFFF_FFFF).to_bytes(4, "big")),
            "crcStatus": "CRC_OK",
        }
        return _without_defaults(reception)

    def _status(self, frame: Frame) -> dict[str, Any]:
        battery = max(0.0, 97.0 - 97.0 * self._f_cnt / _BATTERY_LIFE_UPLINKS)
        return {
            **self._head(frame),
            "margin": round(12 + 2 * gaussian(self._sensor.seed + 9, self._f_cnt)),
            "externalPowerSource": False,
            "batteryLevelUnavailable": False,
            "batteryLevel": math.floor(battery * 100) / 100,
        }


def _without_defaults(body: dict[str, Any]) -> dict[str, Any]:
    """Without the fields that have their default value, as protobuf's JSON leaves them out.

    `object` is no message with defaults but the codec's own structure: it stays as it is.
    """
    kept: dict[str, Any] = {}
    for name, value in body.items():
        if isinstance(value, dict) and name != "object":
            kept[name] = _without_defaults(value)
        elif value or name == "object":
            kept[name] = value
    # The first name of an enumeration is its default.
    if kept.get("deviceClassEnabled") == "CLASS_A":
        del kept["deviceClassEnabled"]
    return kept


def _time(timestamp_ms: int) -> str:
    moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

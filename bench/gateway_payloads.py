"""What simulated devices of each protocol send to `bench.gateway`, and when a record was sent.

In: protocol, device, the intended time. Out: the bytes that a real device of this protocol sends.
Guarantees: one number of every message is its intended time in µs since the epoch; it is found again in the
record, be that a TelemetryFrame of the gateway or the bare loop's copy of the message.
Not here: sending (`bench.gateway_sender`).
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import QUALITY_GOOD
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as sparkplug

HTTP: Final = "http"
MQTT_JSON: Final = "mqtt-json"
CHIRPSTACK: Final = "chirpstack"
SPARKPLUG: Final = "sparkplug-b"
PROTOCOLS: Final = (HTTP, MQTT_JSON, CHIRPSTACK, SPARKPLUG)

METRICS: Final = {HTTP: 10, MQTT_JSON: 10, CHIRPSTACK: 10, SPARKPLUG: 50}
"""Metrics of a frame; Sparkplug's as in the budget for normalisation."""
SENT: Final = "sent"
_SENT_ALIAS: Final = 1000
_DOUBLE: Final = 10
_UINT64: Final = 8
_BOOLEAN: Final = 11


class Plant:
    """The devices of one run; `name` is part of every device's id, so that runs are told apart."""

    def __init__(self, protocol: str, name: str, devices: int) -> None:
        self.protocol = protocol
        self.name = name
        self.devices = devices
        self._numbers = [0] * devices
        self._seq = 0

    def device_id(self, device: int) -> str:
        """The device's own name."""
        if self.protocol == CHIRPSTACK:
            return f"{int(self.name, 16):08x}{device:08x}"
        return f"{self.name}-{device}"

    def topic(self, device: int) -> str:
        """Where the device publishes; for HTTP the path."""
        name = self.device_id(device)
        return {
            HTTP: f"/api/v1/devices/{name}/telemetry",
            MQTT_JSON: f"devices/{name}/telemetry",
            CHIRPSTACK: f"application/bench/device/{name}/event/up",
            SPARKPLUG: f"spBv1.0/{self.name}/DDATA/node/{device}",
        }[self.protocol]

    def births(self, now_ms: int) -> list[tuple[str, bytes]]:
        """What comes before the first data, as (topic, payload)."""
        if self.protocol != SPARKPLUG:
            return []
        node = sparkplug.Payload(timestamp=now_ms, seq=self._next_seq())
        node.metrics.add(name="bdSeq", datatype=_UINT64, long_value=0, timestamp=now_ms)
        node.metrics.add(
            name="Node Control/Rebirth", datatype=_BOOLEAN, boolean_value=False, timestamp=now_ms
        )
        messages = [(f"spBv1.0/{self.name}/NBIRTH/node", node.SerializeToString())]
        for device in range(self.devices):
            birth = sparkplug.Payload(timestamp=now_ms, seq=self._next_seq())
            for number in range(METRICS[SPARKPLUG]):
                birth.metrics.add(
                    name=SENT if number == 0 else f"metric-{number}",
                    alias=self._alias(device, number),
                    datatype=_DOUBLE,
                    double_value=0.0,
                    timestamp=now_ms,
                )
            messages.append((f"spBv1.0/{self.name}/DBIRTH/node/{device}", birth.SerializeToString()))
        return messages

    def payload(self, device: int, sent_us: int) -> bytes:
        """The device's next message; to be published in the order of the calls."""
        number = self._numbers[device] = self._numbers[device] + 1
        sent_ms = sent_us // 1000
        if self.protocol == SPARKPLUG:
            return self._sparkplug(device, number, sent_us)
        values = {SENT: sent_us} | {
            f"metric-{n}": (number + n) % 100 + 0.25 for n in range(1, METRICS[self.protocol])
        }
        if self.protocol == CHIRPSTACK:
            return orjson.dumps(self._uplink(device, number, sent_ms, values))
        return orjson.dumps({"timestamp": sent_ms, "metrics": values})

    def _sparkplug(self, device: int, number: int, sent_us: int) -> bytes:
        data = sparkplug.Payload(timestamp=sent_us // 1000, seq=self._next_seq())
        for n in range(METRICS[SPARKPLUG]):
            value = float(sent_us) if n == 0 else (number + n) % 100 + 0.25
            data.metrics.add(
                alias=self._alias(device, n), datatype=_DOUBLE, double_value=value, timestamp=sent_us // 1000
            )
        return data.SerializeToString()

    def _uplink(self, device: int, number: int, sent_ms: int, values: dict[str, float]) -> dict[str, Any]:
        time_text = _rfc3339(sent_ms)
        return {
            "deduplicationId": f"{int(self.name, 16):08x}-0000-4000-8000-{device:06x}{number:06x}",
            "time": time_text,
            "deviceInfo": {
                "tenantId": "52f14cd4-c6f1-4fbd-8f87-4025e1d49242",
                "tenantName": "Bench",
                "applicationId": "bench",
                "applicationName": "bench",
                "deviceProfileName": "sensor",
                "deviceName": f"sensor {device}",
                "devEui": self.device_id(device),
            },
            "devAddr": "00189440",
            "dr": 5,
            "fCnt": number,
            "fPort": 2,
            "data": base64.b64encode(b"\x01\x67\x01\x10").decode(),
            "object": values,
            "rxInfo": [{"gatewayId": "0016c001f153a14c", "uplinkId": number, "rssi": -57, "snr": 9.5}],
            "txInfo": {
                "frequency": 868100000,
                "modulation": {"lora": {"bandwidth": 125000, "spreadingFactor": 7, "codeRate": "CR_4_5"}},
            },
        }

    def _alias(self, device: int, number: int) -> int:
        return _SENT_ALIAS * (device + 1) + number

    def _next_seq(self) -> int:
        seq, self._seq = self._seq, (self._seq + 1) % 256
        return seq


def sent_us_of_frame(body: bytes, fingerprint: str | None) -> tuple[float | None, float | None]:
    """(intended time in µs, normalisation in ms) of a frame of the gateway; None where it has none."""
    frame = FRAME_CODEC.decode_fields(body, fingerprint)
    # At its stop the gateway tells Sparkplug's last values once more, as stale.
    sent_us = next(
        (m["number"] for m in frame["metrics"] if m["name"] == SENT and m["quality"] == QUALITY_GOOD), None
    )
    return sent_us or None, (frame["gateway_out_us"] - frame["gateway_in_us"]) / 1000


def sent_us_of_copy(protocol: str, body: bytes) -> float | None:
    """The intended time in µs of a message that the bare loop copied; None where it has none."""
    if protocol == SPARKPLUG:
        # A message without the metric, a birth, has 0 there.
        return sparkplug.Payload.FromString(body).metrics[0].double_value or None
    message = orjson.loads(body)
    values = message["object"] if protocol == CHIRPSTACK else message["metrics"]
    return float(values[SENT])


def _rfc3339(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")

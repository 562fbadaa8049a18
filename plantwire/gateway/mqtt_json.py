"""Plain JSON over MQTT: devices/{id}/telemetry.

In: topic and payload. Out: frames with the protocol `mqtt-json`, or the reason why not. Pure.
Guarantees: as `decode_json`.
Not here: the connection (`mqtt_transport`), the payload's meaning (`decode_json`).
"""

from __future__ import annotations

from typing import Final

from plantwire.gateway.decode_json import DecodeLimits, decode_telemetry
from plantwire.gateway.mqtt_source import Decoded, Outcome
from plantwire.gateway.rejected import Rejected

PROTOCOL: Final = "mqtt-json"
# The second filter is for ids with a slash: they are refused by name rather than never seen.
TOPIC_FILTERS: Final = ("devices/+/telemetry", "devices/+/+/telemetry")
_TOPIC_PREFIX: Final = "devices/"
_TOPIC_SUFFIX: Final = "/telemetry"


class JsonSource:
    """The `MqttSource` of small devices that speak JSON."""

    protocol = PROTOCOL
    filters = TOPIC_FILTERS

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits

    def decode(self, topic: str, payload: bytes, received_us: int) -> Outcome:
        """The frames of one message, or why there are none."""
        device_id = topic.removeprefix(_TOPIC_PREFIX).removesuffix(_TOPIC_SUFFIX)
        outcome = decode_telemetry(payload, device_id, PROTOCOL, received_us, self._limits)
        return outcome if isinstance(outcome, Rejected) else Decoded(outcome)

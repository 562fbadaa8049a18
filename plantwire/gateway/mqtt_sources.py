"""Which kinds of message the gateway's MQTT connection serves.

In: the settings. Out: the sources, for `MqttTransport`.
Guarantees: raises SystemExit where a source's configuration cannot be used.
Not here: Sparkplug, which has a connection of its own (`sparkplug.host`).
"""

from __future__ import annotations

from plantwire.gateway.chirpstack.source import build_chirpstack_source
from plantwire.gateway.mqtt_json import JsonSource
from plantwire.gateway.mqtt_source import MqttSource
from plantwire.gateway.settings import GatewaySettings


def build_sources(settings: GatewaySettings) -> tuple[MqttSource, ...]:
    """Plain JSON always; ChirpStack unless it is switched off."""
    limits = settings.decode_limits()
    json_source = JsonSource(limits)
    if not settings.chirpstack_enabled:
        return (json_source,)
    return (json_source, build_chirpstack_source(settings, limits))

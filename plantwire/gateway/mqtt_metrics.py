"""What the MQTT transport counts beyond `GatewayMetrics`. On the same registry.

In: calls from the transport. Out: two counters by protocol. Not here: what a remark means (`mqtt_source`).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class MqttMetrics:
    """Counters of one transport."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.unneeded = Counter(
            "plantwire_gateway_mqtt_unneeded",
            "Messages acknowledged and not forwarded.",
            ["protocol", "reason"],
            registry=registry,
        )
        self.remarks = Counter(
            "plantwire_gateway_mqtt_remarks",
            "Messages forwarded that an operator should know something of.",
            ["protocol", "remark"],
            registry=registry,
        )

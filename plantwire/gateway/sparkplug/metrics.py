"""What the Sparkplug host counts, for Prometheus.

In: calls from the host. Out: metrics on the gateway's registry.
Not here: refused messages and dead letters, counted as those of every transport (`gateway.metrics`).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class SparkplugMetrics:
    """Registers on the gateway's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connected = Gauge(
            "plantwire_gateway_sparkplug_connected",
            "1 while the host application is online at the MQTT broker.",
            registry=registry,
        )
        self.connections = Counter(
            "plantwire_gateway_sparkplug_connections",
            "Times that the host application announced itself online after connecting.",
            registry=registry,
        )
        self.edge_nodes = Gauge(
            "plantwire_gateway_sparkplug_edge_nodes",
            "Edge nodes that are known, and those of them that are born and did not die.",
            ["state"],
            registry=registry,
        )
        self.devices = Gauge(
            "plantwire_gateway_sparkplug_devices",
            "Devices of edge nodes that are born and did not die.",
            registry=registry,
        )
        self.metrics = Gauge(
            "plantwire_gateway_sparkplug_metrics",
            "Metrics that births of edge nodes and devices defined.",
            registry=registry,
        )
        self.notes = Counter(
            "plantwire_gateway_sparkplug_notes",
            "What happened that refused nothing, such as births, deaths and gaps.",
            ["note"],
            registry=registry,
        )
        self.rebirths = Counter(
            "plantwire_gateway_sparkplug_rebirths_requested",
            "Rebirth requests published.",
            ["reason"],
            registry=registry,
        )
        self.rebirths_waiting = Gauge(
            "plantwire_gateway_sparkplug_rebirths_waiting",
            "Edge nodes whose rebirth request waits for its turn.",
            registry=registry,
        )
        self.retained_ignored = Counter(
            "plantwire_gateway_sparkplug_retained_ignored",
            "Retained messages of edge nodes, which are old news: not looked at.",
            registry=registry,
        )
        self.state_repeated = Counter(
            "plantwire_gateway_sparkplug_state_repeated",
            "Times that the host application had to say again that it is online.",
            registry=registry,
        )

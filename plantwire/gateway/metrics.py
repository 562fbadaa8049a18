"""What the gateway counts, for Prometheus.

In: calls from the transports and the forwarder. Out: the text of `/metrics`.
Guarantees: every refused message is in `rejected`, under its transport and reason, once.
Not here: what a reason means (`rejected`).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from plantwire.gateway.buffer.buffer_metrics import BufferMetrics
from plantwire.gateway.buffer.ledger import Ledger
from plantwire.gateway.edge_alarms.metrics import EdgeAlarmMetrics
from plantwire.gateway.http_connections import ConnectionMetrics
from plantwire.gateway.mqtt_metrics import MqttMetrics
from plantwire.gateway.report_by_exception import ThinningMetrics
from plantwire.gateway.sparkplug.metrics import SparkplugMetrics

_LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0)


class GatewayMetrics:
    """One registry per process; tests make their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sparkplug = SparkplugMetrics(self.registry)
        self.ledger = Ledger()
        self.buffer = BufferMetrics(self.registry, self.ledger)
        self.edge_alarms = EdgeAlarmMetrics(self.registry)
        self.accepted = Counter(
            "plantwire_gateway_frames_accepted",
            "Frames that are durable, and acknowledged to their sender.",
            ["transport"],
            registry=self.registry,
        )
        self.rejected = Counter(
            "plantwire_gateway_rejected",
            "Requests and messages refused.",
            ["transport", "reason"],
            registry=self.registry,
        )
        self.unavailable = Counter(
            "plantwire_gateway_unavailable",
            "Attempts to store that failed for now: HTTP answered 503, MQTT tries again.",
            ["transport", "reason"],
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "plantwire_gateway_dead_letters",
            "Messages that are durable as dead letters.",
            ["reason"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "plantwire_gateway_frames_in_flight",
            "Records handed to Kafka and not yet acknowledged.",
            registry=self.registry,
        )
        self.normalisation = Histogram(
            "plantwire_gateway_normalisation_seconds",
            "From the bytes' arrival to the hand-over to Kafka.",
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.acknowledgement = Histogram(
            "plantwire_gateway_kafka_ack_seconds",
            "From the hand-over to Kafka's acknowledgement.",
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.mqtt_connected = Gauge(
            "plantwire_gateway_mqtt_connected",
            "1 while subscribed at the MQTT broker.",
            registry=self.registry,
        )
        self.mqtt_connections = Counter(
            "plantwire_gateway_mqtt_connections",
            "Times that the gateway subscribed at the MQTT broker.",
            registry=self.registry,
        )
        self.mqtt_held = Gauge(
            "plantwire_gateway_mqtt_messages_held",
            "MQTT messages in hand, not yet acknowledged to the broker.",
            registry=self.registry,
        )
        self.mqtt = MqttMetrics(self.registry)
        self.connections = ConnectionMetrics(self.registry)
        self.thinning = ThinningMetrics(self.registry)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

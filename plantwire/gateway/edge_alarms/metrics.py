"""What the edge alarms count, for Prometheus.

In: calls from the other modules. Out: families in the gateway's registry.
Guarantees: whatever is left out (a frame not watched, an event not stored, a client's message refused) is
in one of these.
Not here: the text of `/metrics` (`gateway.metrics`).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0)


class EdgeAlarmMetrics:
    """Registers at the gateway's registry, whether or not edge alarms are on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter(
            "plantwire_gateway_edge_alarm_events",
            "Alarm events that the gateway's own detection told.",
            ["kind"],
            registry=registry,
        )
        self.latency = Histogram(
            "plantwire_gateway_edge_alarm_seconds",
            "From the arrival of the frame that caused an event to its being written to local clients.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self.devices = Gauge("plantwire_gateway_edge_devices", "Devices watched.", registry=registry)
        self.diverged = Gauge(
            "plantwire_gateway_edge_devices_diverged",
            "Devices of which the cloud has not seen all frames live, and is told the edge's state.",
            registry=registry,
        )
        self.unwatched = Counter(
            "plantwire_gateway_edge_frames_unwatched",
            "Frames of devices beyond the bound, which pass without evaluation.",
            registry=registry,
        )
        self.silences_unwatched = Counter(
            "plantwire_gateway_edge_silences_unwatched",
            "Values for whose absence nobody waits: their device has too many metrics under such rules.",
            registry=registry,
        )
        self.saves_failed = Counter(
            "plantwire_gateway_edge_state_saves_failed",
            "Attempts to keep a device's alarm state that failed; tried again.",
            registry=registry,
        )
        self.rules = Gauge("plantwire_gateway_edge_rules", "Rules in force at the edge.", registry=registry)
        self.rules_followed = Gauge(
            "plantwire_gateway_edge_rules_followed",
            "1 while the topic of rules is followed; 0 while those of the copy on disk are in force.",
            registry=registry,
        )
        self.rules_rejected = Counter(
            "plantwire_gateway_edge_rules_rejected",
            "Records of the topic of rules that are no rule that can be evaluated.",
            registry=registry,
        )
        self.clients = Gauge(
            "plantwire_gateway_edge_clients", "Local clients with an accepted token.", registry=registry
        )
        self.accepted = Counter(
            "plantwire_gateway_edge_clients_accepted",
            "Local clients let in, by how they are written to: direct, or asgi.",
            ["path"],
            registry=registry,
        )
        self.refused = Counter(
            "plantwire_gateway_edge_clients_refused",
            "Local connections refused.",
            ["reason"],
            registry=registry,
        )
        self.disconnected = Counter(
            "plantwire_gateway_edge_clients_disconnected",
            "Local clients disconnected by the gateway.",
            ["reason"],
            registry=registry,
        )
        self.dropped = Counter(
            "plantwire_gateway_edge_client_messages_dropped",
            "Messages of local clients that are not passed on.",
            ["reason"],
            registry=registry,
        )

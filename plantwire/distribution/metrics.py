"""What the distribution process counts, for Prometheus.

In: calls from the other modules. Out: the text of /metrics.
Guarantees: one registry per instance, so that two servers in one process do not share counters.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_STAGE_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 5)


class DistributionMetrics:
    """Every counter of the process; names are a contract with the monitoring."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.connections = Gauge(
            "websocket_connections", "Clients with an accepted token.", registry=self.registry
        )
        self.sockets = Gauge("websocket_sockets", "Open WebSockets, accepted or not.", registry=self.registry)
        self.sent = Counter(
            "plantwire_distribution_messages_sent",
            "Messages written to clients.",
            ["event"],
            registry=self.registry,
        )
        self.received = Counter(
            "plantwire_distribution_messages_received",
            "Messages taken from Redis.",
            ["channel"],
            registry=self.registry,
        )
        self.dropped = Counter(
            "plantwire_distribution_dropped",
            "Messages and events that were not passed on.",
            ["reason"],
            registry=self.registry,
        )
        self.accepted = Counter(
            "plantwire_distribution_accepted",
            "Clients let in, by how they are written to: direct, or asgi where the web server is unknown.",
            ["path"],
            registry=self.registry,
        )
        self.refused = Counter(
            "plantwire_distribution_refused", "Connections refused.", ["reason"], registry=self.registry
        )
        self.disconnected = Counter(
            "plantwire_distribution_disconnected",
            "Clients disconnected by the server.",
            ["reason"],
            registry=self.registry,
        )
        self.client_events = Counter(
            "plantwire_distribution_client_events",
            "Events from clients.",
            ["event", "outcome"],
            registry=self.registry,
        )
        self.alarm_stage = Histogram(
            "plantwire_distribution_alarm_stage_seconds",
            "From an alarm's publication in Redis to its emission.",
            buckets=_STAGE_BUCKETS_S,
            registry=self.registry,
        )
        self.fanout = Histogram(
            "plantwire_distribution_alarm_fanout_seconds",
            "Time to write one alarm to every recipient.",
            buckets=_STAGE_BUCKETS_S,
            registry=self.registry,
        )
        self.live = Gauge(
            "plantwire_distribution_live",
            "1 while Redis is subscribed and the picture is complete.",
            registry=self.registry,
        )
        self.resynchronised = Counter(
            "plantwire_distribution_resynchronised",
            "Snapshots read from Redis, by what asked for it.",
            ["cause"],
            registry=self.registry,
        )
        self.history_requests = Counter(
            "plantwire_distribution_history_requests",
            "Requests for history that reached the database's reader.",
            ["outcome"],
            registry=self.registry,
        )
        self.history_points = Counter(
            "plantwire_distribution_history_points",
            "Points of history sent.",
            ["tier"],
            registry=self.registry,
        )
        self.history_query = Histogram(
            "plantwire_distribution_history_query_seconds",
            "From a request for history to its rows, the wait for a connection included.",
            buckets=_STAGE_BUCKETS_S,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)

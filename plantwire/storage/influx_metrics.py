"""What the InfluxDB sink counts, for Prometheus.

In: calls from `influx`. Out: the text of `/metrics`.
Guarantees: every sample read is in `samples` or `left_out` once it is settled.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_WRITE_BUCKETS_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class InfluxMetrics:
    """One registry per process; tests make their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.frames = Counter(
            "plantwire_influx_frames", "Records read from Kafka and settled.", registry=self.registry
        )
        self.lost = Counter(
            "plantwire_influx_records_lost",
            "Records that Kafka deleted before they were read.",
            registry=self.registry,
        )
        self.samples = Counter(
            "plantwire_influx_samples",
            "Samples put to InfluxDB: written or refused.",
            ["outcome"],
            registry=self.registry,
        )
        self.left_out = Counter(
            "plantwire_influx_left_out",
            "Samples, and whole frames that cannot be read, that are not put to InfluxDB.",
            ["reason"],
            registry=self.registry,
        )
        self.failures = Counter(
            "plantwire_influx_failures", "Requests that failed and are repeated.", registry=self.registry
        )
        self.write_s = Histogram(
            "plantwire_influx_write_seconds",
            "Time of one request that was taken.",
            buckets=_WRITE_BUCKETS_S,
            registry=self.registry,
        )
        self.lag = Gauge(
            "plantwire_influx_lag_records",
            "Records in Kafka that are not written yet.",
            registry=self.registry,
        )
        self.influx_up = Gauge(
            "plantwire_influx_up", "1 while InfluxDB takes writes.", registry=self.registry
        )
        self.kafka_up = Gauge("plantwire_influx_kafka_up", "1 while Kafka answers.", registry=self.registry)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)

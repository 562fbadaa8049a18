"""What the storage process counts, for Prometheus.

In: calls from the other modules. Out: the text of `/metrics`.
Guarantees: every sample read is in `samples`, or in one of the `refused` and `left_out` counters, once it is
settled.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_WRITE_BUCKETS_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_AGE_BUCKETS_S: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 15.0, 60.0, 600.0)


class StorageMetrics:
    """One registry per process; tests make their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.frames = self._counter("frames", "Records read from Kafka and settled.")
        self.samples = self._counter(
            "samples", "Samples that the database has: stored, duplicate or expired.", "outcome"
        )
        self.lost = self._counter("records_lost", "Records that Kafka deleted before they were read.")
        self.refused_frames = self._counter(
            "frames_refused", "Records that went to the dead-letter topic.", "reason"
        )
        self.refused_samples = self._counter("samples_refused", "Samples that are not stored.", "reason")
        self.left_out = self._counter(
            "samples_left_out", "Samples that are not meant to be stored.", "reason"
        )
        self.late = self._counter("samples_late", "Samples that came too late for a live window of 1 s.")
        self.seconds = self._counter("seconds", "Rows of the 1 s tier: new or reopened.", "how")
        self.failures = self._counter("failures", "Attempts that failed and are repeated.", "what")
        self.rolled_up = self._counter("buckets_computed", "Buckets computed without TimescaleDB.", "tier")
        self.deleted = self._counter("rows_deleted", "Rows deleted because of their age.", "table")
        self.write_s = Histogram(
            "plantwire_storage_write_seconds",
            "Time of one transaction.",
            buckets=_WRITE_BUCKETS_S,
            registry=self.registry,
        )
        self.age_s = Histogram(
            "plantwire_storage_age_seconds",
            "Of each batch's oldest live frame: from the gateway's receipt to its commit.",
            buckets=_AGE_BUCKETS_S,
            registry=self.registry,
        )
        self.lag = Gauge(
            "plantwire_storage_lag_records",
            "Records in Kafka that are not stored yet.",
            registry=self.registry,
        )
        self.database_up = Gauge(
            "plantwire_storage_database_up", "1 while the database takes writes.", registry=self.registry
        )
        self.kafka_up = Gauge("plantwire_storage_kafka_up", "1 while Kafka answers.", registry=self.registry)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"plantwire_storage_{name}", text, labels, registry=self.registry)

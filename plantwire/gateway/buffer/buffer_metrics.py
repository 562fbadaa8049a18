"""The ledger and the edge buffer for Prometheus.

In: the ledger, what the buffer holds, what the drain sends. Out: metrics on the process's registry.
Guarantees: the ledger's counts are read when they are asked for, so they cost nothing on a frame's way; all
of one answer belong together.
Not here: the counting (`ledger`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from plantwire.gateway.buffer.durability import Mode
from plantwire.gateway.buffer.entry import BufferStats
from plantwire.gateway.buffer.ledger import Ledger

_COMMIT_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class BufferMetrics:
    """Registers itself with `registry`."""

    def __init__(self, registry: CollectorRegistry, ledger: Ledger) -> None:
        registry.register(_LedgerCollector(ledger))
        self.commit = Histogram(
            "plantwire_gateway_buffer_commit_seconds",
            "From the hand-over to the edge buffer to its commit on disk.",
            buckets=_COMMIT_BUCKETS_S,
            registry=registry,
        )
        self.drained = Counter(
            "plantwire_gateway_buffer_drained",
            "Entries of the edge buffer that Kafka acknowledged.",
            registry=registry,
        )
        self.drain_failures = Counter(
            "plantwire_gateway_buffer_drain_failures",
            "Batches of the edge buffer that Kafka did not take whole; they are sent again.",
            registry=registry,
        )
        self.drain_refusals = Counter(
            "plantwire_gateway_buffer_drain_refusals",
            "Times that the edge buffer's disk would not read or forget for the drain; it is asked again.",
            registry=registry,
        )
        self._entries = Gauge(
            "plantwire_gateway_buffer_entries", "Entries in the edge buffer.", registry=registry
        )
        self._size = Gauge(
            "plantwire_gateway_buffer_bytes", "Bytes that the edge buffer takes.", registry=registry
        )
        self._age = Gauge(
            "plantwire_gateway_buffer_oldest_age_seconds",
            "How long the oldest entry has been in the edge buffer; 0 where it is empty.",
            registry=registry,
        )
        self._buffering = Gauge(
            "plantwire_gateway_buffering",
            "1 while Kafka is slow or away and everything new goes to the edge buffer too.",
            registry=registry,
        )
        self._refusing = Gauge(
            "plantwire_gateway_buffer_refusing",
            "1 while the edge buffer takes nothing: frames have Kafka alone.",
            registry=registry,
        )
        self._set_aside = Gauge(
            "plantwire_gateway_buffer_files_set_aside",
            "Damaged files of the edge buffer that were set aside.",
            registry=registry,
        )

        self._deleted = Counter(
            "plantwire_gateway_buffer_damaged_files_deleted",
            "Damaged files of the edge buffer that were deleted, the oldest of more than are kept.",
            registry=registry,
        )
        self._deleted_before = 0

    def show(self, stats: BufferStats, mode: Mode, refusing: bool, now_s: float) -> None:
        """What the buffer holds, the mode, whether it is `refusing`; `now_s` since the epoch."""
        self._entries.set(stats.entries)
        self._size.set(stats.size_bytes)
        self._age.set(0.0 if stats.oldest_put_ms is None else max(0.0, now_s - stats.oldest_put_ms / 1000))
        self._buffering.set(mode is Mode.BUFFERING)
        self._refusing.set(refusing)
        self._set_aside.set(len(stats.set_aside))
        self._deleted.inc(stats.set_aside_deleted - self._deleted_before)
        self._deleted_before = stats.set_aside_deleted


class _LedgerCollector(Collector):
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        """One sample per source and place."""
        received = CounterMetricFamily(
            "plantwire_gateway_ledger_received", "Frames and dead letters received.", labels=["source"]
        )
        delivered = CounterMetricFamily(
            "plantwire_gateway_ledger_delivered",
            "Acknowledged by Kafka, live or drained from the edge buffer.",
            labels=["source", "path"],
        )
        dropped = CounterMetricFamily(
            "plantwire_gateway_ledger_dropped", "Received and not delivered.", labels=["source", "reason"]
        )
        buffered = GaugeMetricFamily(
            "plantwire_gateway_ledger_buffered", "In the edge buffer.", labels=["source"]
        )
        in_hand = GaugeMetricFamily(
            "plantwire_gateway_ledger_in_hand", "Received and not settled yet.", labels=["source"]
        )
        for source, counts in self._ledger.counts().items():
            received.add_metric([source], counts.received)
            delivered.add_metric([source, "live"], counts.delivered_live)
            delivered.add_metric([source, "drained"], counts.delivered_drained)
            for reason, count in counts.dropped.items():
                dropped.add_metric([source, reason], count)
            buffered.add_metric([source], counts.buffered)
            in_hand.add_metric([source], counts.in_hand)
        yield from (received, delivered, dropped, buffered, in_hand)

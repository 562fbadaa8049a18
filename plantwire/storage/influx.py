"""The InfluxDB sink: ``python -m plantwire.storage.influx``. Off unless PLANTWIRE_INFLUX_URL is set.

In: `device.telemetry.raw`, by a consumer group of its own. Out: every sample in InfluxDB; exit code 0 after
SIGTERM or SIGINT, 1 where Kafka ended it (a supervisor starts it anew), 69 where its port is taken, 78 where
a setting is wrong or it is off.
Guarantees: an offset is committed only after InfluxDB acknowledged all samples before it, or refused them
one by one (counted) while it took others; that it refuses all of many is not taken for their fault, and it is
waited for. While InfluxDB is away nothing is fetched and nothing lost, and nobody else notices.
What was sent but not settled is sent again, and says the same. At most one batch is in memory.
Not here: the database (`ingest`); dead letters, which the storage process sends already.

Of two samples with the same device, metric and time InfluxDB keeps the one that it was given last; the
database keeps the first.
"""

from __future__ import annotations

import re
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog
from pydantic import ValidationError

from plantwire.platform.health import Health
from plantwire.platform.logging import configure_logging
from plantwire.platform.status_server import StatusServer
from plantwire.storage.batch import Record
from plantwire.storage.influx_client import InfluxAwayError, InfluxClient, InfluxRefusedError
from plantwire.storage.influx_lines import LineReader, Lines
from plantwire.storage.influx_metrics import InfluxMetrics
from plantwire.storage.influx_settings import InfluxSettings
from plantwire.storage.settings import StorageSettings
from plantwire.storage.source import FrameSource, SourceError
from plantwire.storage.supply import IDLE_PING_S, KAFKA, Source, Supply

INFLUX: Final = "influxdb"
ALL_REFUSED_MIN: Final = 10
"""So many refused samples and not one taken: then it is the request that is refused, by a proxy or for a
setting.
"""
_ASKED_AGAIN: Final = 16

log = structlog.get_logger()


class Writer(Protocol):
    """What `influx_client.InfluxClient` offers."""

    def ready(self) -> None:
        """Raises InfluxAwayError where it is not."""

    def write(self, lines: Sequence[bytes]) -> int:
        """How many were left out; raises InfluxAwayError, InfluxRefusedError."""


class InfluxSink:
    """`run` it on a thread of its own until `stopping` is set."""

    def __init__(
        self,
        settings: InfluxSettings,
        source: Source,
        writer: Writer,
        metrics: InfluxMetrics,
        health: Health,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._source = source
        self._writer = writer
        self._metrics = metrics
        self._stopping = stopping
        self._clock = clock
        up = {INFLUX: metrics.influx_up, KAFKA: metrics.kafka_up}
        self._supply = Supply(source, health, up, metrics.lag, stopping, clock)
        self._reader = LineReader(settings.influx_measurement)
        self._written_s = -IDLE_PING_S

    def run(self) -> None:
        """Write what comes until `stopping`; raises SourceError."""
        while not self._stopping.is_set():
            records, found = self._gather()
            self._supply.look()
            if records:
                if self._persist(found.lines):
                    self._source.settle(records)
                    self._metrics.frames.inc(found.frames)
                    for reason, count in found.left_out.items():
                        self._metrics.left_out.labels(reason).inc(count)
            elif self._clock() - self._written_s >= IDLE_PING_S:
                self._persist([])  # nothing to write; InfluxDB is asked whether it is there

    def _gather(self) -> tuple[list[Record], Lines]:
        found, records = Lines(), list[Record]()
        deadline_s = self._clock() + self._settings.influx_batch_ms / 1000
        while not self._stopping.is_set():
            some = self._source.take(max(0.0, deadline_s - self._clock()))
            records += some
            self._reader.read(some, found)
            if len(found.lines) >= self._settings.influx_batch_samples or self._clock() >= deadline_s:
                break
        return records, found

    def _persist(self, lines: list[bytes]) -> bool:
        """Whether all are through; False only when told to stop."""
        size = self._settings.influx_batch_samples
        # The last is the next, so that a part that is divided goes on in its place.
        parts = [lines[start : start + size] for start in range(0, len(lines), size)][::-1]
        todo, outcome = list(parts), Counter[str]()
        failures = 0
        reason, refused_all = "", False
        while True:
            try:
                if not todo:
                    self._writer.ready()
                if refused_all:
                    self._ask_again(lines, reason)
                while todo:
                    reason = self._write(todo, outcome) or reason
                refused_all = outcome["refused"] >= ALL_REFUSED_MIN and not outcome["written"]
                if refused_all:
                    todo, outcome = list(parts), Counter()
                    raise InfluxAwayError(reason)
            except InfluxAwayError as error:
                self._supply.report(INFLUX, str(error))
                self._metrics.failures.inc()
                failures += 1
                if not self._supply.wait(failures, self._settings.influx_retry_max_s, error.retry_after_s):
                    return False
            else:
                self._supply.report(INFLUX, None)
                for name, count in outcome.items():
                    self._metrics.samples.labels(name).inc(count)
                self._written_s = self._clock()
                self._source.resume()
                return True

    def _ask_again(self, lines: list[bytes], reason: str) -> None:
        """Whether any of some samples is taken, after all were refused; raises InfluxAwayError."""
        for line in lines[:: -(-len(lines) // _ASKED_AGAIN)]:
            try:
                if not self._writer.write([line]):
                    return
            except InfluxRefusedError as error:
                reason = str(error)
        raise InfluxAwayError(reason)

    def _write(self, todo: list[list[bytes]], outcome: Counter[str]) -> str:
        """The last part; one that is through, or divided, is off the list. Why it was refused, if it was."""
        part = todo[-1]
        began_s = self._clock()
        try:
            dropped = self._writer.write(part)
        except InfluxRefusedError as error:
            todo.pop()
            if len(part) > 1:
                middle = len(part) // 2
                todo += [part[middle:], part[:middle]]
            else:
                outcome["refused"] += 1
                log.warning("sample_refused", reason=str(error))
            return str(error)
        todo.pop()
        self._metrics.write_s.observe(self._clock() - began_s)
        outcome["written"] += len(part) - dropped
        outcome["refused"] += dropped
        return ""


def main() -> int:
    """Run until a signal; the exit code."""
    try:
        settings = InfluxSettings()
    except ValidationError as error:
        print(f"influx: {error}", file=sys.stderr)
        return 78
    if settings.influx_url is None:
        print("influx: PLANTWIRE_INFLUX_URL is not set, so there is nothing to do", file=sys.stderr)
        return 78
    configure_logging(settings.log_level, "influx")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    metrics, health = InfluxMetrics(), Health((INFLUX, KAFKA))
    status = StatusServer(
        settings.influx_status_host, settings.influx_status_port, health.obstacles, metrics.text
    )
    try:
        port = status.start()
    except OSError as error:
        print(
            f"influx: cannot listen on {settings.influx_status_host}:{settings.influx_status_port}: "
            f"{error.strerror}. PLANTWIRE_INFLUX_STATUS_PORT sets another port.",
            file=sys.stderr,
        )
        return 69
    instance = re.sub(r"[^A-Za-z0-9._-]", "-", f"{socket.gethostname()}-{port}")
    kafka = StorageSettings(kafka=settings.kafka, storage_group=settings.influx_group)
    source = FrameSource(kafka, instance, on_lost=metrics.lost.inc)
    writer = InfluxClient(settings)
    log.info("influx_started", host=settings.influx_status_host, port=port)
    try:
        source.start()
        InfluxSink(settings, source, writer, metrics, health, stopping).run()
        return 0
    except SourceError as error:
        log.error("source_failed", reason=str(error))
        return 1
    finally:
        stopping.set()
        source.close()
        writer.close()
        status.close()


if __name__ == "__main__":
    sys.exit(main())

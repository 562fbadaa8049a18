"""One run of the storage process over a filled topic: how fast samples become durable rows.

In: Kafka with a full topic, an empty database. Out: a `Run`.
Guarantees: the figures are of a steady state: the window opens when a fifth of the samples is stored and
closes with the last one; the run fails unless the tables hold every sample and their seconds.
Not here: filling the topic (`bench.storage`).
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Final

import httpx
import msgspec
import psutil

from bench.cpu import take_moment, usage_between
from bench.http_process import HttpProcess
from plantwire.storage.settings import StorageSettings
from plantwire.storage.tables import open_connection

POLL_S: Final = 0.1
OPENS_AT: Final = 0.2
GIVE_UP_S: Final = 300.0
READY_TIMEOUT_S: Final = 30.0
COUNTER: Final = 'plantwire_storage_samples_total{outcome="stored"}'


class Run(msgspec.Struct, frozen=True):
    """What one run showed."""

    samples_per_s: float
    samples_per_cpu_s: float
    """Per CPU second of the storage process; the database's are not in it."""
    seconds_stored: int
    window_s: float


class StorageUnderTest(HttpProcess):
    """The production process."""

    def __init__(self, kafka: str, settings: StorageSettings, folder: Path) -> None:
        super().__init__("storage", "plantwire.storage", folder / "storage.log")
        self.settings = {
            "PLANTWIRE_KAFKA": kafka,
            "PLANTWIRE_DATABASE": settings.database,
            "PLANTWIRE_STORAGE_PORT": str(self.port),
            "PLANTWIRE_STORAGE_GROUP": f"bench-{secrets.token_hex(4)}",
        }

    def stored(self) -> int:
        """Samples stored so far; 0 while it does not answer yet."""
        try:
            text = httpx.get(f"{self.url}/metrics", timeout=5).text
        except httpx.HTTPError:
            return 0
        return sum(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith(COUNTER))


def run_storage(kafka: str, settings: StorageSettings, folder: Path, samples: int, seconds: int) -> Run:
    """Store a topic of so many samples, which make so many rows of the 1 s tier; raises RuntimeError."""
    process = StorageUnderTest(kafka, settings, folder)
    process.start()
    try:
        process.wait_ready(READY_TIMEOUT_S)
        processes = {"storage": [psutil.Process(process.pid)]}
        deadline_s = time.monotonic() + GIVE_UP_S
        while (begin := process.stored()) < samples * OPENS_AT:
            _pace(process, deadline_s)
        began_s, before = time.perf_counter(), take_moment(processes)
        while (end := process.stored()) < samples:
            _pace(process, deadline_s)
        window_s = time.perf_counter() - began_s
        used_s = usage_between(before, take_moment(processes)).by_part_s["storage"]
    finally:
        process.stop()
    with open_connection(settings, "bench") as connection:
        found = connection.execute(
            "SELECT (SELECT count(*) FROM device_telemetry), count(*), sum(count) FROM telemetry_1s"
        ).fetchone()
    if found != (samples, seconds, samples):
        raise RuntimeError(f"the tables hold {found}, not {samples:,} samples in {seconds:,} seconds")
    return Run((end - begin) / window_s, (end - begin) / used_s, seconds, window_s)


def _pace(process: StorageUnderTest, deadline_s: float) -> None:
    if (death := process.ended()) is not None:
        raise RuntimeError(f"the storage did not go on: {death}; see {process.log_file}")
    if time.monotonic() > deadline_s:
        raise RuntimeError("the storage is not through in time")
    time.sleep(POLL_S)  # paces the question

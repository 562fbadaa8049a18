"""What arrived in Kafka during `bench.outage`: counted, ordered and timed apart from the gateway.

In: the telemetry topic, read while it is written. Out: what is missing, doubled or out of order; how long
live frames took, by phase.
Guarantees: a frame counts as arrived when a consumer of another process has it; its way begins at the time at
which it was due. Records are kept as they came and decoded afterwards: reading does not slow the machine more
than it must.
Not here: what was acknowledged (`bench.outage_sender`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from confluent_kafka import Consumer, TopicPartition

from bench.spread import Distribution, distribution
from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC

_POLL_S: Final = 0.2
_METADATA_TIMEOUT_S: Final = 10.0


class Arrival(msgspec.Struct, frozen=True):
    """One record, decoded."""

    device_id: str
    sequence: int
    historical: bool
    due_ms: int
    at_ms: float


class Account(msgspec.Struct, frozen=True):
    """The independent count."""

    acknowledged: int
    records: int
    distinct: int
    missing: int
    """Acknowledged and not in the topic."""
    live: int
    historical: int
    out_of_order: int
    """Frames whose first record comes after one of a later frame of the device, live and historical apart."""


class Phase(msgspec.Struct, frozen=True):
    """A stretch of time, ms since the epoch."""

    name: str
    from_ms: float
    to_ms: float


class Reader:
    """Reads the topic in a thread, from its end at the start on."""

    def __init__(self, bootstrap: str) -> None:
        self._records: list[tuple[bytes, float]] = []
        self._stop = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "bench-outage",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 10,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._thread = threading.Thread(target=self._read, name="arrivals", daemon=True)

    def start(self) -> None:
        """Begin to read; the topic exists and Kafka is up."""
        partitions = (
            self._consumer.list_topics(topics.TELEMETRY_RAW, _METADATA_TIMEOUT_S)
            .topics[topics.TELEMETRY_RAW]
            .partitions
        )
        self._consumer.assign([TopicPartition(topics.TELEMETRY_RAW, number, 0) for number in partitions])
        self._thread.start()

    @property
    def count(self) -> int:
        """Records so far."""
        return len(self._records)

    def close(self) -> list[Arrival]:
        """End; every record, in the order of its partition."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()
        return [_decode(body, at_ms) for body, at_ms in self._records]

    def _read(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(_POLL_S)
            if message is not None and message.error() is None:
                body = message.value()
                assert isinstance(body, bytes)
                self._records.append((body, time.time() * 1000))


def _decode(body: bytes, at_ms: float) -> Arrival:
    frame = FRAME_CODEC.decode(body)
    assert frame.sequence is not None
    return Arrival(frame.device_id, frame.sequence, frame.historical, frame.event_time_ms, at_ms)


def account(arrivals: Sequence[Arrival], acknowledged: Mapping[str, int]) -> Account:
    """Hold what arrived against what was acknowledged (of each device 0 … n - 1)."""
    seen: dict[str, set[int]] = {device_id: set() for device_id in acknowledged}
    first: dict[tuple[str, bool], dict[int, None]] = {}
    for arrival in arrivals:
        seen.setdefault(arrival.device_id, set()).add(arrival.sequence)
        first.setdefault((arrival.device_id, arrival.historical), {}).setdefault(arrival.sequence)
    out_of_order = 0
    for numbers in first.values():
        highest = -1
        for number in numbers:
            out_of_order += number < highest
            highest = max(highest, number)
    historical = sum(arrival.historical for arrival in arrivals)
    return Account(
        acknowledged=sum(acknowledged.values()),
        records=len(arrivals),
        distinct=sum(len(numbers) for numbers in seen.values()),
        missing=sum(len(set(range(count)) - seen[device_id]) for device_id, count in acknowledged.items()),
        live=len(arrivals) - historical,
        historical=historical,
        out_of_order=out_of_order,
    )


def live_ms(arrivals: Sequence[Arrival], phase: Phase) -> Distribution | None:
    """From the time at which a live frame was due to its arrival, of frames that were due in the phase."""
    return distribution(
        arrival.at_ms - arrival.due_ms
        for arrival in arrivals
        if not arrival.historical and phase.from_ms <= arrival.due_ms < phase.to_ms
    )

"""Records into a real topic while servers are restarted, and the storage processes that read them.

In: records, a broker's address, what is to break when. Out: a topic; storage processes that are through.
Guarantees: records reach Kafka as the gateway's producer writes them, in their order, each once, however
often the broker is away; a fault begins when its share of the records is on its way.
Not here: the records (`generated_plant`), what must come of them (`offline_tables`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psutil
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from plantwire.gateway.kafka_record import frame_entry, producer_arguments
from plantwire.schemas import topics
from plantwire.stack.servers.process import ServerProcess
from tests.conftest import READY_TIMEOUT_S
from tests.truth.odd_records import Sent

RECORD_AGE_MAX_MS = 24 * 3_600_000
"""How old a record's time stamp may be, as the gateway keeps to it: Kafka deletes by it."""
WAITING_MAX = 10_000
ASK_EVERY_S = 0.25
Fault = Callable[[], None]


def producer(bootstrap: str) -> Producer:
    """One like the gateway's: in order, and nothing twice, whatever becomes of the broker."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "queue.buffering.max.messages": WAITING_MAX,
            "reconnect.backoff.max.ms": 500,
        }
    )


def arguments_of(sent: Sent, now_ms: int) -> dict[str, Any]:
    """What a record is, for `Producer.produce`."""
    stamp_ms = now_ms
    if sent.tombstone or sent.body is not None:
        made = {"topic": topics.TELEMETRY_RAW, "value": sent.body, "headers": list(sent.headers)}
    else:
        assert sent.frame is not None
        made = producer_arguments(frame_entry(sent.frame, sent.at_ms * 1000), now_ms - RECORD_AGE_MAX_MS)
        stamp_ms = made["timestamp"]
    # Kafka takes no time stamp that lies far ahead.
    return made | {"key": sent.key, "timestamp": min(stamp_ms, now_ms)}


class Sender(threading.Thread):
    """Sends records at `per_s`, up to `allowed` of them; `join` it, then look at `errors`."""

    def __init__(self, bootstrap: str, records: Sequence[Sent], per_s: float) -> None:
        super().__init__(name="sender", daemon=True)
        self._broker = bootstrap
        self._records = records
        self._per_s = per_s
        self._pause = threading.Event()
        self.sent = 0
        self.allowed = len(records)
        self.errors: list[str] = []

    @property
    def share(self) -> float:
        """How much of it is on its way."""
        return self.sent / len(self._records)

    def run(self) -> None:
        out = producer(self._broker)
        began_s = time.monotonic()
        for record in self._records:
            arguments = arguments_of(record, time.time_ns() // 1_000_000)
            while self.sent >= self.allowed or not self._take(out, arguments):
                out.poll(0.05)  # a fault is not over, or the broker is away and enough waits for it
            self.sent += 1
            if self.sent % 100 == 0:
                out.poll(0)
                self._pause.wait(max(0.0, began_s + self.sent / self._per_s - time.monotonic()))
        if left := out.flush(60):
            self.errors.append(f"{left} records were not taken")

    def _take(self, out: Producer, arguments: dict[str, Any]) -> bool:
        try:
            out.produce(**arguments, on_delivery=self._note)
        except BufferError:
            return False
        return True

    def _note(self, error: object, _: object) -> None:
        if error is not None:
            self.errors.append(str(error))


def send_all(bootstrap: str, records: Sequence[Sent], per_s: float, faults: Iterable[Fault]) -> None:
    """Send the records; the faults come one after the other meanwhile, at equal distances.

    During each of them records are sent up to where the next one is due: none comes to a topic at rest.
    """
    sender = Sender(bootstrap, records, per_s)
    todo = list(faults)
    part = len(records) // (len(todo) + 1)
    sender.allowed = 2 * part
    sender.start()
    for number, fault in enumerate(todo, 1):
        until(
            lambda due=number * part: sender.sent >= due, len(records) / per_s + 120, f"fault {number} is due"
        )
        fault()
        sender.allowed = (number + 2) * part if number < len(todo) else len(records)
    sender.join(len(records) / per_s + 120)
    assert not sender.is_alive(), f"{sender.share:.0%} was sent"
    assert sender.errors == []


def restarted(server: ServerProcess) -> Fault:
    """Stopped, as for an upgrade, and started again."""

    def restart() -> None:
        server.stop()
        server.start()
        server.wait_ready(READY_TIMEOUT_S)

    return restart


def killed(server: ServerProcess) -> Fault:
    """kill -9 of all its processes at once, and started again."""

    def kill() -> None:
        assert server.pid is not None, f"{server.name} is not running"
        first = psutil.Process(server.pid)
        for process in (first, *first.children(recursive=True)):  # PostgreSQL's are no group
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        server.clear_away()
        server.start()
        server.wait_ready(READY_TIMEOUT_S)

    return kill


def wait_until_stored(bootstrap: str, group: str, timeout_s: float) -> None:
    """Until a storage group has committed all that the topic holds now: it is in the database then."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    try:
        until(lambda: _behind(consumer) == 0, timeout_s, f"{group} has stored all", ASK_EVERY_S)
    finally:
        consumer.close()


def _behind(consumer: Consumer) -> int | None:
    try:
        found = consumer.list_topics(topics.TELEMETRY_RAW, timeout=5).topics[topics.TELEMETRY_RAW]
        partitions = [TopicPartition(topics.TELEMETRY_RAW, p) for p in found.partitions]
        committed = {p.partition: max(p.offset, 0) for p in consumer.committed(partitions, timeout=5)}
        ends = {p.partition: consumer.get_watermark_offsets(p, timeout=5)[1] for p in partitions}
    except KafkaException:
        return None  # it does not answer now
    return sum(ends[p] - committed[p] for p in ends)


def until(condition: Callable[[], object], timeout_s: float, what: str, every_s: float = 0.05) -> None:
    """Return when `condition` holds; AssertionError after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(every_s)  # paces the question

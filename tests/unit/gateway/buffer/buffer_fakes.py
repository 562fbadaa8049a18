"""An edge buffer and a live producer in memory, which answer when the test says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from confluent_kafka import KafkaError

from plantwire.gateway.buffer.entry import (
    BufferRefusedError,
    BufferStats,
    DropReason,
    Entry,
    EntryKind,
    OnDrop,
    StoredEntry,
)
from plantwire.gateway.buffer.record import Record
from plantwire.gateway.live_producer import Answers

T = TypeVar("T")


class MemoryBuffer:
    """The `EdgeBuffer`; commits in the next round of the event loop."""

    def __init__(self, on_drop: OnDrop = lambda *_: None) -> None:
        self.refuses: str | None = None
        self.refusals = 0
        self.hangs = False
        """Whether nothing is answered any more."""
        self.rows: dict[int, Entry] = {}
        self.kept: dict[str, bytes] = {}
        self._on_drop = on_drop
        self._next_id = 1

    def put(self, entries: Sequence[Entry]) -> asyncio.Future[list[int]]:
        def commit() -> list[int]:
            ids = list(range(self._next_id, self._next_id + len(entries)))
            self.rows.update(zip(ids, entries, strict=True))
            self._next_id += len(ids)
            return ids

        return self._later(commit)

    async def peek(self, limit: int, below_id: int | None = None) -> list[StoredEntry]:
        await self._later(lambda: None)
        found = [StoredEntry(i, e) for i, e in self.rows.items() if below_id is None or i < below_id]
        found.sort(key=lambda stored: (stored.entry.kind is not EntryKind.ALARM, stored.entry_id))
        return found[:limit]

    def acknowledge(self, entry_ids: Sequence[int]) -> asyncio.Future[list[int]]:
        return self._later(lambda: [i for i in entry_ids if self.rows.pop(i, None) is None])

    def drop(self, entry_ids: Sequence[int], reason: DropReason) -> asyncio.Future[list[int]]:
        def forget() -> list[int]:
            gone = []
            for entry_id in entry_ids:
                entry = self.rows.pop(entry_id, None)
                if entry is None:
                    gone.append(entry_id)
                else:
                    self._on_drop(entry.source, reason, 1)
            return gone

        return self._later(forget)

    def stats(self) -> BufferStats:
        by_source: dict[str, int] = {}
        for entry in self.rows.values():
            by_source[entry.source] = by_source.get(entry.source, 0) + 1
        oldest_ms = int(time.time() * 1000) if self.rows else None
        return BufferStats(len(self.rows), 100 * len(self.rows), oldest_ms, by_source)

    def save(self, key: str, value: bytes | None) -> asyncio.Future[None]:
        def keep() -> None:
            self.kept[key] = value or b""

        return self._later(keep)

    def saved(self, prefix: str) -> dict[str, bytes]:
        return {key: value for key, value in self.kept.items() if key.startswith(prefix)}

    def _later(self, act: Callable[[], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def settle() -> None:
            if self.refuses:
                self.refusals += 1
                future.set_exception(BufferRefusedError(self.refuses))
            else:
                future.set_result(act())

        if not self.hangs:
            asyncio.get_running_loop().call_soon(settle)
        return future


class ScriptedProducer:
    """The `LiveProducer`'s place: keeps what is sent until the test answers."""

    def __init__(self) -> None:
        self.sent: list[Record] = []
        self.room = True
        self.finding: str | None = None
        self.asked = 0
        self.closed = False

    @property
    def in_flight(self) -> int:
        return len(self.sent)

    def start(self, on_answers: Callable[[Answers], None], on_replaced: Callable[[], None]) -> None:
        self._on_answers = on_answers
        self.fail_for_good = on_replaced

    def has_room(self, records: int, size_bytes: int) -> bool:
        return self.room

    def send(self, record: Record) -> None:
        self.sent.append(record)

    async def ask(self) -> str | None:
        self.asked += 1
        return self.finding

    async def wait_idle(self, timeout_s: float) -> None:
        await asyncio.sleep(0)

    async def close(self) -> int:
        left = len(self.sent)
        self.answer(KafkaError(KafkaError._PURGE_QUEUE))
        self.closed = True
        return left

    def answer(self, error: KafkaError | None = None, count: int | None = None) -> None:
        """Answer the oldest `count` records, or all."""
        answered, self.sent = self.sent[:count], self.sent[count:] if count is not None else []
        self._on_answers([(record, error) for record in answered])

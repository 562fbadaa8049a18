"""The edge buffer: a durable queue on SQLite, written by one thread that has the only connection.

In: entries from the event loop. Out: promises that resolve once the disk has them; entries to send.
Guarantees: what waits is committed together, by one sync of the disk, in the order in which it came; a
promise that resolved survives kill -9 and loss of power; the loop never waits for the disk; drops are told
before the promise that they belong to, and `stats` changes with them, so that a ledger agrees at any moment.
Not here: full disks and damage (`guarded_store`), when to buffer (`buffered_forwarder`).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import structlog

from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.changes import Changes
from plantwire.gateway.buffer.database import is_disk_failing
from plantwire.gateway.buffer.entry import (
    BufferRefusedError,
    BufferStats,
    DropReason,
    Entry,
    OnDrop,
    StoredEntry,
)
from plantwire.gateway.buffer.guarded_store import GuardedStore
from plantwire.gateway.buffer.rows import size_bytes
from plantwire.gateway.buffer.totals import Drop

log = structlog.get_logger(__name__)

SOURCES_MAX: Final = 64
"""Sources are protocols; each has its totals, which are written with every transaction."""
SAVED_VALUE_MAX_BYTES: Final = 1024 * 1024
_SAVED_KEY_MAX_CHARACTERS: Final = 512
_ID_BYTES: Final = 16
# Forgetting makes room, so it is let in when puts are not any more.
_FORGETTING_SHARE: Final = 2


class _Job:
    """One call that waits for the thread."""

    __slots__ = ("bytes", "future")

    def __init__(self, future: asyncio.Future[Any], size: int) -> None:
        self.future = future
        self.bytes = size


class _Put(_Job):
    __slots__ = ("entries",)
    entries: Sequence[Entry]


class _Forget(_Job):
    __slots__ = ("ids", "reason")
    ids: Sequence[int]
    reason: DropReason | None


class _Save(_Job):
    __slots__ = ("key", "value")
    key: str
    value: bytes | None


class _Peek(_Job):
    __slots__ = ("below_id", "limit")
    limit: int
    below_id: int | None


_Settled = tuple[_Job, object]


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteEdgeBuffer:
    """The `EdgeBuffer`. `start` it inside the running loop; `close` it."""

    def __init__(
        self,
        folder: Path,
        bounds: BufferBounds,
        on_drop: OnDrop,
        now_ms: Callable[[], int] = _wall_clock_ms,
        vfs: str | None = None,
    ) -> None:
        self._bounds = bounds
        self._on_drop = on_drop
        self._store = GuardedStore(folder, bounds, now_ms, vfs)
        self._waiting: deque[_Job] = deque()
        self._waiting_bytes = 0
        self._wake = threading.Condition()
        self._open = False
        self._closed_because = "the edge buffer is not open"
        self._closing = False
        self._stats = BufferStats(0, 0, None, {})
        self._saved: dict[str, bytes] = {}
        self._sources: set[str] = set()

    async def start(self) -> None:
        """Open the buffer and count what is in it: seconds where much is. Drops found are told meanwhile.

        Raises `FolderInUseError`, `LaterFormatError`, `UnsafeSqliteError`, the system's error where the path
        or the rights are wrong, and `BufferRefusedError` where the disk fails or is full: the buffer then
        holds nothing and refuses everything, and may be used all the same.
        """
        self._loop = asyncio.get_running_loop()
        started: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._serve, args=(started,), name="edge-buffer", daemon=True)
        self._thread.start()
        try:
            await started
        except (apsw.Error, OSError) as error:
            if not is_disk_failing(error):
                raise
            self._closed_because = f"the edge buffer could not be opened: {error}"
            raise BufferRefusedError(self._closed_because) from error
        self._open = True

    async def close(self, timeout_s: float) -> bool:
        """Take no more, commit what waits, close. False where the disk did not let it within `timeout_s`."""
        if not self._open:
            return True
        self._open = False
        with self._wake:
            self._closing = True
            self._wake.notify()
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._ended)
        except TimeoutError:
            return False
        await self._loop.run_in_executor(None, self._thread.join)
        return True

    def put(self, entries: Sequence[Entry]) -> asyncio.Future[list[int]]:
        """See `EdgeBuffer.put`. Raises `ValueError` for what no buffer could hold."""
        size = 0
        for entry in entries:
            size += size_bytes(entry)
            if entry.source not in self._sources:
                if len(self._sources) == SOURCES_MAX:
                    raise ValueError(f"more than {SOURCES_MAX} sources")
                self._sources.add(entry.source)
        if size > self._bounds.put_max_bytes:
            raise BufferRefusedError(f"{size} bytes at once; at most {self._bounds.put_max_bytes}")
        self._admit(size, self._bounds.waiting_max_bytes)
        job = _Put(self._loop.create_future(), size)
        job.entries = entries
        return self._hand_over(job)

    async def peek(self, limit: int, below_id: int | None = None) -> list[StoredEntry]:
        """See `EdgeBuffer.peek`. Raises `BufferRefusedError` where the disk fails."""
        self._admit(_ID_BYTES, _FORGETTING_SHARE * self._bounds.waiting_max_bytes)
        job = _Peek(self._loop.create_future(), _ID_BYTES)
        job.limit, job.below_id = limit, below_id
        found: list[StoredEntry] = await self._hand_over(job)
        return found

    def acknowledge(self, entry_ids: Sequence[int]) -> asyncio.Future[list[int]]:
        """See `EdgeBuffer.acknowledge`."""
        return self._forget(entry_ids, None)

    def drop(self, entry_ids: Sequence[int], reason: DropReason) -> asyncio.Future[list[int]]:
        """See `EdgeBuffer.drop`."""
        return self._forget(entry_ids, reason)

    def stats(self) -> BufferStats:
        """See `EdgeBuffer.stats`."""
        return self._stats

    def save(self, key: str, value: bytes | None) -> asyncio.Future[None]:
        """See `EdgeBuffer.save`. Raises `ValueError` for what is not small."""
        size = _ID_BYTES + len(key) + len(value or b"")
        if not 0 < len(key) <= _SAVED_KEY_MAX_CHARACTERS or size > SAVED_VALUE_MAX_BYTES:
            raise ValueError(f"a saved value has a key and at most {SAVED_VALUE_MAX_BYTES} bytes")
        key.encode()
        self._admit(size, self._bounds.waiting_max_bytes)
        job = _Save(self._loop.create_future(), size)
        job.key, job.value = key, value
        return self._hand_over(job)

    def saved(self, prefix: str) -> dict[str, bytes]:
        """See `EdgeBuffer.saved`; with what was saved since."""
        return {key: value for key, value in self._saved.items() if key.startswith(prefix)}

    def _forget(self, ids: Sequence[int], reason: DropReason | None) -> asyncio.Future[list[int]]:
        size = _ID_BYTES * (1 + len(ids))
        self._admit(size, _FORGETTING_SHARE * self._bounds.waiting_max_bytes)
        job = _Forget(self._loop.create_future(), size)
        job.ids, job.reason = ids, reason
        return self._hand_over(job)

    def _admit(self, size: int, bound: int) -> None:
        if not self._open:
            raise BufferRefusedError(self._closed_because)
        if self._waiting_bytes + size > bound and self._waiting_bytes:
            raise BufferRefusedError("too much waits for the edge buffer's disk")

    def _hand_over(self, job: _Job) -> asyncio.Future[Any]:
        self._waiting_bytes += job.bytes
        with self._wake:
            self._waiting.append(job)
            self._wake.notify()
        return job.future

    # In the thread.

    def _serve(self, started: asyncio.Future[None]) -> None:
        try:
            self._store.open()
        except BaseException as error:
            self._tell(started, error)
            return
        self._publish([])
        self._call(self._remember, self._store.saved())
        self._tell(started, None)
        while group := self._next_group():
            self._work([] if group is _NOTHING else group)
        self._store.close()
        self._publish([])
        self._tell(self._ended, None)

    def _next_group(self) -> list[_Job]:
        """What waits, up to a transaction's size; `_NOTHING` where something else is due; empty: the end."""
        with self._wake:
            while not self._waiting:
                if self._closing:
                    return []
                due_s = self._store.due_in_s()
                if due_s <= 0:
                    return _NOTHING
                self._wake.wait(due_s)
            group = [self._waiting.popleft()]
            size = group[0].bytes
            while self._waiting and size + self._waiting[0].bytes <= self._bounds.transaction_max_bytes:
                job = self._waiting.popleft()
                size += job.bytes
                group.append(job)
            return group

    def _work(self, group: list[_Job]) -> None:
        settled: list[_Settled] = []
        try:
            self._commit(group, settled)
            for job in group:
                if isinstance(job, _Peek):
                    settled.append((job, self._peek(job)))
        except Exception as fault:
            # A fault of this code. Nobody may wait for ever, and the next group may fare better.
            log.exception("edge-buffer-fault")
            done = {id(job) for job, _ in settled}
            refused = BufferRefusedError(f"a fault of the edge buffer: {fault!r}")
            settled += [(job, refused) for job in group if id(job) not in done]
        self._publish(settled)
        try:
            # After the promises: a checkpoint may take its time.
            self._store.tidy()
        except Exception:
            log.exception("edge-buffer-fault")
        self._publish([])

    def _commit(self, group: list[_Job], settled: list[_Settled]) -> None:
        puts = [job for job in group if isinstance(job, _Put)]
        forgets = [job for job in group if isinstance(job, _Forget)]
        saves = [job for job in group if isinstance(job, _Save)]
        if not puts and not forgets and not saves:
            return
        outcome = self._store.commit(
            Changes(
                [job.entries for job in puts],
                [(job.ids, job.reason) for job in forgets],
                {job.key: job.value for job in saves},
            )
        )
        settled += zip(puts, outcome.puts, strict=True)
        gone = outcome.gone if outcome.rest is None else [outcome.rest] * len(forgets)
        settled += zip(forgets, gone, strict=True)
        settled += [(job, outcome.rest or outcome.saves) for job in saves]

    def _peek(self, job: _Peek) -> object:
        try:
            return self._store.peek(job.limit, job.below_id)
        except BufferRefusedError as refused:
            return refused

    def _publish(self, settled: list[_Settled]) -> None:
        drops, stats = self._store.take_drops(), self._store.stats()
        if settled or drops or stats != self._stats:
            self._call(self._settle, settled, drops, stats)

    def _tell(self, future: asyncio.Future[None], error: BaseException | None) -> None:
        self._call(_resolve, future, error)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        # The loop may be gone, with everyone who could have listened.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    # In the loop.

    def _remember(self, saved: dict[str, bytes]) -> None:
        self._saved = saved

    def _settle(self, settled: list[_Settled], drops: list[Drop], stats: BufferStats) -> None:
        self._stats = stats
        try:
            for source, reason, count in drops:
                self._on_drop(source, reason, count)
        finally:
            for job, result in settled:
                self._waiting_bytes -= job.bytes
                if isinstance(job, _Save) and not isinstance(result, BaseException):
                    if job.value is None:
                        self._saved.pop(job.key, None)
                    else:
                        self._saved[job.key] = job.value
                _resolve(job.future, result)


_NOTHING: Final[list[_Job]] = [_Job.__new__(_Job)]


def _resolve(future: asyncio.Future[Any], result: object) -> None:
    if future.done():  # whoever waited gave up
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)

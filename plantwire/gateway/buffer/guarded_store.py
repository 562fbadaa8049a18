"""The edge buffer's database through a full disk, a failing one, and a damaged file.

In: changes; questions. Out: an answer for every one of them, and the drops.
Guarantees: what fails is refused, and nothing of it is there; forgetting entries gets through on a full disk,
out of a reserve; a damaged file is replaced by what can be read of it, and the change is made again; space or
a disk that comes back is used again without a restart.
Not here: threads and promises (`edge_buffer`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import apsw
import msgspec
import structlog

from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.changes import Changes, NoRoomError, Receipt
from plantwire.gateway.buffer.database import DamagedError, is_damage, refuse_unsafe_sqlite
from plantwire.gateway.buffer.entry import BufferRefusedError, BufferStats, Entry, StoredEntry
from plantwire.gateway.buffer.folder import BufferFolder
from plantwire.gateway.buffer.rescue import Rescue, create_store, settled
from plantwire.gateway.buffer.store import Store
from plantwire.gateway.buffer.totals import Drop, Totals, drops_between

log = structlog.get_logger(__name__)

COUNTS_EVERY_S: Final = 1.0
_AGE_EVERY_S: Final = 60.0
_TIDY_AGAIN_S: Final = 5.0
"""After a failure; nothing may become due again at once that a dead disk will never let happen."""
_REOPEN_EVERY_S: Final = 1.0
_LOCK_WAIT_S: Final = 2.0
_FAULTS_MAX: Final = 5
_FAULTS: Final = (apsw.Error, OSError, DamagedError, UnicodeDecodeError)

Answer = TypeVar("Answer")


class Outcome(msgspec.Struct):
    """What became of changes: of each put, and of the rest together."""

    puts: list[list[int] | BufferRefusedError]
    rest: BufferRefusedError | None = None
    saves: BufferRefusedError | None = None
    """Of the small values alone."""
    gone: list[list[int]] = []
    """Of each of the forgotten, where `rest` is None: the ids that were no longer there."""


class GuardedStore:
    """`open` it, and use it from that thread only; `close` it."""

    def __init__(
        self, folder: Path, bounds: BufferBounds, now_ms: Callable[[], int], vfs: str | None = None
    ) -> None:
        self._folder = BufferFolder(folder)
        self._bounds = bounds
        self._now_ms = now_ms
        self._vfs = vfs
        self._store: Store | None = None
        self._drops: list[Drop] = []
        self._counted = -1
        self._faults = 0
        self._reserved = False
        self._untidy = False
        self._counts_at_s = self._age_at_s = self._reopen_at_s = 0.0
        self._set_aside: tuple[str, ...] = ()
        self._stats = BufferStats(0, 0, None, {})
        self._saved: dict[str, bytes] = {}

    def open(self) -> None:
        """Take the folder, open or make the database, count what is there.

        Raises `FolderInUseError`, `LaterFormatError`, `UnsafeSqliteError`, or the disk's error.
        """
        refuse_unsafe_sqlite(apsw.sqlite_lib_version())
        self._folder.take(_LOCK_WAIT_S)
        try:
            self._open_store()
        except BaseException:
            self._folder.release()
            raise
        self._hold_reserve()

    def commit(self, changes: Changes) -> Outcome:
        """Make changes, whatever the disk says. Never raises for a fault of the disk."""
        outcome = Outcome([])
        puts = list(changes.puts)
        if puts:
            self._hold_reserve()
        rest = Changes((), changes.forgotten, changes.saved)
        try:
            receipt = self._apply(changes)
            outcome.puts, outcome.gone = list(receipt.ids), receipt.gone
        except NoRoomError:
            self._try(rest, outcome)
            outcome.puts += [self._try_put(put) for put in puts]
        except _FAULTS as error:
            log.warning("edge-buffer-refused", reason=_reason(error))
            self._make_room(error)
            self._try(rest, outcome)
            outcome.puts += [BufferRefusedError(_reason(error)) for _ in puts]
        return outcome

    def peek(self, limit: int, below_id: int | None) -> list[StoredEntry]:
        """See `EdgeBuffer.peek`; raises `BufferRefusedError` where the disk fails."""
        try:
            found, drops = self._guarded(lambda store: store.peek(limit, below_id))
        except _FAULTS as error:
            raise BufferRefusedError(_reason(error)) from error
        self._drops += drops
        return found

    def tidy(self) -> None:
        """What is due besides: a checkpoint, the age, the counts, the reserve, the file's size."""
        now_s = time.monotonic()
        try:
            if self._store is None or self._store.uncopied_bytes() >= self._bounds.checkpoint_bytes:
                self._guarded(Store.checkpoint)
            if self._reserved:
                self._guarded(Store.lengthen_log)
            if now_s >= self._age_at_s:
                self._age_at_s = now_s + _AGE_EVERY_S
                self._drops += self._guarded(Store.evict_aged)
                self._guarded(Store.shrink)
            self._untidy = False
        except _FAULTS as error:
            self._age_at_s = now_s + _TIDY_AGAIN_S
            if not self._untidy:
                self._untidy = True
                log.warning("edge-buffer-not-tidied", reason=_reason(error))
            self._make_room(error)
        if now_s >= self._counts_at_s:
            self._write_counts(now_s)

    def due_in_s(self) -> float:
        """When to `tidy` though nothing happens."""
        due_s = self._age_at_s
        if self._store is not None and self._store.totals.transaction != self._counted:
            due_s = min(due_s, self._counts_at_s)
        return max(0.0, due_s - time.monotonic())

    def take_drops(self) -> list[Drop]:
        """What was dropped since the last call."""
        drops, self._drops = self._drops, []
        return drops

    def stats(self) -> BufferStats:
        """What is held; of a database that cannot be opened now, what was held."""
        store = self._store
        if store is not None:
            held = store.totals.held()
            self._stats = BufferStats(
                entries=sum(held.values()),
                size_bytes=store.totals.size_bytes(),
                oldest_put_ms=store.oldest_put_ms,
                by_source=held,
                set_aside=self._set_aside,
                dropped=store.totals.dropped(),
                set_aside_deleted=self._folder.deleted,
            )
        return self._stats

    def saved(self) -> dict[str, bytes]:
        """All small values."""
        return dict(self._store.saved if self._store is not None else self._saved)

    def close(self) -> None:
        """Leave everything in the files, and the folder to others."""
        store, self._store = self._store, None
        try:
            if store is not None:
                with contextlib.suppress(OSError):
                    self._folder.write_counts(store.totals)
                store.close()
        except apsw.Error as error:
            log.warning("edge-buffer-not-closed-well", reason=_reason(error))
        finally:
            self._folder.release()

    def _hold_reserve(self) -> None:
        self._reserved = self._folder.hold_reserve(self._bounds.reserve_bytes)

    def _give_reserve(self) -> None:
        self._reserved = False
        self._folder.give_reserve()

    def _apply(self, changes: Changes) -> Receipt:
        # The last space is not for new entries but for forgetting, which is what makes room: without a
        # reserve they find theirs in pages that are free, or none.
        receipt = self._guarded(lambda store: self._apply_to(store, changes))
        self._faults = 0
        self._drops += receipt.drops
        return receipt

    def _apply_to(self, store: Store, changes: Changes) -> Receipt:
        if changes.puts or any(changes.saved.values()):
            self._bound_log(store)
        return store.apply(changes, grow=self._reserved)

    def _bound_log(self, store: Store) -> None:
        """What cannot be copied into the database would grow without end. (Forgetting has its end.)"""
        if store.uncopied_bytes() <= self._bounds.wal_max_bytes:
            return
        try:
            store.checkpoint()
        except (apsw.FullError, apsw.IOError) as error:
            if is_damage(error):
                raise
            raise NoRoomError(f"the log is at its bound, and cannot be copied: {error}") from error
        if store.uncopied_bytes() > self._bounds.wal_max_bytes:
            raise NoRoomError("the log is at its bound, and cannot be copied")

    def _try(self, changes: Changes, outcome: Outcome) -> None:
        """Changes that put nothing; sets the outcome's `rest` and `gone`."""
        if not changes.forgotten and not changes.saved:
            return
        try:
            outcome.gone = self._apply(changes).gone
        except NoRoomError as error:
            # Small values are above their bound. Forgetting needs no room.
            outcome.saves = BufferRefusedError(str(error))
            self._try(Changes(forgotten=changes.forgotten), outcome)
        except _FAULTS as error:
            outcome.rest = BufferRefusedError(_reason(error))

    def _try_put(self, put: Sequence[Entry]) -> list[int] | BufferRefusedError:
        try:
            return self._apply(Changes((put,))).ids[0]
        except (NoRoomError, *_FAULTS) as error:
            return BufferRefusedError(_reason(error))

    def _guarded(self, act: Callable[[Store], Answer]) -> Answer:
        """Act on the store; a damaged one is rescued, and the act done once more."""
        if self._store is None:
            self._reopen()
        assert self._store is not None  # noqa: S101 - for the type checker: _reopen raises otherwise
        try:
            return act(self._store)
        except Exception as error:
            if not is_damage(error):
                raise
            log.error("edge-buffer-damage-found", reason=str(error))
            return act(self._rescue(self._store))

    def _rescue(self, damaged: Store | None, *, remembered: bool = True) -> Store:
        known = saved = None
        if damaged is not None:
            self._store = None
            damaged.abandon()
            if remembered:
                known, saved = damaged.totals, damaged.saved
                self._saved = saved
        store, drops = Rescue(self._folder, self._bounds, self._now_ms, self._vfs).run(known, saved)
        self._drops += drops
        self._set_aside = self._folder.set_aside_files()
        self._store = store
        return store

    def _make_room(self, error: Exception) -> None:
        """After a fault: free what can be freed; after many, begin with a new connection."""
        self._give_reserve()
        store = self._store
        if store is None:
            return
        with contextlib.suppress(*_FAULTS):
            # The log keeps its length: forgetting then writes where the disk has space already.
            store.checkpoint()
        self._faults += 1
        # Not at once: the connection knows which part of the log did not reach the disk, and writes it again.
        if self._faults >= _FAULTS_MAX and not isinstance(error, apsw.FullError):
            self._faults = 0
            self._let_go()

    def _let_go(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            self._saved = store.saved
            with contextlib.suppress(apsw.Error):
                store.abandon()

    def _reopen(self) -> None:
        now_s = time.monotonic()
        if now_s < self._reopen_at_s:
            raise OSError("the edge buffer's database cannot be opened now")
        self._reopen_at_s = now_s + _REOPEN_EVERY_S
        self._open_store()
        self._reopen_at_s = 0.0

    def _open_store(self) -> None:
        self._folder.clear_unfinished()
        for alone in self._folder.logs_alone():
            kept = self._folder.set_aside(self._folder.database(alone))
            log.error("edge-buffer-damaged", kept=[str(one) for one in kept])
        generations = self._folder.generations()
        for former in generations[:-1]:
            # A rescue ended between finishing the next one and this.
            self._folder.set_aside(self._folder.database(former))
        self._set_aside = self._folder.set_aside_files()
        if not generations:
            self._settle(create_store(self._folder, 1, self._bounds, self._now_ms, self._vfs), None)
            return
        try:
            store = Store.open(self._folder.database(generations[-1]), self._bounds, self._now_ms, self._vfs)
            self._settle(store, store.totals)
        except Exception as error:
            if not is_damage(error):
                # Nothing may be acknowledged on top of what could not be settled.
                self._let_go()
                raise
            log.error("edge-buffer-damage-found", reason=str(error))
            self._rescue(self._store, remembered=False)

    def _settle(self, store: Store, recorded: Totals | None) -> None:
        """Hold what is there against what was there."""
        self._store = store
        # Before anything is acknowledged on top of it: what an earlier process wrote into the log, but could
        # not sync, reads well now and is gone after a loss of power.
        with contextlib.suppress(apsw.FullError):
            store.checkpoint()
        beside = self._folder.read_counts()
        told = recorded or beside or Totals()
        store.replace_totals(settled(recorded, beside, store))
        store.reconcile()
        self._drops += drops_between(told, store.totals)

    def _write_counts(self, now_s: float) -> None:
        store = self._store
        if store is None or store.totals.transaction == self._counted:
            return
        self._counts_at_s = now_s + COUNTS_EVERY_S
        try:
            self._folder.write_counts(store.totals)
        except OSError as error:
            log.warning("edge-buffer-counts-not-written", reason=str(error))
            return
        self._counted = store.totals.transaction


def _reason(error: Exception) -> str:
    if isinstance(error, apsw.FullError):
        return "the disk is full"
    return f"the edge buffer's disk: {error}"

"""The folder of an edge buffer: whose it is, which file is the buffer, and what lies beside it.

In: a path. Out: `BufferFolder`: the lock, the files' names, the counts, the reserve, damaged files set aside.
Guarantees: one process at a time; a file is there whole or not at all, also after a loss of power; nothing
damaged is written over, and deleted only as the oldest of those set aside, at their bound. Files are 0600,
folders 0700.
Not here: what is in the database (`database`, `store`).

A database is made under the name `buffer-<n>.new` and renamed once it is complete; the highest `<n>` counts.
So there is no moment at which a database of one generation could meet the write-ahead log of another.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from plantwire.gateway.buffer.totals import Totals

COUNTS_NAME: Final = "counts.json"
LOCK_NAME: Final = "lock"
RESERVE_NAME: Final = "reserve"
SET_ASIDE_MAX: Final = 5
"""Damaged files (each with its log) that are kept; the oldest go."""
SET_ASIDE_MAX_BYTES: Final = 1024**3
"""The same in bytes; the last one is kept whatever its size."""
_DATABASE: Final = re.compile(r"buffer-(\d{1,9})\.db")
_SET_ASIDE: Final = ".damaged"
_STAMPED: Final = re.compile(r".*-(\d{8}T\d+Z.*)")
_LOCK_RETRY_S: Final = 0.05
_ZEROS_BYTES: Final = 1024 * 1024

log = structlog.get_logger(__name__)


class FolderInUseError(Exception):
    """Another process has this buffer."""


def sync_folder(folder: Path) -> None:
    """Make names that were created, renamed or deleted in it durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(file: Path, content: bytes) -> None:
    """Replace a file's content in one step: after a loss of power it is the old or the new one."""
    new = file.with_name(file.name + ".new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(handle)
    new.replace(file)


def write_zeros(file: Path, size_bytes: int) -> None:
    """Let a file grow to a size, all of it written and synced. Raises `OSError` with the file as it was."""
    handle = os.open(file, os.O_WRONLY)
    before_bytes = os.fstat(handle).st_size
    try:
        while (left_bytes := size_bytes - os.fstat(handle).st_size) > 0:
            os.pwrite(handle, bytes(min(left_bytes, _ZEROS_BYTES)), size_bytes - left_bytes)
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, before_bytes)
        raise
    finally:
        os.close(handle)


class BufferFolder:
    """One buffer's folder. `take` it before use and `release` it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.deleted = 0
        """Damaged files that were set aside and had to go."""
        self._lock: int | None = None

    def take(self, wait_s: float) -> None:
        """Make the folder where it is missing, and lock it; raises `FolderInUseError` after `wait_s`."""
        missing = [one for one in (self.path, *self.path.parents) if not one.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
        self.path.chmod(0o700)
        handle = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        until_s = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # The process before may be about to end.
                if time.monotonic() >= until_s:
                    os.close(handle)
                    raise FolderInUseError(f"{self.path} is in use by another process") from None
                time.sleep(_LOCK_RETRY_S)
                continue
            self._lock = handle
            return

    def release(self) -> None:
        """Let another process have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def in_use(self) -> bool:
        """Whether a process has it now."""
        try:
            handle = os.open(self.path / LOCK_NAME, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def generations(self) -> list[int]:
        """Of the databases that are here, the latest last."""
        found = (_DATABASE.fullmatch(one.name) for one in self.path.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def logs_alone(self) -> list[int]:
        """Generations of which there is a write-ahead log and no database: none may ever meet it."""
        found = (_DATABASE.fullmatch(one.name.removesuffix("-wal")) for one in self.path.glob("*.db-wal"))
        there = set(self.generations())
        return sorted(number for match in found if match and (number := int(match[1])) not in there)

    def database(self, generation: int) -> Path:
        """The database of a generation."""
        return self.path / f"buffer-{generation}.db"

    def unfinished(self, generation: int) -> Path:
        """Its name while it is being made."""
        return self.path / f"buffer-{generation}.new"

    def finish(self, generation: int) -> Path:
        """Give a database that is complete, closed and synced its name."""
        complete = self.database(generation)
        self.unfinished(generation).replace(complete)
        sync_folder(self.path)
        return complete

    def clear_unfinished(self) -> None:
        """Delete what was being made when its maker ended: copies, all of them."""
        for one in (*self.path.glob("buffer-*.new*"), *self.path.glob(f"{COUNTS_NAME}.new")):
            if one.is_dir():
                self.set_aside(one)
            else:
                one.unlink()

    def set_aside(self, file: Path) -> list[Path]:
        """Rename a damaged file, and its log where it has one; returns the new names."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        stem = file.stem.split("-")[0] if file.suffix == ".db" else file.name
        for attempt in range(1000):
            name = f"{stem}-{stamp}{f'-{attempt}' if attempt else ''}{_SET_ASIDE}"
            if not list(self.path.glob(f"{name}*")):
                break
        else:
            raise FileExistsError(errno.EEXIST, "too many damaged files at once", str(file))
        renamed: list[Path] = []
        # The log under the name that SQLite looks for beside the database.
        for suffix in ("-wal", "-shm", "-journal", ""):
            source = file.with_name(file.name + suffix)
            if os.path.lexists(source):
                renamed.append(source.rename(self.path / (name + suffix)))
        self._delete_oldest(name)
        sync_folder(self.path)
        return renamed

    def _delete_oldest(self, last: str) -> None:
        by_name: dict[tuple[str, str], list[Path]] = {}
        for one in self.path.glob(f"*-*{_SET_ASIDE}*"):
            name = one.name.partition(_SET_ASIDE)[0]
            if one.is_file() and name + _SET_ASIDE != last:
                by_name.setdefault((_STAMPED.sub(r"\1", name), name), []).append(one)
        left_bytes = SET_ASIDE_MAX_BYTES
        for number, when in enumerate(sorted(by_name, reverse=True), 1):
            files = by_name[when]
            left_bytes -= sum(one.stat().st_size for one in files)
            if number >= SET_ASIDE_MAX or left_bytes < 0:
                for one in files:
                    one.unlink()
                self.deleted += len(files)
                log.warning("edge-buffer-damaged-deleted", name=when[1], files=len(files))

    def set_aside_files(self) -> tuple[str, ...]:
        """Paths of what was set aside, oldest first."""
        return tuple(sorted(str(one) for one in self.path.glob(f"*-*{_SET_ASIDE}*")))

    def read_counts(self) -> Totals | None:
        """The totals as last written beside the database; None where they are missing or damaged."""
        file = self.path / COUNTS_NAME
        try:
            content = file.read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return None
        try:
            return msgspec.json.decode(content, type=Totals)
        except msgspec.DecodeError:
            return None

    def write_counts(self, totals: Totals) -> None:
        """Keep the totals for the case that the database cannot tell. Raises `OSError`."""
        file = self.path / COUNTS_NAME
        if file.is_dir():
            self.set_aside(file)
        write_durably(file, msgspec.json.encode(totals))

    def hold_reserve(self, size_bytes: int) -> bool:
        """See to it that the reserve takes up its space; False where there is none."""
        file = self.path / RESERVE_NAME
        try:
            with self._opened(file) as handle:
                if os.fstat(handle).st_size != size_bytes:
                    os.ftruncate(handle, 0)
                    os.posix_fallocate(handle, 0, size_bytes)
        except IsADirectoryError:
            self.set_aside(file)
            return self.hold_reserve(size_bytes)
        except OSError:
            self.give_reserve()
            return False
        return True

    def give_reserve(self) -> None:
        """Free the reserve's space."""
        with contextlib.suppress(OSError):
            (self.path / RESERVE_NAME).unlink()

    @staticmethod
    @contextlib.contextmanager
    def _opened(file: Path) -> Iterator[int]:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield handle
        finally:
            os.close(handle)

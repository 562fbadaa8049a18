"""A disk under SQLite that can lose power: what was written and not synced is lost, kept or torn, by chance.

Files really lie in one folder, written through; beside them this keeps what a disk would hold for certain:
per file the content at its last sync and the writes since, per folder the names at its last sync and the
changes since. `cut` draws one of the states that a loss of power may leave, and writes it to another folder.

The disk is a bad one: it gives no promise beyond a sync. A write that is under way may destroy the whole of
each sector that it touches (`sector_bytes`), writes may reach it in any order, or in part.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from plantwire.gateway.buffer import folder as folder_module
from plantwire.gateway.buffer import store as store_module
from plantwire.gateway.buffer.folder import BufferFolder

SECTOR_BYTES = 512
FILE_SYSTEM_BLOCK_BYTES = 4096


class Inode:
    """One file, whatever its name: what is certain, and what was done since."""

    def __init__(self) -> None:
        self.durable = b""
        self.pending: list[tuple[int, bytes] | int] = []
        """Writes (offset, data), and lengths that it was truncated to."""

    def copy(self) -> Inode:
        copied = Inode()
        copied.durable, copied.pending = self.durable, list(self.pending)
        return copied

    def sync(self) -> None:
        self.durable = self._after(self.pending)
        self.pending = []

    def torn(self, chance: random.Random) -> bytes:
        """Any subset of what is pending, by sectors; sectors under way may hold anything."""
        sector_bytes = chance.choice([SECTOR_BYTES, FILE_SYSTEM_BLOCK_BYTES])
        fate = chance.choice(["nothing", "everything", "some", "some", "torn"])
        if fate == "nothing":
            return self.durable
        if fate == "everything":
            return self._after(self.pending)
        content = bytearray(self.durable)
        for change in self.pending:
            if isinstance(change, int):
                if chance.random() < 0.5:
                    _truncate(content, change)
                continue
            offset, data = change
            at = offset
            while at < offset + len(data):
                end = min(offset + len(data), (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
                if chance.random() < 0.5:
                    _write(content, at, data[at - offset : end - offset])
                elif fate == "torn" and chance.random() < 0.2:
                    start = at // sector_bytes * sector_bytes
                    _write(content, start, chance.randbytes(sector_bytes))
                at = end
        return bytes(content)

    def _after(self, changes: list[tuple[int, bytes] | int]) -> bytes:
        content = bytearray(self.durable)
        for change in changes:
            if isinstance(change, int):
                _truncate(content, change)
            else:
                _write(content, *change)
        return bytes(content)


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _truncate(content: bytearray, length: int) -> None:
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))


class PowerLossDisk(apsw.VFS):
    """Register by making one; give its `name` to the buffer. Patch the buffer's own file work by `watch`."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name, "unix", iVersion=1)
        self.operations = 0
        self.on_operation: Callable[[], None] = lambda: None
        self._lock = threading.RLock()
        self._names: dict[str, Inode] = {}
        self._durable_names: dict[str, Inode] = {}
        self._renames: list[Callable[[dict[str, Inode]], None]] = []

    # What SQLite does.

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        assert name is not None
        path = name if isinstance(name, str) else name.filename()
        self._inode(path)
        return _File(self, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self._change_names(lambda names: names.pop(filename, None))
        if syncdir:
            self.sync_names()

    # What the buffer does by itself.

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """See its writes, renames and syncs too."""
        real_durably, real_zeros = folder_module.write_durably, folder_module.write_zeros
        real_finish, real_unfinished = BufferFolder.finish, BufferFolder.clear_unfinished

        def write_durably(file: Path, content: bytes) -> None:
            real_durably(file, content)
            written = Inode()
            written.durable = content
            self._change_names(lambda names: names.__setitem__(str(file), written))

        def write_zeros(file: Path, size_bytes: int) -> None:
            inode = self._inode(str(file))
            before_bytes = file.stat().st_size
            real_zeros(file, size_bytes)
            with self._lock:
                inode.pending.append((before_bytes, bytes(size_bytes - before_bytes)))
                inode.sync()
            self.step()

        def finish(folder: BufferFolder, generation: int) -> Path:
            unfinished, complete = str(folder.unfinished(generation)), str(folder.database(generation))

            def rename(names: dict[str, Inode]) -> None:
                if unfinished in names:
                    names[complete] = names.pop(unfinished)

            self._change_names(rename)
            found = real_finish(folder, generation)
            self.sync_names()  # its last step
            return found

        def clear_unfinished(folder: BufferFolder) -> None:
            real_unfinished(folder)

        patch.setattr(folder_module, "write_durably", write_durably)
        patch.setattr(store_module.folder, "write_zeros", write_zeros)
        patch.setattr(BufferFolder, "finish", finish)
        patch.setattr(BufferFolder, "clear_unfinished", clear_unfinished)

    def sync_names(self) -> None:
        """The folder is synced: its names are certain."""
        with self._lock:
            self._durable_names = dict(self._names)
            self._renames = []

    def step(self) -> None:
        """Something was done to the disk."""
        self.operations += 1
        self.on_operation()

    # What a loss of power does.

    def cut(self, seed: int) -> dict[str, bytes]:
        """Files by name as they may be found when power is back."""
        chance = random.Random(seed)
        with self._lock:
            names = dict(self._durable_names)
            # A file system with a journal keeps the order of names' changes.
            for change in self._renames[: chance.randint(0, len(self._renames))]:
                change(names)
            return {Path(path).name: inode.torn(chance) for path, inode in names.items()}

    def written(self, path: str, offset: int, data: bytes) -> None:
        with self._lock:
            self._inode(path).pending.append((offset, data))
        self.step()

    def truncated(self, path: str, length: int) -> None:
        with self._lock:
            self._inode(path).pending.append(length)
        self.step()

    def synced(self, path: str) -> None:
        self.step()
        with self._lock:
            self._inode(path).sync()
            if path.endswith("-wal"):
                # SQLite's own way: the first sync of a log that it made syncs the folder too.
                self.sync_names()

    def _inode(self, path: str) -> Inode:
        with self._lock:
            if path not in self._names:
                made = Inode()
                self._change_names(lambda names: names.__setitem__(path, made))
            return self._names[path]

    def _change_names(self, change: Callable[[dict[str, Inode]], object]) -> None:
        with self._lock:
            change(self._names)
            self._renames.append(lambda names: change(names) and None)
        self.step()


class _File(apsw.VFSFile):
    def __init__(
        self, disk: PowerLossDisk, path: str, name: str | apsw.URIFilename, flags: list[int]
    ) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._path = path

    def xWrite(self, data: bytes, offset: int) -> None:  # type: ignore[override]  # noqa: N802
        super().xWrite(data, offset)
        self._disk.written(self._path, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._disk.truncated(self._path, newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.synced(self._path)

"""A disk under SQLite that refuses writes, syncs or growth when it is told to."""

from __future__ import annotations

import random
from collections.abc import Callable

import apsw


class FailingDisk(apsw.VFS):
    """Register by making one; give its `name` to the buffer."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name, "unix", iVersion=1)
        self.fault: Callable[[str, str], type[apsw.Error] | None] = lambda path, act: None
        """(path, `write` | `sync` | `truncate`) → the error; asked before each."""
        self.faults = 0
        self.opens = True

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        assert name is not None
        if not self.opens:
            raise apsw.CantOpenError
        return _File(self, name if isinstance(name, str) else name.filename(), name, flags)

    def ask(self, path: str, act: str) -> None:
        error = self.fault(path, act)
        if error is not None:
            self.faults += 1
            raise error


def at_random(
    chance: random.Random, share: float, error: type[apsw.Error]
) -> Callable[[str, str], type[apsw.Error] | None]:
    """Each act fails by chance."""
    return lambda path, act: error if chance.random() < share else None


class _File(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, path: str, name: str | apsw.URIFilename, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._path = path

    def xWrite(self, data: bytes, offset: int) -> None:  # type: ignore[override]  # noqa: N802
        self._disk.ask(self._path, "write")
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.ask(self._path, "truncate")
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.ask(self._path, "sync")
        super().xSync(flags)

    def excepthook(self, *_: object) -> bool:
        return True

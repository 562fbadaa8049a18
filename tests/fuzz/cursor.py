"""Bytes → choices: how fuzz targets read structure out of arbitrary input.

In: bytes. Out: small numbers, byte strings, texts; zeros and nothing when the bytes are used up.
Guarantees: the same bytes give the same choices; reading never raises.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Cursor:
    """Reads on from where it is."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that are not read yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """Up to `size` bytes."""
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)

    def byte(self) -> int:
        """One byte, 0 at the end."""
        taken = self.take(1)
        return taken[0] if taken else 0

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes, little-endian."""
        return int.from_bytes(self.take(size), "little")

    def double(self) -> float:
        """Any double, NaN and infinities among them."""
        return float(struct.unpack("<d", self.take(8).ljust(8, b"\0"))[0])

    def choose(self, choices: Sequence[T]) -> T:
        """One of `choices`."""
        return choices[self.byte() % len(choices)]

    def piece(self) -> bytes:
        """A byte string with its length, two bytes, before it."""
        return self.take(self.number(2))

    def text(self) -> str:
        """A short text, one byte of length before it; any character may be in it, lone surrogates not."""
        return self.take(self.byte() % 32).decode("utf-8", "replace")


def piece(data: bytes) -> bytes:
    """What `Cursor.piece` reads back as `data`."""
    return len(data).to_bytes(2, "little") + data

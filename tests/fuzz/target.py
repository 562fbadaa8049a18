"""What a fuzz target is."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import msgspec

Check = Callable[[bytes], None]
"""Raises when something does not hold for the bytes."""


class Target(msgspec.Struct, frozen=True):
    """One decoder under test; `{stem}_check` and `{stem}_seeds` are functions of the module.

    `instrument` names the modules and packages whose branches guide the fuzzer.
    """

    name: str
    module: str
    instrument: tuple[str, ...]
    max_len: int = 1024
    words: tuple[bytes, ...] = ()
    """Tokens that the fuzzer may put in."""
    short_runs: int = 5_000
    """Runs in the test suite; slow targets have fewer."""

    @property
    def _stem(self) -> str:
        return self.name.replace("-", "_")

    def check(self) -> Check:
        """A new check; it may keep state from input to input."""
        check: Check = getattr(import_module(self.module), f"{self._stem}_check")()
        return check

    def seeds(self) -> list[bytes]:
        """Inputs to begin with."""
        seeds: list[bytes] = getattr(import_module(self.module), f"{self._stem}_seeds")()
        return seeds

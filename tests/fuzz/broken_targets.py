"""Decoders with a defect each, to prove that the fuzzer finds it. Not among the registered targets."""

from __future__ import annotations

import json

from tests.fuzz.target import Check

_KEPT: list[bytes] = []


def raises_check() -> Check:
    """Raises on inputs that only a guided fuzzer reaches in few runs."""

    def check(data: bytes) -> None:
        if data[:1] == b"p" and data[1:2] == b"l" and data[2:3] == b"w" and data[3:4] == b"!":
            raise KeyError("escaped")

    return check


def raises_seeds() -> list[bytes]:
    """Far from the defect."""
    return [b"aaaa"]


def leaks_check() -> Check:
    """Keeps a little of every input."""

    def check(data: bytes) -> None:
        _KEPT.append(data + bytes(64))

    return check


def leaks_seeds() -> list[bytes]:
    """Anything."""
    return [b"a", b"b"]


def holds_check() -> Check:
    """Has no defect."""

    def check(data: bytes) -> None:
        try:
            json.loads(data)
        except (ValueError, RecursionError):
            return

    return check


def holds_seeds() -> list[bytes]:
    """Anything."""
    return [b'{"a": 1}']

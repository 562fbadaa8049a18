"""The rules on disk: what a start without Kafka goes by.

In: a path, rules. Out: a JSON file, or the rules in it.
Guarantees: the file is whole or not there: written beside, synced, and renamed, its folder synced too. What
cannot be read is told and passed over, never an error: the topic replaces it.
Not here: which rules (`rule_follower`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from plantwire.schemas.records import AlarmRule

log = structlog.get_logger(__name__)


class RuleCopy(msgspec.Struct, frozen=True):
    """What is in the file."""

    rules: tuple[AlarmRule, ...]


_decoder: Final = msgspec.json.Decoder(RuleCopy)


def read_copy(file: Path) -> tuple[AlarmRule, ...] | None:
    """The rules in `file`; None where it is missing or cannot be read."""
    try:
        return _decoder.decode(file.read_bytes()).rules
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("rule-copy-not-read", file=str(file), reason=str(error))
        return None


def write_copy(file: Path, rules: Iterable[AlarmRule]) -> None:
    """Replace `file`; raises `OSError`, and then the former one is still there."""
    body = msgspec.json.format(msgspec.json.encode(RuleCopy(tuple(rules))), indent=1)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = file.with_suffix(".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(body)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

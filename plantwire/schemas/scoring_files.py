"""Which metrics get anomaly scores, as people write it: a YAML file of globs.

In: the text of a file. Out: its entries in their order, or `Refused` with every problem, line and reason.
Guarantees: pure; all or nothing; never raises on any text.
Not here: what a score is (`domain.anomaly`), reading the file (`platform.scoring_source`).
"""

from __future__ import annotations

from typing import Final

import msgspec
import yaml

from plantwire.schemas.rule_files import Refused, read_device_glob, read_metric_glob
from plantwire.schemas.rule_yaml import NodeReader, line_of

DEFAULT_MEMORY: Final = 8_000
MEMORY_MIN: Final = 600
MEMORY_MAX: Final = 10_000_000
ENTRIES_MAX: Final = 1_000
_KEYS: Final = ("devices", "metric", "memory")
_REQUIRED: Final = ("devices", "metric")


class ScoringEntry(msgspec.Struct, frozen=True):
    """Globs on the device id and the metric's name; `memory` in values."""

    devices: str
    metric: str
    memory: int = DEFAULT_MEMORY


def parse_scoring(text: str, file: str) -> tuple[ScoringEntry, ...] | Refused:
    """The entries of a file; `file` is its name, for the problems."""
    reader = NodeReader(file)
    read = [_entry(reader, item) for item in reader.entries(text, "scoring", most=ENTRIES_MAX)]
    if reader.problems:
        return Refused(tuple(sorted(reader.problems)))
    return tuple(entry for entry in read if entry is not None)


def _entry(reader: NodeReader, node: yaml.Node) -> ScoringEntry | None:
    found = reader.mapping(node, "an entry", _KEYS, _REQUIRED)
    if found is None:
        return None
    name = f"the entry at line {line_of(node)}"
    devices = read_device_glob(reader, found.get("devices"), name)
    metric = read_metric_glob(reader, found.get("metric"), name)
    memory: int | None = DEFAULT_MEMORY
    if "memory" in found:
        memory = reader.integer(found["memory"], f"'memory' of {name}", MEMORY_MIN, MEMORY_MAX)
    if devices is None or metric is None or memory is None:
        return None
    return ScoringEntry(devices, metric, memory)

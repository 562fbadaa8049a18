"""Report by exception as people configure it: a YAML file of deadbands by globs.

In: the text of a file. Out: a `DeadbandBook`, or every problem found, with line and reason.
Guarantees: pure; all or nothing; never raises on any text.
Not here: what a deadband does (`domain.report_by_exception`), reading the file (`report_by_exception`).
"""

from __future__ import annotations

from typing import Final

import yaml

from plantwire.domain.report_by_exception import Deadband, DeadbandBook
from plantwire.schemas.rule_files import Refused, read_device_glob, read_metric_glob
from plantwire.schemas.rule_yaml import NodeReader, line_of

DEFAULT_PERCENT: Final = 10.0
PERCENT_MAX: Final = 1000.0
MAX_SILENCE_MAX_MS: Final = 24 * 3600 * 1000
ENTRIES_MAX: Final = 1_000
_KEYS: Final = ("devices", "metric", "absolute", "percent", "max_silence_ms")
_REQUIRED: Final = ("devices", "metric")

Entry = tuple[str, str, Deadband]


def parse_reporting(text: str, file: str) -> DeadbandBook | Refused:
    """The deadbands of a file; `file` is its name, for the problems."""
    reader = NodeReader(file)
    read = [_entry(reader, item) for item in reader.entries(text, "reporting", most=ENTRIES_MAX)]
    if reader.problems:
        return Refused(tuple(sorted(reader.problems)))
    return DeadbandBook([entry for entry in read if entry is not None])


def _entry(reader: NodeReader, node: yaml.Node) -> Entry | None:
    found = reader.mapping(node, "an entry", _KEYS, _REQUIRED)
    if found is None:
        return None
    name = f"the entry at line {line_of(node)}"
    devices = read_device_glob(reader, found.get("devices"), name)
    metric = read_metric_glob(reader, found.get("metric"), name)
    absolute = _not_negative(reader, found, "absolute", name)
    percent = _not_negative(reader, found, "percent", name)
    if percent is not None and percent > PERCENT_MAX:
        reader.report(found["percent"], f"'percent' of {name} is {percent:g}; {PERCENT_MAX:g} is the most")
    if absolute is None and percent is None:
        percent = DEFAULT_PERCENT
    deadband = Deadband(absolute or 0.0, percent or 0.0)
    if "max_silence_ms" in found:
        what = f"'max_silence_ms' of {name}"
        max_silence_ms = reader.integer(found["max_silence_ms"], what, 0, MAX_SILENCE_MAX_MS)
        deadband = deadband._replace(max_silence_ms=max_silence_ms or 0)
    if devices is None or metric is None:
        return None
    return devices, metric, deadband


def _not_negative(reader: NodeReader, found: dict[str, yaml.Node], key: str, name: str) -> float | None:
    if key not in found:
        return None
    number = reader.number(found[key], f"{key!r} of {name}")
    if number is not None and number < 0:
        reader.report(found[key], f"{key!r} of {name} is negative")
    return number

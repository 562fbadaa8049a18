"""Telemetry patterns as people write them: YAML files.

In: the text of one file, or of several. Out: Patterns in the order of their ids, or `Refused` with every
problem found, each with file, line and reason.
Guarantees: pure; all or nothing; never raises on any text; what it returns can be run: finite numbers within
bounds that keep the state per device and metric small, and a template with known placeholders only.
Not here: what a pattern becomes (`domain.patterns`), reading from disk (`platform.yaml_files`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec
import yaml

from plantwire.schemas.patterns import Pattern, RiseThenDrop, Spikes, Stuck
from plantwire.schemas.rule_files import Refused, read_device_glob, read_metric_glob
from plantwire.schemas.rule_yaml import NodeReader, RuleProblem, line_of
from plantwire.schemas.severity import Severity

PATTERNS_MAX: Final = 32
"""In one job: each has operators of its own, and two regular expressions; Flink keeps 64 compiled."""
PATTERN_ID_MAX_CHARACTERS: Final = 64
MESSAGE_MAX_CHARACTERS: Final = 500
VERSION_MAX: Final = 2**31 - 1
RISES: Final = (2, 1_000)
SPIKES: Final = (2, 100)
SAMPLES: Final = (2, 1_000_000)
WITHIN_S: Final = (1, 3_600)
FOR_S: Final = (1, 86_400)
HOLD_S: Final = (1, 86_400)
HOLD_DEFAULT_S: Final = 300
SAMPLES_DEFAULT: Final = 2
PLACEHOLDERS: Final = ("device", "site", "metric", "value", "limit", "severity", "pattern")

DEFAULT_MESSAGES: Final = {
    "rise_then_drop": "{device} {metric} rose and fell to {value}",
    "spikes": "{device} {metric} spikes, the last at {value}",
    "stuck": "{device} {metric} is stuck at {value}",
}
_SHAPES: Final = tuple(DEFAULT_MESSAGES)
_KEYS: Final = ("id", "version", "devices", "metric", "severity", "message", "hold_s", *_SHAPES)
_REQUIRED_KEYS: Final = ("id", "version", "devices", "metric", "severity")
_SEVERITIES: Final = {severity.name.lower(): severity for severity in Severity}
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_PLACEHOLDER: Final = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_BRACED: Final = re.compile(r"\{[^{}]*\}|[{}]")


class _PatternAt(msgspec.Struct, frozen=True):
    pattern: Pattern
    file: str
    line: int


def parse_pattern_files(files: Iterable[tuple[str, str]]) -> list[Pattern] | Refused:
    """The patterns of several files, given as (name, text); an id may occur once over all of them."""
    found: dict[str, _PatternAt] = {}
    problems: list[RuleProblem] = []
    for file, text in files:
        patterns, wrong = _parse(text, file)
        problems.extend(wrong)
        for placed in patterns:
            pattern_id = placed.pattern.pattern_id
            first = found.setdefault(pattern_id, placed)
            if first is not placed:
                where = f"line {first.line}" if first.file == file else f"{first.file}:{first.line}"
                reason = f"pattern {pattern_id!r} is already at {where}"
                problems.append(RuleProblem(file, placed.line, reason))
            elif len(found) == PATTERNS_MAX + 1:
                problems.append(RuleProblem(file, placed.line, f"more than {PATTERNS_MAX} patterns"))
    if problems:
        return Refused(tuple(sorted(problems)))
    return [found[pattern_id].pattern for pattern_id in sorted(found)]


def parse_patterns(text: str, file: str) -> list[Pattern] | Refused:
    """The patterns of one file; `file` is its name, for the problems."""
    return parse_pattern_files([(file, text)])


def _parse(text: str, file: str) -> tuple[list[_PatternAt], list[RuleProblem]]:
    reader = NodeReader(file)
    patterns = []
    for item in reader.entries(text, "patterns"):
        pattern = _pattern(reader, item)
        if pattern is not None:
            patterns.append(_PatternAt(pattern, file, line_of(item)))
    return patterns, reader.problems


def _pattern(reader: NodeReader, node: yaml.Node) -> Pattern | None:
    """One pattern; None when something in it is wrong, which is reported."""
    problems_before = len(reader.problems)
    entries = reader.mapping(node, "a pattern", _KEYS, _REQUIRED_KEYS)
    if entries is None:
        return None
    pattern_id = _id(reader, entries.get("id"))
    name = f"pattern {pattern_id!r}" if pattern_id else "a pattern"
    devices = read_device_glob(reader, entries.get("devices"), name)
    metric = read_metric_glob(reader, entries.get("metric"), name)
    version = _integer(reader, entries, "version", name, (1, VERSION_MAX))
    severity = _severity(reader, entries.get("severity"), name)
    kinds = [kind for kind in _SHAPES if kind in entries]
    if len(kinds) != 1:
        told = " and ".join(repr(kind) for kind in kinds) if kinds else "none of them"
        reader.report(node, f"{name} takes one of {', '.join(map(repr, _SHAPES))}; it has {told}")
        return None
    (kind,) = kinds
    if kind == "stuck" and "hold_s" in entries:
        reader.report(entries["hold_s"], f"'hold_s' of {name}: a stuck value's alarm clears when it moves")
    shape = _SHAPE_READERS[kind](reader, entries[kind], f"{kind!r} of {name}")
    message = _message(reader, entries.get("message"), name, DEFAULT_MESSAGES[kind])
    hold_s = _integer(reader, entries, "hold_s", name, HOLD_S, HOLD_DEFAULT_S)
    if len(reader.problems) > problems_before or pattern_id is None or devices is None or metric is None:
        return None
    if version is None or severity is None or shape is None or hold_s is None:
        return None
    return Pattern(pattern_id, version, devices, metric, int(severity), message, shape, hold_s)


def _id(reader: NodeReader, node: yaml.Node | None) -> str | None:
    if node is None or (text := reader.text(node, "'id'", PATTERN_ID_MAX_CHARACTERS)) is None:
        return None
    if _ID.match(text):
        return text
    reader.report(node, "'id' takes letters, digits, '.', '_' and '-', and starts with a letter or digit")
    return None


def _severity(reader: NodeReader, node: yaml.Node | None, name: str) -> Severity | None:
    what = f"'severity' of {name}"
    if node is None or (text := reader.text(node, what, 20)) is None:
        return None
    if text not in _SEVERITIES:
        reader.report(node, f"{what} is {text!r}; it takes {', '.join(_SEVERITIES)}")
    return _SEVERITIES.get(text)


def _message(reader: NodeReader, node: yaml.Node | None, name: str, default: str) -> str:
    what = f"'message' of {name}"
    if node is None or (message := reader.text(node, what, MESSAGE_MAX_CHARACTERS)) is None:
        return default
    for braced in _BRACED.findall(message):
        if not _PLACEHOLDER.fullmatch(braced):
            known = " ".join(f"{{{placeholder}}}" for placeholder in PLACEHOLDERS)
            reader.report(node, f"{what} has {braced[:40]!r}, which is no placeholder; it takes {known}")
    return message


def _rise_then_drop(reader: NodeReader, node: yaml.Node, what: str) -> RiseThenDrop | None:
    required = ("rises", "within_s")
    entries = reader.mapping(node, what, (*required, "drop_percent", "drop_by"), required)
    if entries is None:
        return None
    rises = _integer(reader, entries, "rises", what, RISES)
    within_s = _integer(reader, entries, "within_s", what, WITHIN_S)
    drop = _one_of(reader, node, entries, ("drop_percent", "drop_by"), what)
    if drop is None or rises is None or within_s is None:
        return None
    key, size = drop
    if size <= 0:
        reader.report(entries[key], f"{key!r} of {what} must be more than 0")
        return None
    if key == "drop_percent":
        return RiseThenDrop(rises, within_s, drop_percent=size)
    return RiseThenDrop(rises, within_s, drop_by=size)


def _spikes(reader: NodeReader, node: yaml.Node, what: str) -> Spikes | None:
    required, limits = ("count", "within_s"), ("above", "below", "change")
    entries = reader.mapping(node, what, (*required, *limits), required)
    if entries is None:
        return None
    count = _integer(reader, entries, "count", what, SPIKES)
    within_s = _integer(reader, entries, "within_s", what, WITHIN_S)
    limit = _one_of(reader, node, entries, limits, what)
    if limit is None or count is None or within_s is None:
        return None
    key, size = limit
    if key == "above":
        return Spikes(count, within_s, above=size)
    if key == "below":
        return Spikes(count, within_s, below=size)
    if size <= 0:
        reader.report(entries[key], f"'change' of {what} must be more than 0")
        return None
    return Spikes(count, within_s, change=size)


def _stuck(reader: NodeReader, node: yaml.Node, what: str) -> Stuck | None:
    entries = reader.mapping(node, what, ("for_s", "samples"), ("for_s",))
    if entries is None:
        return None
    for_s = _integer(reader, entries, "for_s", what, FOR_S)
    samples = _integer(reader, entries, "samples", what, SAMPLES, SAMPLES_DEFAULT)
    return None if for_s is None or samples is None else Stuck(for_s, samples)


_SHAPE_READERS: Final = {"rise_then_drop": _rise_then_drop, "spikes": _spikes, "stuck": _stuck}


def _integer(
    reader: NodeReader,
    entries: dict[str, yaml.Node],
    key: str,
    what: str,
    bounds: tuple[int, int],
    default: int | None = None,
) -> int | None:
    """The whole number at `key`; `default` where there is none (a missing key is reported already)."""
    if key not in entries:
        return default
    return reader.integer(entries[key], f"{key!r} of {what}", *bounds)


def _one_of(
    reader: NodeReader, node: yaml.Node, entries: dict[str, yaml.Node], keys: tuple[str, ...], what: str
) -> tuple[str, float] | None:
    """The one of `keys` that is there, with its number."""
    present = [key for key in keys if key in entries]
    if len(present) != 1:
        told = " and ".join(map(repr, present)) if present else "none of them"
        reader.report(node, f"{what} takes one of {', '.join(map(repr, keys))}; it has {told}")
        return None
    (key,) = present
    number = reader.number(entries[key], f"{key!r} of {what}")
    return None if number is None else (key, number)

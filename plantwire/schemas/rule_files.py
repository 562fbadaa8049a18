"""Alarm rules as people write them: YAML files.

In: the text of one file, or of several. Out: AlarmRules of version 0 (not yet numbered), in the order
of the files, or `Refused` with every problem found, each with file, line and reason.
Guarantees: pure; all or nothing; never raises on any text; what it returns is safe to evaluate: finite
limits, or times after which data are missing, that do not contradict each other, and a template with known
placeholders only.
Not here: reading and numbering (`stack.rules_cli`, `stack.rule_plan`), Avro (`schemas.codec`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

import msgspec
import yaml

from plantwire.schemas.identifiers import DEVICE_ID_MAX_CHARACTERS, METRIC_NAME_MAX_CHARACTERS
from plantwire.schemas.records import (
    DELAY_MAX_MS,
    MISSING_AFTER_MAX_MS,
    MISSING_AFTER_MIN_MS,
    AlarmRule,
    Limit,
    Missing,
)
from plantwire.schemas.rule_yaml import NodeReader, RuleProblem, line_of
from plantwire.schemas.severity import Severity

RULES_PER_FILE_MAX: Final = 2_000
RULE_ID_MAX_CHARACTERS: Final = 64
MESSAGE_MAX_CHARACTERS: Final = 500
PLACEHOLDERS: Final = ("device", "site", "metric", "value", "limit", "severity", "rule")
MISSING_PLACEHOLDERS: Final = ("device", "site", "metric", "after_s", "severity", "rule")
"""Of a rule with `missing`; without {metric} where it has none."""

_RULE_KEYS: Final = ("id", "devices", "metric", "limits", "missing", "on_delay_ms", "off_delay_ms", "message")
_REQUIRED_KEYS: Final = ("id", "devices")
_DELAY_KEYS: Final = ("on_delay_ms", "off_delay_ms")
_LIMIT_KEYS: Final = ("above", "below", "deadband")
_MISSING_KEYS: Final = ("after_s",)
_SEVERITIES: Final = {severity.name.lower(): severity for severity in Severity}
_RULE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_DEVICE_GLOB: Final = re.compile(r"[A-Za-z0-9._:@*?\[\]!-]+\Z")
_BRACED: Final = re.compile(r"\{[^{}]*\}|[{}]")


class Refused(msgspec.Struct, frozen=True):
    """Nothing is taken; `problems` says why, in the order of files and lines. Never empty."""

    problems: tuple[RuleProblem, ...]


class RuleAt(msgspec.Struct, frozen=True):
    """A rule and the line that it starts at."""

    rule: AlarmRule
    file: str
    line: int


def parse_rule_files(files: Iterable[tuple[str, str]]) -> list[AlarmRule] | Refused:
    """The rules of several files, given as (name, text); an id may occur once over all of them."""
    found: dict[str, RuleAt] = {}
    problems: list[RuleProblem] = []
    for file, text in files:
        rules, wrong = _parse(text, file)
        problems.extend(wrong)
        for placed in rules:
            rule_id = placed.rule.rule_id
            first = found.setdefault(rule_id, placed)
            if first is not placed:
                where = f"line {first.line}" if first.file == file else f"{first.file}:{first.line}"
                problems.append(RuleProblem(file, placed.line, f"rule {rule_id!r} is already at {where}"))
    if problems:
        return Refused(tuple(sorted(problems)))
    return [placed.rule for placed in found.values()]


def parse_rules(text: str, file: str) -> list[AlarmRule] | Refused:
    """The rules of one file; `file` is its name, for the problems."""
    return parse_rule_files([(file, text)])


def _parse(text: str, file: str) -> tuple[list[RuleAt], list[RuleProblem]]:
    reader = NodeReader(file)
    rules: list[RuleAt] = []
    for item in reader.entries(text, "rules", noun="rules", most=RULES_PER_FILE_MAX):
        rule = _rule(reader, item)
        if rule is not None:
            rules.append(RuleAt(rule, file, line_of(item)))
    return rules, reader.problems


def _rule(reader: NodeReader, node: yaml.Node) -> AlarmRule | None:
    """One rule; None when its id, globs or limits cannot be told. Problems are with the reader."""
    entries = reader.mapping(node, "a rule", _RULE_KEYS, _REQUIRED_KEYS)
    if entries is None:
        return None
    rule_id = _rule_id(reader, entries.get("id"))
    name = f"rule {rule_id!r}" if rule_id else "a rule"
    devices = read_device_glob(reader, entries.get("devices"), name)
    if "missing" in entries:
        return _missing_rule(reader, entries, name, rule_id, devices)
    for key in ("metric", "limits"):
        if key not in entries:
            alternative = ", or 'missing' in its place" if key == "limits" else ""
            reader.report(node, f"a rule lacks {key!r}{alternative}")
    metric = read_metric_glob(reader, entries.get("metric"), name)
    limits = _limits(reader, entries["limits"], name) if "limits" in entries else None
    on_delay_ms = _delay_ms(reader, entries, "on_delay_ms", name)
    off_delay_ms = _delay_ms(reader, entries, "off_delay_ms", name)
    default = AlarmRule("", 0, "", "", ()).message
    message = _message(reader, entries.get("message"), name, PLACEHOLDERS, default)
    if rule_id is None or devices is None or metric is None or limits is None:
        return None
    return AlarmRule(
        rule_id=rule_id,
        version=0,
        devices=devices,
        metric=metric,
        limits=limits,
        on_delay_ms=on_delay_ms,
        off_delay_ms=off_delay_ms,
        message=message,
    )


def _missing_rule(
    reader: NodeReader,
    entries: dict[str, yaml.Node],
    name: str,
    rule_id: str | None,
    devices: str | None,
) -> AlarmRule | None:
    """A rule on data that stay away: of a metric, or of the device as a whole."""
    if "limits" in entries:
        reader.report(entries["missing"], f"{name} has 'limits' and 'missing'; make it two rules")
    for key in _DELAY_KEYS:
        if key in entries:
            reader.report(
                entries[key], f"{name} has 'missing', which is a delay itself, and takes no {key!r}"
            )
    metric: str | None = ""
    placeholders = tuple(placeholder for placeholder in MISSING_PLACEHOLDERS if placeholder != "metric")
    default = "{device}: no data for {after_s} s"
    if "metric" in entries:
        metric = read_metric_glob(reader, entries["metric"], name)
        placeholders, default = MISSING_PLACEHOLDERS, "{device} {metric}: no data for {after_s} s"
    missing = _missing(reader, entries["missing"], name)
    message = _message(reader, entries.get("message"), name, placeholders, default)
    if rule_id is None or devices is None or metric is None or missing is None:
        return None
    return AlarmRule(rule_id, 0, devices, metric, (), message=message, missing=missing)


def _rule_id(reader: NodeReader, node: yaml.Node | None) -> str | None:
    if node is None or (rule_id := reader.text(node, "'id'", RULE_ID_MAX_CHARACTERS)) is None:
        return None
    if _RULE_ID.match(rule_id):
        return rule_id
    reader.report(node, "'id' takes letters, digits, '.', '_' and '-', and starts with a letter or digit")
    return None


def read_device_glob(reader: NodeReader, node: yaml.Node | None, name: str) -> str | None:
    """The device glob of what is called `name`; None where it is missing or wrong, which is reported."""
    what = f"'devices' of {name}"
    if node is None or (glob := reader.text(node, what, DEVICE_ID_MAX_CHARACTERS)) is None:
        return None
    if not _DEVICE_GLOB.match(glob):
        reader.report(node, f"{what} has a character that is in no device id and no glob")
        return None
    return _glob(reader, node, what, glob)


def read_metric_glob(reader: NodeReader, node: yaml.Node | None, name: str) -> str | None:
    """As `read_device_glob`, for metric names."""
    what = f"'metric' of {name}"
    if node is None or (glob := reader.text(node, what, METRIC_NAME_MAX_CHARACTERS)) is None:
        return None
    return _glob(reader, node, what, glob)


def _glob(reader: NodeReader, node: yaml.Node, what: str, glob: str) -> str | None:
    """Refuses a bracket that is never closed, and a range that runs backwards: both match nothing."""
    at = 0
    while (start := glob.find("[", at)) != -1:
        body = start + 2 if glob.startswith("[!", start) else start + 1
        # As in a shell, a ] right after the [ is a member of the set and does not close it.
        end = glob.find("]", body + 1)
        if end == -1:
            reader.report(node, f"{what} opens a [ that is never closed")
            return None
        for low, high in re.findall(r"(.)-(.)", glob[body:end]):
            if low > high:
                reader.report(node, f"{what} has the range {low}-{high}, which runs backwards")
                return None
        at = end + 1
    return glob


def _delay_ms(reader: NodeReader, entries: dict[str, yaml.Node], key: str, name: str) -> int:
    if key not in entries:
        return 0
    return reader.integer(entries[key], f"{key!r} of {name}", 0, DELAY_MAX_MS) or 0


def _message(
    reader: NodeReader, node: yaml.Node | None, name: str, placeholders: tuple[str, ...], default: str
) -> str:
    if node is None:
        return default
    what = f"'message' of {name}"
    message = reader.text(node, what, MESSAGE_MAX_CHARACTERS)
    if message is None:
        return default
    for braced in _BRACED.findall(message):
        if braced[1:-1] not in placeholders:
            known = " ".join(f"{{{placeholder}}}" for placeholder in placeholders)
            reader.report(node, f"{what} has {braced[:40]!r}, which is no placeholder; it takes {known}")
    return message


def _missing(reader: NodeReader, node: yaml.Node, name: str) -> tuple[Missing, ...] | None:
    """After how long data are missing, most severe first; None where one of them is wrong."""
    problems_before = len(reader.problems)
    entries = reader.mapping(node, f"'missing' of {name}", _SEVERITIES)
    if entries is None:
        return None
    if not entries and len(reader.problems) == problems_before:
        reader.report(node, f"'missing' of {name} has no severity")
    low, high = MISSING_AFTER_MIN_MS // 1000, MISSING_AFTER_MAX_MS // 1000
    placed: list[tuple[yaml.Node, Missing]] = []
    for severity_name in sorted(entries, key=lambda key: _SEVERITIES[key]):
        what = f"{severity_name} of {name}"
        found = reader.mapping(entries[severity_name], what, _MISSING_KEYS, _MISSING_KEYS)
        if found and (after_s := reader.integer(found["after_s"], f"'after_s' of {what}", low, high)):
            placed.append((found["after_s"], Missing(int(_SEVERITIES[severity_name]), after_s * 1000)))
    for (_, severe), (where, mild) in pairwise(placed):
        if mild.after_ms >= severe.after_ms:
            reader.report(
                where,
                f"{name}: {_named(mild.severity)} after {mild.after_ms // 1000} s is not before "
                f"{_named(severe.severity)} after {severe.after_ms // 1000} s",
            )
    if len(reader.problems) > problems_before:
        return None
    return tuple(missing for _, missing in placed)


def _limits(reader: NodeReader, node: yaml.Node, name: str) -> tuple[Limit, ...] | None:
    """The limits, most severe first; None where one of them is wrong."""
    problems_before = len(reader.problems)
    entries = reader.mapping(node, f"'limits' of {name}", _SEVERITIES)
    if entries is None:
        return None
    if not entries and len(reader.problems) == problems_before:
        reader.report(node, f"{name} has no limit")
    placed: list[tuple[yaml.Node, Limit]] = []
    for severity_name in sorted(entries, key=lambda key: _SEVERITIES[key]):
        where = entries[severity_name]
        limit = _limit(reader, where, _SEVERITIES[severity_name], f"{severity_name} of {name}")
        if limit is not None:
            placed.append((where, limit))
    if len(reader.problems) == problems_before:
        _report_contradictions(reader, placed, name)
    if len(reader.problems) > problems_before:
        return None
    return tuple(limit for _, limit in placed)


def _limit(reader: NodeReader, node: yaml.Node, severity: Severity, what: str) -> Limit | None:
    problems_before = len(reader.problems)
    entries = reader.mapping(node, what, _LIMIT_KEYS)
    if entries is None or len(reader.problems) > problems_before:
        return None
    values: dict[str, float] = {}
    for key, value_node in entries.items():
        number = reader.number(value_node, f"{key!r} of {what}")
        if number is None:
            return None
        values[key] = number
    above, below, deadband = values.get("above"), values.get("below"), values.get("deadband", 0.0)
    if above is None and below is None:
        reader.report(node, f"{what} has neither 'above' nor 'below'")
    elif above is not None and below is not None and below >= above:
        reader.report(entries["below"], f"{what}: below {below:g} is not less than above {above:g}")
    elif deadband < 0:
        reader.report(entries["deadband"], f"'deadband' of {what} is negative")
    elif above is not None and below is not None and deadband >= above - below:
        reader.report(
            entries["deadband"],
            f"'deadband' of {what} is {deadband:g}, as wide as the band {below:g} to {above:g} or wider: "
            "an alarm would never clear",
        )
    else:
        return Limit(severity=int(severity), above=above, below=below, deadband=deadband)
    return None


def _report_contradictions(reader: NodeReader, placed: list[tuple[yaml.Node, Limit]], name: str) -> None:
    """A less severe limit must be met before a more severe one, and some value must be normal."""
    highs = [(node, limit.severity, limit.above) for node, limit in placed if limit.above is not None]
    lows = [(node, limit.severity, limit.below) for node, limit in placed if limit.below is not None]
    for (_, severe, high), (node, mild, lower) in pairwise(highs):
        if lower >= high:
            reader.report(
                node,
                f"{name}: {_named(mild)} above {lower:g} is not less than {_named(severe)} above {high:g}",
            )
    for (_, severe, low), (node, mild, higher) in pairwise(lows):
        if higher <= low:
            reader.report(
                node,
                f"{name}: {_named(mild)} below {higher:g} is not more than {_named(severe)} below {low:g}",
            )
    if highs and lows:
        _, high_severity, lowest_high = min(highs, key=lambda entry: entry[2])
        node, low_severity, highest_low = max(lows, key=lambda entry: entry[2])
        if highest_low >= lowest_high:
            reader.report(
                node,
                f"{name}: {_named(low_severity)} below {highest_low:g} and {_named(high_severity)} above "
                f"{lowest_high:g} leave no normal value",
            )


def _named(severity: int) -> str:
    return Severity(severity).name.lower()

"""The rules in force, compiled, and which of them apply to a device.

In: AlarmRule records in any order, older versions among them.
Out: for a device, its metrics' compiled rules, and the rules on data that stay away.
Guarantees: the highest version of a rule wins, whatever the order of arrival.
Not here: evaluation (`domain.limits`, `domain.missing`), files and topics (schemas, platform).
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from plantwire.schemas.records import DELAY_MAX_MS, MISSING_AFTER_MAX_MS, MISSING_AFTER_MIN_MS, AlarmRule
from plantwire.schemas.severity import Severity

_SEVERITIES = frozenset(Severity)
# A bound, not a tuning knob: a plant has fewer metric names than this per device.
_METRICS_REMEMBERED_PER_DEVICE = 10_000
_MARGIN_MAX_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class CompiledLimit:
    """A limit with infinities for the sides that it leaves open."""

    severity: int
    above: float
    below: float
    deadband: float


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule, ready to evaluate. Between `safe_low` and `safe_high` (inclusive) no limit is violated."""

    rule: AlarmRule
    limits: tuple[CompiledLimit, ...]
    safe_low: float
    safe_high: float


@dataclass(frozen=True, slots=True)
class CompiledSilence:
    """A rule on data that stay away, ready to ask."""

    rule: AlarmRule
    steps: tuple[tuple[int, int], ...]
    """(ms without data, severity in force after them), in the order in which they come; ever more severe."""
    margin_ms: int
    """How far ahead a row may say that nothing came: a quarter of what the rule allows, at most a minute."""


def compile_silence(rule: AlarmRule) -> CompiledSilence:
    """`rule` has at least one time in `missing`."""
    steps: list[tuple[int, int]] = []
    for after_ms, severity in sorted((missing.after_ms, missing.severity) for missing in rule.missing):
        if not steps or severity < steps[-1][1]:
            steps.append((after_ms, severity))
    return CompiledSilence(rule, tuple(steps), min(steps[0][0] // 4, _MARGIN_MAX_MS))


def compile_rule(rule: AlarmRule) -> CompiledRule:
    """Sort the limits, most severe first, and precompute the band in which nothing happens."""
    limits = tuple(
        CompiledLimit(
            severity=limit.severity,
            above=math.inf if limit.above is None else limit.above,
            below=-math.inf if limit.below is None else limit.below,
            deadband=limit.deadband,
        )
        for limit in sorted(rule.limits, key=lambda limit: limit.severity)
    )
    return CompiledRule(
        rule=rule,
        limits=limits,
        safe_low=max((limit.below for limit in limits), default=-math.inf),
        safe_high=min((limit.above for limit in limits), default=math.inf),
    )


WHOLE_DEVICE: Final = ""
"""In place of a metric: what a rule without one is about."""


class DeviceRules:
    """The rules of one device, looked up by metric name."""

    def __init__(self, rules: tuple[tuple[re.Pattern[str], CompiledRule], ...]) -> None:
        self._rules = tuple((pattern, compiled) for pattern, compiled in rules if not _is_silence(compiled))
        self._silences = tuple(
            (None if compiled.rule.metric == WHOLE_DEVICE else pattern, compile_silence(compiled.rule))
            for pattern, compiled in rules
            if _is_silence(compiled)
        )
        self._by_metric: dict[str, tuple[CompiledRule, ...]] = {}
        self._silences_by_metric: dict[str, tuple[CompiledSilence, ...]] = {}
        self.watch_silence = bool(self._silences)
        """Whether any rule is about data that stay away."""

    def silences_of(self, metric: str) -> tuple[CompiledSilence, ...]:
        """The rules on data of a metric, or of `WHOLE_DEVICE`, that stay away, in the order of their ids."""
        found = self._silences_by_metric.get(metric)
        if found is None:
            found = tuple(
                silence
                for pattern, silence in self._silences
                if (pattern is None if metric == WHOLE_DEVICE else pattern and pattern.match(metric))
            )
            if len(self._silences_by_metric) < _METRICS_REMEMBERED_PER_DEVICE:
                self._silences_by_metric[metric] = found
        return found

    def for_metric(self, metric: str) -> tuple[CompiledRule, ...]:
        """The compiled rules on a metric's values, in the order of their ids; empty for most metrics."""
        found = self._by_metric.get(metric)
        if found is None:
            found = tuple(compiled for pattern, compiled in self._rules if pattern.match(metric))
            if len(self._by_metric) < _METRICS_REMEMBERED_PER_DEVICE:
                self._by_metric[metric] = found
        return found


class RuleBook:
    """All rules by id. `generation` changes whenever any rule does."""

    def __init__(self, rules: Iterable[AlarmRule] = ()) -> None:
        self._rules: dict[str, AlarmRule] = {}
        self._compiled: dict[str, tuple[re.Pattern[str], re.Pattern[str], CompiledRule]] = {}
        self.generation = 0
        for rule in rules:
            self.put(rule)

    def put(self, rule: AlarmRule) -> bool:
        """Take a rule in; False when this version or a later one is already here."""
        known = self._rules.get(rule.rule_id)
        if known is not None and known.version >= rule.version:
            return False
        self._rules[rule.rule_id] = rule
        self._compiled.pop(rule.rule_id, None)
        if not rule.retired:
            self._compiled[rule.rule_id] = (_glob(rule.devices), _glob(rule.metric), compile_rule(rule))
        self.generation += 1
        return True

    def remove(self, rule_id: str) -> bool:
        """Forget a rule whose record was deleted from the topic; False when it was not here."""
        if self._rules.pop(rule_id, None) is None:
            return False
        self._compiled.pop(rule_id, None)
        self.generation += 1
        return True

    def for_device(self, device_id: str) -> DeviceRules:
        """The rules whose device glob matches."""
        return DeviceRules(
            tuple(
                (metrics, compiled)
                for _, (devices, metrics, compiled) in sorted(self._compiled.items())
                if devices.match(device_id)
            )
        )

    def __len__(self) -> int:
        return len(self._compiled)


def is_sound(rule: AlarmRule) -> bool:
    """Whether a rule can be evaluated and its alarms can be told.

    The tools that publish rules see to it; whatever else writes to the topic may not.
    """
    severities = [limit.severity for limit in rule.limits] + [missing.severity for missing in rule.missing]
    if any(severity not in _SEVERITIES for severity in severities):
        return False
    if not all(MISSING_AFTER_MIN_MS <= missing.after_ms <= MISSING_AFTER_MAX_MS for missing in rule.missing):
        return False
    if not (0 <= rule.on_delay_ms <= DELAY_MAX_MS and 0 <= rule.off_delay_ms <= DELAY_MAX_MS):
        return False
    try:
        _glob(rule.devices)
        _glob(rule.metric)
    except re.error:
        return False
    return True


def _is_silence(compiled: CompiledRule) -> bool:
    """A rule that has limits too, which no rule file can have, is about its limits."""
    return bool(compiled.rule.missing) and not compiled.limits


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))

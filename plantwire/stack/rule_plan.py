"""What must be published so that the rules in force become the rules wanted.

In: the rules in force by id, and those of the files (version 0). Out: a `RulePlan`.
Guarantees: pure; a rule that stays the same is not in the plan, so that publishing twice changes
nothing; a version only ever goes up, a retired rule's too.
Not here: Kafka (`platform.rule_topic`), files (`stack.rule_sources`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from plantwire.schemas.records import AlarmRule, Limit, Missing
from plantwire.schemas.severity import Severity

NO_DELAY: Final = "none"


class ChangeKind(StrEnum):
    """What happens to a rule; the value is the word that a person reads."""

    ADDED = "added"
    CHANGED = "changed"
    RETIRED = "retired"
    BROUGHT_BACK = "brought back"


class RuleChange(msgspec.Struct, frozen=True):
    """One rule to publish, with its new version, and what was in force before."""

    kind: ChangeKind
    rule: AlarmRule
    before: AlarmRule | None


class RulePlan(msgspec.Struct, frozen=True):
    """`changes` in the order of the ids; the ids that stay as they are; those in force in no file."""

    changes: tuple[RuleChange, ...]
    unchanged: tuple[str, ...]
    not_in_files: tuple[str, ...]


def plan_rules(in_force: Mapping[str, AlarmRule], wanted: Iterable[AlarmRule], *, prune: bool) -> RulePlan:
    """The way from `in_force` to `wanted`; with `prune`, rules that are not wanted are retired."""
    changes: list[RuleChange] = []
    unchanged: list[str] = []
    wanted_by_id = {rule.rule_id: rule for rule in wanted}
    for rule_id, rule in wanted_by_id.items():
        before = in_force.get(rule_id)
        if before is None:
            changes.append(RuleChange(ChangeKind.ADDED, _numbered(rule, 1), None))
        elif _numbered(rule, before.version) == before:
            unchanged.append(rule_id)
        else:
            kind = ChangeKind.BROUGHT_BACK if before.retired else ChangeKind.CHANGED
            changes.append(RuleChange(kind, _numbered(rule, before.version + 1), before))
    others = [r for r in in_force.values() if not r.retired and r.rule_id not in wanted_by_id]
    if prune:
        for before in others:
            retired = msgspec.structs.replace(before, version=before.version + 1, retired=True)
            changes.append(RuleChange(ChangeKind.RETIRED, retired, before))
        others = []
    return RulePlan(
        changes=tuple(sorted(changes, key=lambda change: change.rule.rule_id)),
        unchanged=tuple(sorted(unchanged)),
        not_in_files=tuple(sorted(rule.rule_id for rule in others)),
    )


def describe_change(change: RuleChange) -> list[str]:
    """What differs, a line for each field, as "field: before → after"; empty but for a changed rule."""
    before, after = change.before, change.rule
    if before is None or change.kind not in (ChangeKind.CHANGED, ChangeKind.BROUGHT_BACK):
        return []
    rows = (
        ("devices", before.devices, after.devices),
        ("metric", before.metric, after.metric),
        ("limits", describe_limits(before.limits), describe_limits(after.limits)),
        ("missing", describe_missing(before.missing), describe_missing(after.missing)),
        ("on_delay_ms", str(before.on_delay_ms), str(after.on_delay_ms)),
        ("off_delay_ms", str(before.off_delay_ms), str(after.off_delay_ms)),
        ("message", before.message, after.message),
    )
    return [f"{name}: {old} → {new}" for name, old, new in rows if old != new]


def describe_limits(limits: Iterable[Limit]) -> str:
    """Limits in one line, such as "critical > 100 (±2), high > 90 (±2)"."""
    return ", ".join(_describe_limit(limit) for limit in limits)


def describe_missing(missing: Iterable[Missing]) -> str:
    """After how long data are missing, in one line, such as "critical after 600 s, high after 60 s"."""
    return ", ".join(f"{Severity(m.severity).name.lower()} after {m.after_ms / 1000:g} s" for m in missing)


def describe_delays(rule: AlarmRule) -> str:
    """The delays in one line, such as "on 2 s, off 5 s"."""
    parts = [
        f"{name} {delay_ms / 1000:g} s"
        for name, delay_ms in (("on", rule.on_delay_ms), ("off", rule.off_delay_ms))
        if delay_ms
    ]
    return ", ".join(parts) or NO_DELAY


def _describe_limit(limit: Limit) -> str:
    sides = [f"< {limit.below:g}"] if limit.below is not None else []
    sides += [f"> {limit.above:g}"] if limit.above is not None else []
    deadband = f" (±{limit.deadband:g})" if limit.deadband else ""
    return f"{Severity(limit.severity).name.lower()} {' or '.join(sides)}{deadband}"


def _numbered(rule: AlarmRule, version: int) -> AlarmRule:
    return msgspec.structs.replace(rule, version=version)

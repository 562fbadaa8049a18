"""What has to be published so that the files are in force."""

from __future__ import annotations

from msgspec.structs import replace

from plantwire.schemas.records import AlarmRule, Limit
from plantwire.stack.rule_plan import (
    ChangeKind,
    describe_change,
    describe_delays,
    describe_limits,
    plan_rules,
)

HOT = AlarmRule(
    "hot", 0, "press-*", "temperature", (Limit(0, above=100.0, deadband=2.0), Limit(1, above=90.0))
)
COLD = AlarmRule("cold", 0, "chiller-*", "temperature", (Limit(2, below=2.0),), on_delay_ms=2000)


def in_force(*rules: AlarmRule) -> dict[str, AlarmRule]:
    return {rule.rule_id: rule for rule in rules}


def test_a_new_rule_gets_version_1() -> None:
    plan = plan_rules({}, [HOT, COLD], prune=False)
    assert [(c.kind, c.rule.rule_id, c.rule.version) for c in plan.changes] == [
        (ChangeKind.ADDED, "cold", 1),
        (ChangeKind.ADDED, "hot", 1),
    ]
    assert [describe_change(change) for change in plan.changes] == [[], []]


def test_a_rule_that_is_the_same_is_not_published_again() -> None:
    plan = plan_rules(in_force(replace(HOT, version=7)), [HOT], prune=True)
    assert plan.changes == ()
    assert plan.unchanged == ("hot",)


def test_a_changed_rule_gets_the_next_version_and_says_what_changed() -> None:
    before = replace(HOT, version=7)
    wanted = replace(HOT, limits=(Limit(0, above=101.0, deadband=2.0),), off_delay_ms=500)
    (change,) = plan_rules(in_force(before), [wanted], prune=False).changes
    assert change.kind is ChangeKind.CHANGED
    assert change.rule == replace(wanted, version=8)
    assert describe_change(change) == [
        "limits: critical > 100 (±2), high > 90 → critical > 101 (±2)",
        "off_delay_ms: 0 → 500",
    ]


def test_without_prune_a_rule_in_no_file_stays_and_is_named() -> None:
    plan = plan_rules(in_force(replace(HOT, version=1), replace(COLD, version=1)), [HOT], prune=False)
    assert plan.changes == ()
    assert plan.not_in_files == ("cold",)


def test_prune_retires_with_the_next_version_once() -> None:
    plan = plan_rules(in_force(replace(COLD, version=4)), [], prune=True)
    (change,) = plan.changes
    assert change.kind is ChangeKind.RETIRED
    assert change.rule == replace(COLD, version=5, retired=True)
    assert plan.not_in_files == ()
    assert plan_rules(in_force(change.rule), [], prune=True).changes == ()


def test_a_retired_rule_comes_back_above_its_last_version() -> None:
    (change,) = plan_rules(in_force(replace(COLD, version=5, retired=True)), [COLD], prune=False).changes
    assert change.kind is ChangeKind.BROUGHT_BACK
    assert change.rule == replace(COLD, version=6)


def test_limits_and_delays_in_one_line() -> None:
    assert describe_limits([Limit(3, above=5.0, below=-1.0)]) == "low < -1 or > 5"
    assert describe_delays(replace(HOT, on_delay_ms=1500, off_delay_ms=60_000)) == "on 1.5 s, off 60 s"
    assert describe_delays(HOT) == "none"

"""`plantwire rules` against a real broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from plantwire.platform.rule_topic import publish_rules, read_rules
from plantwire.schemas.records import AlarmRule, Limit
from plantwire.stack.rules_cli import app

TIMEOUT_S = 15.0
TWO = """\
rules:
  - id: hot
    devices: "press-*"
    metric: temperature
    limits:
      high:     {above: 90, deadband: 2}
      critical: {above: 100, deadband: 2}
  - {id: cold, devices: "chiller-*", metric: temperature, limits: {medium: {below: 2}}, on_delay_ms: 2000}
"""


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    path = tmp_path / "plant.yaml"
    path.write_text(TWO)
    return path


def run(bootstrap: str, *arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--kafka", bootstrap])


def versions(bootstrap: str) -> dict[str, tuple[int, bool]]:
    return {r.rule_id: (r.version, r.retired) for r in read_rules(bootstrap, TIMEOUT_S).values()}


def test_apply_publishes_and_a_second_apply_changes_nothing(rule_topic: str, rules_file: Path) -> None:
    first = run(rule_topic, "apply", rules_file)
    assert (first.exit_code, first.output) == (0, "+ cold: added\n+ hot: added\n2 added, 0 unchanged\n")
    second = run(rule_topic, "apply", rules_file)
    assert (second.exit_code, second.output) == (0, "2 unchanged\n")
    assert versions(rule_topic) == {"hot": (1, False), "cold": (1, False)}


def test_a_change_is_shown_by_diff_then_applied_with_the_next_version(
    rule_topic: str, rules_file: Path
) -> None:
    run(rule_topic, "apply", rules_file)
    rules_file.write_text(TWO.replace("above: 100", "above: 105"))
    lines = [
        "~ hot: changed (version 1 → 2)",
        "    limits: critical > 100 (±2), high > 90 (±2) → critical > 105 (±2), high > 90 (±2)",
        "1 changed, 1 unchanged",
    ]
    difference = run(rule_topic, "diff", rules_file)
    assert (difference.exit_code, difference.output.splitlines()) == (1, lines)
    assert versions(rule_topic)["hot"] == (1, False)
    applied = run(rule_topic, "apply", rules_file)
    assert (applied.exit_code, applied.output.splitlines()) == (0, lines)
    assert versions(rule_topic) == {"hot": (2, False), "cold": (1, False)}
    assert run(rule_topic, "diff", rules_file).exit_code == 0


def test_one_mistake_refuses_everything_and_the_old_rules_stay(rule_topic: str, rules_file: Path) -> None:
    run(rule_topic, "apply", rules_file)
    before = read_rules(rule_topic, TIMEOUT_S)
    rules_file.write_text(TWO.replace("above: 90", "above: 95").replace("below: 2", "below: nan"))
    refused = run(rule_topic, "apply", rules_file)
    assert refused.exit_code == 1
    assert refused.output.splitlines() == [
        f"{rules_file}:8: 'below' of medium of rule 'cold' must be finite, not 'nan'",
        "1 problem: nothing was published, the rules in force stay",
    ]
    assert read_rules(rule_topic, TIMEOUT_S) == before


def test_prune_retires_what_is_in_no_file(rule_topic: str, rules_file: Path) -> None:
    other = AlarmRule("other", 3, "x", "y", (Limit(0, above=1.0),))
    publish_rules(rule_topic, [other])
    kept = run(rule_topic, "apply", rules_file)
    assert "in none of the files (--prune retires them): other" in kept.output
    assert versions(rule_topic)["other"] == (3, False)
    pruned = run(rule_topic, "apply", rules_file, "--prune")
    assert pruned.output == "- other: retired (version 3 → 4)\n1 retired, 2 unchanged\n"
    assert versions(rule_topic)["other"] == (4, True)


def test_list_shows_what_is_in_force(rule_topic: str, rules_file: Path) -> None:
    assert "no rules are in force" in run(rule_topic, "list").output
    run(rule_topic, "apply", rules_file)
    publish_rules(rule_topic, [AlarmRule("gone", 2, "x", "y", (Limit(0, above=1.0),), retired=True)])
    table = run(rule_topic, "list").output
    assert all(text in table for text in ("cold", "hot", "press-*", "critical > 100", "on 2 s"))
    assert "gone" not in table
    listed = json.loads(run(rule_topic, "list", "--json", "--retired").output)
    assert [(rule["id"], rule["version"], rule["retired"]) for rule in listed] == [
        ("cold", 1, False),
        ("gone", 2, True),
        ("hot", 1, False),
    ]
    assert listed[2]["limits"] == {
        "critical": {"above": 100.0, "deadband": 2.0},
        "high": {"above": 90.0, "deadband": 2.0},
    }


def test_a_missing_topic_is_one_line(rules_kafka: str, rules_file: Path) -> None:
    for command in (["apply", rules_file], ["diff", rules_file], ["list"]):
        result = run(rules_kafka, *command)
        assert result.exit_code == 1
        assert len(result.output.splitlines()) == 1
        assert "no topic alarms.rules" in result.output


def test_validate_needs_no_kafka(rules_file: Path) -> None:
    assert CliRunner().invoke(app, ["validate", str(rules_file)]).output == "2 rules, valid\n"
    rules_file.write_text(TWO.replace("id: cold", "id: hot"))
    refused = CliRunner().invoke(app, ["validate", str(rules_file)])
    assert refused.exit_code == 1
    assert f"{rules_file}:8: rule 'hot' is already at line 2" in refused.output

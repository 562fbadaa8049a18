"""Rule files on data that stay away: what is taken, and every refusal with its line and reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from plantwire.domain.rule_book import is_sound
from plantwire.schemas.codec import RULE_CODEC
from plantwire.schemas.records import AlarmRule, Missing
from plantwire.schemas.rule_files import Refused, parse_rules
from plantwire.stack import rules_cli
from plantwire.stack.rule_plan import describe_change, describe_missing, plan_rules
from plantwire.stack.rules_cli import rule_to_json

LOST = """\
rules:
  - id: lost
    devices: "press-*"
    metric: "temp*"
    missing:
      high: {after_s: 60}
      critical: {after_s: 600}
    message: "{device} {metric} {after_s} {severity} {rule} {site}"
"""
DEVICE = """\
rules:
  - id: silent
    devices: "*"
    missing:
      medium: {after_s: 1}
"""


def rule_of(text: str) -> AlarmRule:
    parsed = parse_rules(text, "r.yaml")
    assert not isinstance(parsed, Refused), [str(p) for p in parsed.problems]
    (rule,) = parsed
    return rule


def problems_of(text: str) -> list[tuple[int, str]]:
    parsed = parse_rules(text, "r.yaml")
    assert isinstance(parsed, Refused)
    return [(p.line, p.reason) for p in parsed.problems]


def test_a_metric_that_stays_away_most_severe_first() -> None:
    assert rule_of(LOST) == AlarmRule(
        "lost",
        0,
        "press-*",
        "temp*",
        (),
        message="{device} {metric} {after_s} {severity} {rule} {site}",
        missing=(Missing(0, 600_000), Missing(1, 60_000)),
    )


def test_a_rule_without_a_metric_is_about_the_device() -> None:
    rule = rule_of(DEVICE)
    assert (rule.metric, rule.missing) == ("", (Missing(2, 1000),))
    assert rule.message == "{device}: no data for {after_s} s"
    assert rule_of(DEVICE + "    metric: m\n").message == "{device} {metric}: no data for {after_s} s"


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        (
            "high: {after_s: 60}",
            "high: {after_s: 600}",
            6,
            "high after 600 s is not before critical after 600",
        ),
        ("high: {after_s: 60}", "high: {after_s: 0}", 6, "0; 1 to 2592000 are allowed"),
        ("high: {after_s: 60}", "high: {after_s: 2592001}", 6, "are allowed"),
        ("high: {after_s: 60}", "high: {after_s: 1.5}", 6, "must be a whole number"),
        ("high: {after_s: 60}", "high: {after_s: 1e3}", 6, "must be a whole number"),
        ("high: {after_s: 60}", "high: {after_ms: 60}", 6, "did you mean 'after_s'?"),
        ("high: {after_s: 60}", "high: {}", 6, "lacks 'after_s'"),
        ("high: {after_s: 60}", "high: 60", 6, "must be a mapping"),
        ("high: {after_s: 60}", "after_s: 60", 6, "has no key 'after_s'"),
        ("high: {after_s: 60}", "limits: {high: {above: 1}}", 6, "has no key 'limits'"),
        ('metric: "temp*"', 'metric: "temp["', 4, "never closed"),
        ('metric: "temp*"', "on_delay_ms: 5", 4, "takes no 'on_delay_ms'"),
        ('metric: "temp*"', "off_delay_ms: 0", 4, "takes no 'off_delay_ms'"),
        ("{after_s} {severity}", "{value}", 8, "'{value}', which is no placeholder; it takes {device}"),
        ("{after_s} {severity}", "{limit}", 8, "'{limit}'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(old: str, new: str, line: int, reason: str) -> None:
    assert old in LOST
    found = problems_of(LOST.replace(old, new))
    assert (line, True) in [(at, reason in text) for at, text in found], found


def test_nothing_and_both_are_refused() -> None:
    both = LOST + "    limits: {high: {above: 1}}\n"
    assert [(at, "make it two rules" in text) for at, text in problems_of(both)] == [(6, True)]
    assert "has no severity" in problems_of(DEVICE.replace("\n      medium: {after_s: 1}", " {}"))[0][1]
    neither = problems_of("rules:\n  - id: r\n    devices: a\n    metric: m\n")
    assert neither == [(2, "a rule lacks 'limits', or 'missing' in its place")]
    # The metric of a rule that has none cannot be told.
    assert "'{metric}'" in problems_of(DEVICE + '    message: "{metric}"\n')[0][1]
    assert (
        "'{after_s}'"
        in problems_of(
            'rules:\n- {id: r, devices: a, metric: m, limits: {low: {above: 1}}, message: "{after_s}"}'
        )[0][1]
    )


@given(
    st.dictionaries(
        st.sampled_from(["critical", "high", "medium", "low", "info"]), st.integers(-5, 3_000_000)
    )
)
def test_what_is_taken_can_be_evaluated_and_published(after_s: dict[str, int]) -> None:
    lines = "".join(f"      {name}: {{after_s: {number}}}\n" for name, number in after_s.items())
    parsed = parse_rules(f"rules:\n  - id: r\n    devices: a\n    missing:\n{lines}", "r.yaml")
    if not isinstance(parsed, Refused):
        (rule,) = parsed
        assert is_sound(rule)
        assert RULE_CODEC.decode(RULE_CODEC.encode(rule)) == rule
        times = [missing.after_ms for missing in rule.missing]
        assert times == sorted(times, reverse=True)


def test_a_change_and_a_listing_tell_it() -> None:
    before = rule_of(LOST)
    wanted = rule_of(LOST.replace("600", "900"))
    (change,) = plan_rules({"lost": before}, [wanted], prune=False).changes
    assert describe_change(change) == [
        "missing: critical after 600 s, high after 60 s → critical after 900 s, high after 60 s"
    ]
    assert describe_missing(()) == ""
    listed = rule_to_json(before)
    assert listed["missing"] == {"critical": {"after_s": 600}, "high": {"after_s": 60}}
    assert listed["metric"] == "temp*"
    assert not {"limits", "on_delay_ms"} & listed.keys()
    assert "metric" not in rule_to_json(rule_of(DEVICE))


def test_the_table_of_rules_says_after_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        rules_cli, "read_rules", lambda *_: {"lost": rule_of(LOST), "silent": rule_of(DEVICE)}
    )
    table = (
        CliRunner().invoke(rules_cli.app, ["list", "--kafka", "127.0.0.1:1"], env={"COLUMNS": "200"}).output
    )
    for text in ("missing: critical after 600 s", "missing: high after 60 s", "missing: medium after 1 s"):
        assert text in table

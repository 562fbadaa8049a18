"""Rule files: what is taken, and every refusal with its line and reason."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantwire.schemas.records import AlarmRule, Limit
from plantwire.schemas.rule_files import PLACEHOLDERS, Refused, parse_rule_files, parse_rules
from plantwire.schemas.rule_yaml import FILE_MAX_CHARACTERS

PRESS = """\
rules:
  - id: over-temperature
    devices: "press-*"
    metric: temperature
    limits:
      high:     {above: 90,  deadband: 2}
      critical: {above: 100, deadband: 2}
    on_delay_ms: 0
    off_delay_ms: 1500
    message: "{device} {metric} at {value}, limit {limit}"
"""


def rules_of(text: str) -> list[AlarmRule]:
    parsed = parse_rules(text, "r.yaml")
    assert not isinstance(parsed, Refused), [str(p) for p in parsed.problems]
    return parsed


def problems_of(text: str) -> list[tuple[int, str]]:
    parsed = parse_rules(text, "r.yaml")
    assert isinstance(parsed, Refused)
    assert parsed.problems
    return [(p.line, p.reason) for p in parsed.problems]


def with_limits(*lines: str) -> str:
    body = "\n".join(f"      {line}" for line in lines)
    return f"rules:\n  - id: r\n    devices: a\n    metric: m\n    limits:\n{body}\n"


def test_the_form_of_the_contract_is_taken() -> None:
    assert rules_of(PRESS) == [
        AlarmRule(
            rule_id="over-temperature",
            version=0,
            devices="press-*",
            metric="temperature",
            limits=(Limit(0, above=100.0, deadband=2.0), Limit(1, above=90.0, deadband=2.0)),
            off_delay_ms=1500,
            message="{device} {metric} at {value}, limit {limit}",
        )
    ]


def test_limits_come_most_severe_first_whatever_the_order_in_the_file() -> None:
    (rule,) = rules_of(
        with_limits(
            "info: {above: 1}",
            "low: {above: 2}",
            "critical: {above: 5}",
            "high: {above: 4}",
            "medium: {above: 3}",
        )
    )
    assert [limit.severity for limit in rule.limits] == [0, 1, 2, 3, 4]


def test_both_sides_with_a_deadband_inside_the_band() -> None:
    (rule,) = rules_of(with_limits("high: {below: -5.5, above: 1e2, deadband: 105.4}"))
    assert rule.limits == (Limit(1, above=100.0, below=-5.5, deadband=105.4),)


def test_an_empty_list_is_no_rules() -> None:
    assert rules_of("rules: []") == []


@pytest.mark.parametrize(
    ("limits", "line", "reason"),
    [
        (
            ["high: {above: 100}", "critical: {above: 90}"],
            6,
            "high above 100 is not less than critical above 90",
        ),
        (["high: {above: 90}", "critical: {above: 90}"], 6, "is not less than"),
        (["critical: {below: 10}", "low: {below: 5}"], 7, "low below 5 is not more than critical below 10"),
        (["high: {below: 90, above: 90}"], 6, "below 90 is not less than above 90"),
        (["high: {below: 95}", "critical: {above: 90}"], 6, "leave no normal value"),
        (["high: {deadband: 2}"], 6, "neither 'above' nor 'below'"),
        (["high: {above: 9, deadband: -1}"], 6, "negative"),
        (["high: {above: 9, below: 5, deadband: 4}"], 6, "would never clear"),
        (["high: {above: .nan}"], 6, "must be finite"),
        (["high: {above: -.inf}"], 6, "must be finite"),
        (["high: {above: 1e999}"], 6, "too large"),
        (["high: {above: '90'}"], 6, "without quotes"),
        (["high: {above: 1:30}"], 6, "must be a number"),
        (["high: {above: 012}"], 6, "must be a number"),
        (["high: {above: 1_000}"], 6, "must be a number"),
        (["high: {above: true}"], 6, "must be a number"),
        (["high: {above: [1]}"], 6, "not a list"),
        (["high: {abov: 1}"], 6, "did you mean 'above'?"),
        (["hihg: {above: 1}"], 6, "did you mean 'high'?"),
        (["high: {above: 1}", "high: {above: 2}"], 7, "twice, first at line 6"),
        (["high: 90"], 6, "must be a mapping"),
        (["{}"], 6, "has no limit"),
    ],
)
def test_a_wrong_limit_is_named_with_its_line(limits: list[str], line: int, reason: str) -> None:
    assert [(found, reason in text) for found, text in problems_of(with_limits(*limits))] == [(line, True)]


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("id: over-temperature", "id: 12", 2, "put '12' in quotes"),
        ("id: over-temperature", "id: a/b", 2, "'id' takes"),
        ("id: over-temperature", f"id: {'x' * 65}", 2, "65 characters"),
        ("id: over-temperature", "name: x", 2, "has no key 'name'"),
        ('devices: "press-*"', "", 2, "lacks 'devices'"),
        ('devices: "press-*"', "devices: *", 3, "needs quotes"),
        ('devices: "press-*"', "devices: *x", 3, "needs quotes"),
        ('devices: "press-*"', 'devices: "press/+"', 3, "in no device id"),
        ('devices: "press-*"', 'devices: "press-[12"', 3, "never closed"),
        ('devices: "press-*"', 'devices: "press-[]"', 3, "never closed"),
        ('devices: "press-*"', 'devices: "press-[9-1]"', 3, "runs backwards"),
        ('devices: "press-*"', 'devices: ""', 3, "0 characters"),
        ('devices: "press-*"', "devices: [a, b]", 3, "must be text, not a list"),
        ("metric: temperature", "metric: ~", 4, "put '~' in quotes"),
        ("metric: temperature", 'metric: "a\\u0007"', 4, "control character"),
        ("on_delay_ms: 0", "on_delay_ms: -1", 8, "-1; 0 to"),
        ("on_delay_ms: 0", "on_delay_ms: 1.5", 8, "whole number"),
        ("on_delay_ms: 0", "on_delay_ms: 99999999999", 8, "are allowed"),
        ("on_delay_ms: 0", "on_dealy_ms: 1", 8, "did you mean 'on_delay_ms'?"),
        ("at {value}", "at {wert}", 10, "'{wert}'"),
        ("at {value}", "at {value.__class__}", 10, "no placeholder"),
        ("at {value}", "at {value:.1f}", 10, "no placeholder"),
        ("at {value}", "at {value", 10, "no placeholder"),
        ("at {value}", "at {}", 10, "no placeholder"),
        ("at {value}", "x" * 500, 10, "characters"),
        ("id: over-temperature", "id: &a over", 2, "anchors"),
        ("id: over-temperature", "id: !!python/object:os.system x", 2, "tags"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(old: str, new: str, line: int, reason: str) -> None:
    assert old in PRESS
    found = problems_of(PRESS.replace(old, new))
    assert (line, True) in [(at, reason in text) for at, text in found], found


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("rules:\n  - id: [", 2, "not YAML"),
        ("a: 1\n b: 2", 2, "not YAML"),
        ("\n- x", 2, "must be a mapping"),
        ("rules: {}", 1, "must be a list"),
        ("rules: []\nruels: []", 2, "did you mean 'rules'?"),
        ("rules: []\nrules: []", 2, "twice"),
        ("rules:\n- 1", 2, "a rule must be a mapping"),
        ("rules: []\n---\nrules: []", 2, "one document"),
        ("rules:\n\x00", 2, "U+0000"),
        ("a:\n  '\ud800'", 2, "U+D800"),
        ('a:\n  "\\UFFFFFFFF"', 2, "escape"),
        ("? [a]\n: b", 1, "must be a word"),
        ("rules: " + "[" * 5000, 1, "levels deep"),
        ("x" * (FILE_MAX_CHARACTERS + 1), 1, "are the most"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(text: str, line: int, reason: str) -> None:
    assert (line, True) in [(at, reason in found) for at, found in problems_of(text)]


def test_an_alias_bomb_is_refused_where_it_begins() -> None:
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nrules: [*b, *b]\n"
    assert [line for line, reason in problems_of(bomb) if "anchors" in reason] == [1]


def test_every_problem_of_a_file_is_told_at_once() -> None:
    text = textwrap.dedent("""\
        rules:
          - id: a
            devices: "x/"
            metric: m
            limits: {high: {above: nan}}
          - id: b
            devices: x
            limits: {high: {above: 1}}
    """)
    assert [line for line, _ in problems_of(text)] == [3, 5, 6]


def test_an_id_is_taken_once_over_all_files() -> None:
    parsed = parse_rule_files([("a.yaml", PRESS), ("b.yaml", "\n\n" + PRESS)])
    assert isinstance(parsed, Refused)
    assert [str(p) for p in parsed.problems] == ["b.yaml:4: rule 'over-temperature' is already at a.yaml:2"]


def test_one_wrong_file_refuses_the_others_too() -> None:
    assert isinstance(parse_rule_files([("a.yaml", PRESS), ("b.yaml", "rules: 1")]), Refused)


FRAGMENTS = [
    "rules:",
    "\n",
    "  ",
    "- ",
    "id: ",
    "devices: ",
    "metric: ",
    "limits: ",
    "critical",
    "high",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "above",
    "below",
    "deadband",
    "&a ",
    "*a ",
    "!!x ",
    ">",
    "|",
    "'",
    '"',
    "\\U",
    "%",
    "---",
    "...",
    "?",
    ",",
    "1",
    "-1",
    ".nan",
    "1e999",
    "message: ",
    "{value}",
    "#",
    "\t",
    "\r",
    "\x85",
    "\u2028",
    "\ufeff",
    "<<",
    "=",
    "~",
]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)))
def test_no_text_makes_it_raise(text: str) -> None:
    parsed = parse_rules(text, "f")
    if isinstance(parsed, Refused):
        assert parsed.problems
        assert all(p.line >= 1 and p.reason.isprintable() for p in parsed.problems)


def _numbers() -> st.SearchStrategy[float]:
    return st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def _limit_lines(draw: st.DrawFn) -> Iterable[str]:
    names = draw(
        st.lists(st.sampled_from(["critical", "high", "medium", "low", "info"]), unique=True, min_size=1)
    )
    lines = []
    for name in names:
        sides = draw(st.dictionaries(st.sampled_from(["above", "below", "deadband"]), _numbers(), max_size=3))
        inner = ", ".join(f"{side}: {value!r}" for side, value in sides.items())
        lines.append(f"{name}: {{{inner}}}")
    return lines


@settings(max_examples=200, deadline=None)
@given(_limit_lines())
def test_whatever_is_accepted_can_both_raise_and_clear(lines: Iterable[str]) -> None:
    parsed = parse_rules(with_limits(*lines), "f")
    if isinstance(parsed, Refused):
        return
    (rule,) = parsed
    assert list(rule.limits) == sorted(rule.limits, key=lambda limit: limit.severity)
    lowest_high = min((x.above for x in rule.limits if x.above is not None), default=math.inf)
    highest_low = max((x.below for x in rule.limits if x.below is not None), default=-math.inf)
    assert highest_low < lowest_high
    for limit in rule.limits:
        assert limit.above is not None or limit.below is not None
        if limit.above is not None and limit.below is not None:
            assert 0 <= limit.deadband < limit.above - limit.below


@given(st.lists(st.sampled_from([f"{{{name}}}" for name in PLACEHOLDERS] + ["x", " ", ": "]), min_size=1))
def test_every_known_placeholder_is_taken(parts: list[str]) -> None:
    message = "x" + "".join(parts)
    text = with_limits("high: {above: 1}") + f'    message: "{message}"\n'
    assert rules_of(text)[0].message == message

"""Pattern files: what is taken, and every refusal with its line and reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.domain.patterns import matches_sql
from plantwire.schemas.pattern_files import (
    DEFAULT_MESSAGES,
    PATTERNS_MAX,
    parse_pattern_files,
    parse_patterns,
)
from plantwire.schemas.patterns import Pattern, RiseThenDrop, Spikes, Stuck, is_pattern_alarm
from plantwire.schemas.rule_files import Refused

WHOLE = """\
patterns:
  - id: collapse
    version: 2
    devices: "press-*"
    metric: pressure
    severity: critical
    rise_then_drop: {rises: 5, drop_percent: 10, within_s: 120}
    hold_s: 60
    message: "{device} {metric} fell to {value}, {limit}"
"""


def patterns_of(text: str) -> list[Pattern]:
    parsed = parse_patterns(text, "p.yaml")
    assert not isinstance(parsed, Refused), [str(problem) for problem in parsed.problems]
    return parsed


def problems_of(text: str) -> list[tuple[int, str]]:
    parsed = parse_patterns(text, "p.yaml")
    assert isinstance(parsed, Refused)
    assert parsed.problems
    return [(problem.line, problem.reason) for problem in parsed.problems]


def with_shape(*lines: str) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"patterns:\n  - id: p\n    version: 1\n    devices: a\n    metric: m\n    severity: low\n{body}"


def test_a_whole_pattern_is_taken() -> None:
    assert patterns_of(WHOLE) == [
        Pattern(
            "collapse",
            2,
            "press-*",
            "pressure",
            0,
            "{device} {metric} fell to {value}, {limit}",
            RiseThenDrop(5, 120, drop_percent=10.0),
            60,
        )
    ]


@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("rise_then_drop: {rises: 2, drop_by: 0.5, within_s: 3600}", RiseThenDrop(2, 3600, drop_by=0.5)),
        ("spikes: {count: 3, above: 90, within_s: 60}", Spikes(3, 60, above=90.0)),
        ("spikes: {count: 2, below: -1e3, within_s: 1}", Spikes(2, 1, below=-1000.0)),
        ("spikes: {count: 100, change: 5, within_s: 60}", Spikes(100, 60, change=5.0)),
        ("stuck: {for_s: 600}", Stuck(600, 2)),
        ("stuck: {for_s: 1, samples: 10}", Stuck(1, 10)),
    ],
)
def test_each_shape_is_taken_with_its_defaults(line: str, shape: RiseThenDrop | Spikes | Stuck) -> None:
    (pattern,) = patterns_of(with_shape(line))
    assert pattern.shape == shape
    assert pattern.hold_s == 300
    assert pattern.message == DEFAULT_MESSAGES[line.split(":")[0]]
    assert is_pattern_alarm(pattern.rule_id)


def test_patterns_come_in_the_order_of_their_ids() -> None:
    entry = "  - {{id: {}, version: 1, devices: a, metric: m, severity: low, stuck: {{for_s: 1}}}}\n"
    text = "patterns:\n" + "".join(entry.format(name) for name in ("b", "a", "c"))
    assert [pattern.pattern_id for pattern in patterns_of(text)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("lines", "line", "reason"),
    [
        ([], 2, "takes one of 'rise_then_drop', 'spikes', 'stuck'; it has none of them"),
        (
            ["stuck: {for_s: 1}", "spikes: {count: 2, above: 1, within_s: 1}"],
            2,
            "it has 'spikes' and 'stuck'",
        ),
        (["stuk: {for_s: 1}"], 7, "did you mean 'stuck'?"),
        (["stuck: 5"], 7, "must be a mapping"),
        (["stuck: {}"], 7, "lacks 'for_s'"),
        (["stuck: {for_s: 0}"], 7, "1 to 86400 are allowed"),
        (["stuck: {for_s: 1.5}"], 7, "whole number"),
        (["stuck: {for_s: 1, samples: 1}"], 7, "2 to 1000000 are allowed"),
        (["stuck: {for_s: 1}", "hold_s: 5"], 8, "clears when it moves"),
        (["spikes: {count: 3, within_s: 60}"], 7, "one of 'above', 'below', 'change'; it has none of them"),
        (["spikes: {count: 3, above: 1, below: 2, within_s: 60}"], 7, "it has 'above' and 'below'"),
        (["spikes: {count: 1, above: 1, within_s: 60}"], 7, "2 to 100 are allowed"),
        (["spikes: {count: 3, above: .nan, within_s: 60}"], 7, "must be finite"),
        (["spikes: {count: 3, above: 1e999, within_s: 60}"], 7, "too large"),
        (["spikes: {count: 3, above: '1 OR 1=1', within_s: 60}"], 7, "without quotes"),
        (["spikes: {count: 3, change: 0, within_s: 60}"], 7, "must be more than 0"),
        (["spikes: {count: 3, above: 1, within_s: 3601}"], 7, "1 to 3600 are allowed"),
        (["rise_then_drop: {rises: 5, within_s: 60}"], 7, "one of 'drop_percent', 'drop_by'"),
        (["rise_then_drop: {rises: 5, drop_percent: -1, within_s: 60}"], 7, "must be more than 0"),
        (["rise_then_drop: {rises: 1, drop_by: 1, within_s: 60}"], 7, "2 to 1000 are allowed"),
        (["rise_then_drop: {drop_by: 1}"], 7, "lacks 'rises'"),
        (["stuck: {for_s: 1}", "message: '{nothing}'"], 8, "is no placeholder"),
        (["stuck: {for_s: 1}", "hold_s: x"], 8, "whole number"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(lines: list[str], line: int, reason: str) -> None:
    assert (line, True) in [(found, reason in text) for found, text in problems_of(with_shape(*lines))]


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("id: collapse", "id: 'a b'", "letters, digits"),
        ("id: collapse", 'id: "x\'; DROP TABLE y"', "letters, digits"),
        ("version: 2", "version: 0", "1 to 2147483647 are allowed"),
        ("version: 2", "version: two", "whole number"),
        ('"press-*"', '"press-\'*"', "no device id"),
        ('"press-*"', '"press-["', "never closed"),
        ("severity: critical", "severity: severe", "it takes critical, high, medium, low, info"),
        ("    severity: critical\n", "", "lacks 'severity'"),
        ("patterns:", "rules:", "has no key 'rules'"),
    ],
)
def test_the_rest_of_a_pattern_is_checked_too(before: str, after: str, reason: str) -> None:
    assert before in WHOLE
    assert any(reason in text for _, text in problems_of(WHOLE.replace(before, after)))


def test_an_id_occurs_once_over_all_files() -> None:
    parsed = parse_pattern_files([("a.yaml", WHOLE), ("b.yaml", WHOLE)])
    assert isinstance(parsed, Refused)
    assert [str(problem) for problem in parsed.problems] == [
        "b.yaml:2: pattern 'collapse' is already at a.yaml:2"
    ]


def test_there_are_not_more_than_a_job_can_carry() -> None:
    entry = "  - {{id: p{}, version: 1, devices: a, metric: m, severity: low, stuck: {{for_s: 1}}}}\n"
    text = "patterns:\n" + "".join(entry.format(number) for number in range(PATTERNS_MAX + 1))
    assert problems_of(text) == [(PATTERNS_MAX + 2, f"more than {PATTERNS_MAX} patterns")]


def test_an_empty_file_is_refused_and_an_empty_list_is_none() -> None:
    assert problems_of("") == [(1, "the file is empty; it must have 'patterns:'")]
    assert patterns_of("patterns: []") == []


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    for whole in (
        text,
        f"patterns:\n  - {text}",
        with_shape(f"spikes: {{count: 2, within_s: 1, above: {text}}}"),
    ):
        parsed = parse_patterns(whole, "p.yaml")
        assert isinstance(parsed, Refused) or not parsed or matches_sql(parsed)

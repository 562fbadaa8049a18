"""The file that says what is scored: what is taken, and every refusal with its line and reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.domain.anomaly.plan import ScoringPlan
from plantwire.schemas.rule_files import Refused
from plantwire.schemas.scoring_files import ScoringEntry, parse_scoring

GOOD = """\
scoring:
  - {devices: "press-*", metric: temperature, memory: 20000}
  - {devices: "p*", metric: "t*"}
"""


def test_the_first_entry_that_matches_counts() -> None:
    entries = parse_scoring(GOOD, "s.yaml")
    assert entries == (ScoringEntry("press-*", "temperature", 20_000), ScoringEntry("p*", "t*", 8_000))
    plan = ScoringPlan(entries)
    press, pump = plan.for_device("press-1"), plan.for_device("pump-1")
    assert press is not None
    assert pump is not None
    assert [press(name) for name in ("temperature", "torque", "flow")] == [20_000, 8_000, None]
    assert [pump(name) for name in ("temperature", "flow")] == [8_000, None]
    assert plan.for_device("tank-1") is None


def test_scores_are_never_scored() -> None:
    everything = ScoringPlan([ScoringEntry("*", "*"), ScoringEntry("*", "anomaly/*")]).for_device("press-1")
    assert everything is not None
    assert everything("anomaly/level/temperature") is None
    assert everything("anomaly") == 8_000


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ('{devices: "*"}', "lacks 'metric'"),
        ('{metric: "*"}', "lacks 'devices'"),
        ('{devices: "*", metric: "*", memroy: 1000}', "did you mean 'memory'"),
        ('{devices: "*", metric: "*", memory: 599}', "allowed"),
        ('{devices: "*", metric: "*", memory: 10000001}', "allowed"),
        ('{devices: "*", metric: "*", memory: 1e4}', "whole number"),
        ('{devices: "a/b", metric: "*"}', "no device id"),
        ('{devices: "[", metric: "*"}', "["),
        ("7", "mapping"),
    ],
)
def test_what_is_wrong_is_refused_with_line_and_reason(entry: str, reason: str) -> None:
    refused = parse_scoring(f'scoring:\n  - {{devices: "*", metric: "*"}}\n  - {entry}\n', "s.yaml")
    assert isinstance(refused, Refused)
    (problem,) = refused.problems
    assert (problem.file, problem.line) == ("s.yaml", 3)
    assert reason in problem.reason


@pytest.mark.parametrize("text", ["", "scoring:\n", "rules: []\n", "scoring: {a: 1}\n", "- 1\n"])
def test_other_files_are_refused(text: str) -> None:
    assert isinstance(parse_scoring(text, "s.yaml"), Refused)


def test_no_more_entries_than_the_bound() -> None:
    text = "scoring:\n" + '  - {devices: "*", metric: "*"}\n' * 1_001
    refused = parse_scoring(text, "s.yaml")
    assert isinstance(refused, Refused)
    assert "1,000 in a file are the most" in refused.problems[0].reason


@given(st.text(alphabet="scoring: -{}[]\"'*,devicesmetricmemory0123\n\t&!#é", max_size=200))
def test_no_text_raises(text: str) -> None:
    parse_scoring(text, "s.yaml")

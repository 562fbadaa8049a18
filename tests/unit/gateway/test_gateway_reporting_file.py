"""The file of deadbands: what is taken, and every refusal with its line and reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.domain.report_by_exception import Deadband, DeadbandBook
from plantwire.gateway.report_by_exception import read_reporting
from plantwire.gateway.reporting_file import parse_reporting
from plantwire.schemas.rule_files import Refused

GOOD = """\
reporting:
  - {devices: "press-*", metric: "vibration*", absolute: 0.5, max_silence_ms: 10000}
  - {devices: "press-*", metric: both, absolute: 2, percent: 5}
  - {devices: "press-*", metric: counter, max_silence_ms: 0}
  - {devices: "*", metric: "*"}
"""


def book_of(text: str) -> DeadbandBook:
    parsed = parse_reporting(text, "r.yaml")
    assert not isinstance(parsed, Refused), [str(problem) for problem in parsed.problems]
    return parsed


def problems_of(text: str) -> list[str]:
    parsed = parse_reporting(text, "r.yaml")
    assert isinstance(parsed, Refused)
    return [str(problem) for problem in parsed.problems]


def test_the_form_of_the_documentation_is_taken() -> None:
    of = book_of(GOOD).for_device("press-1")
    assert of is not None
    assert [of(name) for name in ("vibration-x", "both", "counter", "t")] == [
        Deadband(0.5, 0.0, 10_000),
        Deadband(2.0, 5.0, 60_000),
        Deadband(0.0, 10.0, 0),
        Deadband(0.0, 10.0, 60_000),
    ]


@pytest.mark.parametrize(
    ("entry", "line", "reason"),
    [
        ('{devices: "*"}', 2, "lacks 'metric'"),
        ('{metric: "*"}', 2, "lacks 'devices'"),
        ('{devices: "*", metric: "*", procent: 5}', 2, "did you mean 'percent'"),
        ('{devices: "*", metric: "*", percent: -1}', 2, "'percent' of the entry at line 2 is negative"),
        ('{devices: "*", metric: "*", percent: 1001}', 2, "1000 is the most"),
        ('{devices: "*", metric: "*", absolute: -0.1}', 2, "negative"),
        ('{devices: "*", metric: "*", absolute: .inf}', 2, "finite"),
        ('{devices: "*", metric: "*", max_silence_ms: 1.5}', 2, "whole number"),
        ('{devices: "*", metric: "*", max_silence_ms: 86400001}', 2, "allowed"),
        ('{devices: "a/b", metric: "*"}', 2, "no device id"),
        ('{devices: "[a", metric: "*"}', 2, "never closed"),
        ('{devices: "*", metric: "[z-a]"}', 2, "backwards"),
        ("press-1", 2, "must be a mapping"),
    ],
)
def test_a_wrong_entry_is_named(entry: str, line: int, reason: str) -> None:
    (problem,) = problems_of(f"reporting:\n  - {entry}\n")
    assert problem.startswith(f"r.yaml:{line}: ")
    assert reason in problem


def test_every_problem_is_told() -> None:
    text = 'reporting:\n  - {devices: "*"}\n  - {devices: "*", metric: a, percent: x}\n'
    assert [problem.split(":")[1] for problem in problems_of(text)] == ["2", "3"]


@pytest.mark.parametrize("text", ["", "reporting: 1", "rules: []", "[]", "reporting: [", "&a b"])
def test_what_is_no_such_file_is_refused(text: str) -> None:
    assert problems_of(text)


@given(st.text(max_size=200) | st.sampled_from([GOOD[:n] for n in range(len(GOOD))]))
def test_no_text_makes_it_raise(text: str) -> None:
    parse_reporting(text, "r.yaml")


def test_a_file_that_is_wrong_or_missing_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "reporting.yaml"
    with pytest.raises(SystemExit, match="PLANTWIRE_GATEWAY_REPORTING_FILE"):
        read_reporting(file)
    file.write_bytes(b"\xff")
    with pytest.raises(SystemExit, match="cannot be read"):
        read_reporting(file)
    file.write_text("reporting:\n  - {devices: a}\n")
    with pytest.raises(SystemExit, match=r"reporting\.yaml:2: an entry lacks 'metric'"):
        read_reporting(file)
    file.write_text(GOOD)
    assert read_reporting(file).for_device("press-1") is not None

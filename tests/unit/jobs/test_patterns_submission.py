"""Submitting the patterns job: a file that is missing or wrong is told before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from plantwire.jobs.main import submit_telemetry_patterns
from plantwire.jobs.settings import JobSettings


def refusal(path: Path | None) -> str:
    with pytest.raises(SystemExit) as refused:
        submit_telemetry_patterns(JobSettings(patterns=path), group="g")
    return str(refused.value)


def test_without_a_file_there_is_nothing_to_watch_for() -> None:
    assert "PLANTWIRE_PATTERNS is not set" in refusal(None)


def test_every_problem_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "patterns.yaml"
    file.write_text('patterns:\n  - {id: a}\n  - {id: b, devices: "*"}\n')
    lines = refusal(file).splitlines()
    assert {line.partition(": ")[0] for line in lines} == {f"{file}:2", f"{file}:3"}
    assert f"{tmp_path / 'none.yaml'}:1: cannot be read" in refusal(tmp_path / "none.yaml")


def test_a_file_without_patterns_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "patterns.yaml"
    file.write_text("patterns: []\n")
    assert "no pattern" in refusal(file)

"""Submitting the scoring job: a file that is missing or wrong is told before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from plantwire.jobs.main import submit_anomaly_scoring
from plantwire.jobs.settings import JobSettings


def refusal(file: Path | None) -> str:
    with pytest.raises(SystemExit) as refused:
        submit_anomaly_scoring(JobSettings(scoring_file=file), group="g")
    return str(refused.value)


def test_without_a_file_there_is_nothing_to_score() -> None:
    assert "PLANTWIRE_SCORING_FILE is not set" in refusal(None)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert refusal(missing) == f"{missing}:1: cannot be read: No such file or directory"
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "bytes.yaml:1: not UTF-8" in refusal(tmp_path / "bytes.yaml")
    assert f"{tmp_path}:1: a folder" in refusal(tmp_path)


def test_every_problem_of_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "scoring.yaml"
    file.write_text('scoring:\n  - {devices: "*"}\n  - {devices: "*", metric: "*", memory: 1}\n')
    lines = refusal(file).splitlines()
    assert [line.startswith(f"{file}:{n}: ") for n, line in enumerate(lines, 2)] == [True, True]

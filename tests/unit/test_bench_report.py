"""Targets hold when they say so; the file is what a reader of the contract expects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.report import Report, Target, above, at_least, at_most, below, write_report


@pytest.mark.parametrize(
    ("target", "holds"),
    [
        (at_most("lost", 0, 0), True),
        (at_most("lost", 1, 0), False),
        (below("p99", 99.9, 100), True),
        (below("p99", 100, 100), False),
        (at_least("knee", 500, 500), True),
        (at_least("knee", 499, 500), False),
        (above("ratio", 1.01, 1), True),
        (above("ratio", 1, 1), False),
    ],
)
def test_a_target_holds_or_does_not(target: Target, holds: bool) -> None:
    assert target.holds is holds


def test_the_file_has_the_fields_of_the_contract(tmp_path: Path) -> None:
    report = Report(
        bench="example",
        finished_at="2026-01-01T00:00:00+00:00",
        commit="abc",
        machine={"cores": 2},
        versions={"python": "3.11"},
        parameters={},
        figures={},
        ratios={"ours / theirs": 1.1},
        targets=(below("p99", 80.0, 100.0, "ms"),),
    )
    path = write_report(report, tmp_path)
    assert path.name == "example.json"
    written = json.loads(path.read_text())
    assert written["targets"] == [
        {"name": "p99", "value": 80.0, "target": 100.0, "holds": True, "unit": "ms"}
    ]
    assert {"machine", "versions", "figures", "ratios"} <= written.keys()

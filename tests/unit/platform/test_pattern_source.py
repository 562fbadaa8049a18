"""Pattern files on disk, those of the project among them."""

from __future__ import annotations

from pathlib import Path

from plantwire.platform.pattern_source import load_patterns
from plantwire.schemas.rule_files import Refused
from plantwire.stack.settings import PROJECT


def test_the_patterns_of_the_project_are_sound() -> None:
    patterns = load_patterns([PROJECT / "patterns"])
    assert not isinstance(patterns, Refused), [str(problem) for problem in patterns.problems]
    assert [pattern.pattern_id for pattern in patterns] == [
        "flow-collapse",
        "temperature-stuck",
        "vibration-spikes",
    ]


def test_what_cannot_be_read_is_told_with_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("patterns: 1")
    refused = load_patterns([tmp_path / "a.yaml", tmp_path / "gone.yaml"])
    assert isinstance(refused, Refused)
    assert [str(problem).removeprefix(str(tmp_path)) for problem in refused.problems] == [
        "/a.yaml:1: 'patterns' must be a list (- item), not '1'",
        "/gone.yaml:1: cannot be read: No such file or directory",
    ]

"""Rule files and folders on disk. (Small files in a temporary folder; no server.)"""

from __future__ import annotations

from pathlib import Path

from plantwire.schemas.rule_files import Refused
from plantwire.stack.rule_sources import load_rules

RULE = "rules:\n  - {id: %s, devices: a, metric: m, limits: {high: {above: 1}}}\n"


def problems_of(*paths: Path) -> list[str]:
    loaded = load_rules(paths)
    assert isinstance(loaded, Refused)
    return [str(problem) for problem in loaded.problems]


def test_a_folder_stands_for_its_rule_files_by_name(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(RULE % "b")
    (tmp_path / "a.yaml").write_text("\ufeff" + RULE % "a", "utf-8")
    (tmp_path / "readme.md").write_text("no rules")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.yaml").write_text(RULE % "c")
    loaded = load_rules([tmp_path, tmp_path / "a.yaml"])
    assert not isinstance(loaded, Refused)
    assert [rule.rule_id for rule in loaded] == ["a", "b"]


def test_what_cannot_be_read_is_told_with_the_rest(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"rules: []\n# caf\xe9\n")
    (tmp_path / "large.yaml").write_bytes(b"#" * (1024 * 1024 + 1))
    (tmp_path / "wrong.yaml").write_text("rules: 1\n")
    found = problems_of(
        *(tmp_path / name for name in ("wrong.yaml", "empty", "missing.yaml", "latin.yaml", "large.yaml"))
    )
    assert found == [
        f"{tmp_path}/empty:1: the folder has no .yaml or .yml file",
        f"{tmp_path}/large.yaml:1: the file is longer than 1,048,576 bytes",
        f"{tmp_path}/latin.yaml:2: not UTF-8",
        f"{tmp_path}/missing.yaml:1: cannot be read: No such file or directory",
        f"{tmp_path}/wrong.yaml:1: 'rules' must be a list (- item), not '1'",
    ]

"""`plantwire patterns`: what it says, and when it fails."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from plantwire.stack.patterns_cli import app
from plantwire.stack.settings import PROJECT

GOOD = """\
patterns:
  - {id: a, version: 3, devices: "p*", metric: t, severity: high, spikes: {count: 3, above: 7.5, within_s: 9}}
  - {id: b, version: 1, devices: "*", metric: t, severity: low, stuck: {for_s: 60}}
  - id: c
    version: 1
    devices: "*"
    metric: t
    severity: low
    rise_then_drop: {rises: 5, drop_by: 2, within_s: 9}
"""


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_sound_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD)
    assert run("validate", str(tmp_path)) == (0, "3 patterns, valid\n", "")
    assert run("validate", str(PROJECT / "patterns"))[0] == 0


def test_each_pattern_is_described_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD)
    code, out, _ = run("show", str(tmp_path / "p.yaml"))
    assert code == 0
    assert out.splitlines() == [
        "a (version 3, high): p* t: 3 spikes above 7.5 within 9 s",
        "b (version 1, low): * t: the same number for 60 s, in 2 samples or more",
        "c (version 1, low): * t: 5 rises in a row, then 2 lower within 9 s of the top",
    ]


def test_the_sql_is_shown_on_request(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD)
    code, out, _ = run("show", "--sql", str(tmp_path))
    assert code == 0
    assert out.count("MATCH_RECOGNIZE (") == 2
    assert "REGEXP(`device_id`, '(?s)\\A\\x{70}.*\\z')" in out


def test_a_mistake_is_told_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(GOOD.replace("above: 7.5", "above: high"))
    for command in ("validate", "show"):
        code, out, err = run(command, str(file))
        assert (code, out) == (1, "")
        assert err.splitlines() == [
            f"{file}:2: 'above' of 'spikes' of pattern 'a' must be a number, not 'high'",
            "1 problem: not valid",
        ]

"""YAML files on disk, as texts: those of rules and of patterns.

In: paths of files and folders. Out: (name, text) of each file, and what cannot be read.
Guarantees: a folder stands for its *.yaml and *.yml files, in the order of their names, not for those
of its subfolders; a file that is missing, too large or not UTF-8 is a problem like any other.
Not here: what a file says (`schemas.rule_files`, `schemas.pattern_files`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from plantwire.schemas.rule_yaml import FILE_MAX_CHARACTERS, RuleProblem

SUFFIXES: Final = (".yaml", ".yml")
# UTF-8 takes at most four bytes a character: whatever is longer cannot pass the parser's own bound.
_FILE_MAX_BYTES: Final = 4 * FILE_MAX_CHARACTERS


def read_yaml_files(paths: Iterable[Path]) -> tuple[list[tuple[str, str]], list[RuleProblem]]:
    """The texts of all `paths`, each a file or a folder, by file name; and what is wrong with the others."""
    texts: list[tuple[str, str]] = []
    problems: list[RuleProblem] = []
    for path in _files(paths, problems):
        text = _read(path)
        if isinstance(text, RuleProblem):
            problems.append(text)
        else:
            texts.append((str(path), text))
    return texts, problems


def _files(paths: Iterable[Path], problems: list[RuleProblem]) -> list[Path]:
    files: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            files[path] = None
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and p.is_file())
        if not inside:
            problems.append(RuleProblem(str(path), 1, f"the folder has no {' or '.join(SUFFIXES)} file"))
        files.update(dict.fromkeys(inside))
    return list(files)


def _read(path: Path) -> str | RuleProblem:
    try:
        with path.open("rb") as file:
            body = file.read(_FILE_MAX_BYTES + 1)
    except OSError as error:
        return RuleProblem(str(path), 1, f"cannot be read: {error.strerror}")
    if len(body) > _FILE_MAX_BYTES:
        return RuleProblem(str(path), 1, f"the file is longer than {_FILE_MAX_BYTES:,} bytes")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return RuleProblem(str(path), body.count(b"\n", 0, error.start) + 1, "not UTF-8")

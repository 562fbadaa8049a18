"""The scoring file on disk.

In: the path of a file. Out: its entries, or `Refused`.
Guarantees: all or nothing; a file that cannot be read is a problem like any other.
Not here: what a file says (`schemas.scoring_files`).
"""

from __future__ import annotations

from pathlib import Path

from plantwire.platform.yaml_files import read_yaml_files
from plantwire.schemas.rule_files import Refused
from plantwire.schemas.rule_yaml import RuleProblem
from plantwire.schemas.scoring_files import ScoringEntry, parse_scoring


def load_scoring(file: Path) -> tuple[ScoringEntry, ...] | Refused:
    """The entries of `file`, in their order. It is one file, because of those that match the first counts."""
    if file.is_dir():
        return Refused((RuleProblem(str(file), 1, "a folder: the file in it has to be named"),))
    texts, problems = read_yaml_files([file])
    if problems:
        return Refused(tuple(problems))
    ((name, text),) = texts
    return parse_scoring(text, name)

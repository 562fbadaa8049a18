"""Pattern files on disk.

In: paths of files and folders. Out: the Patterns in them, or `Refused`.
Guarantees: all or nothing, over all files.
Not here: which files a folder stands for (`platform.yaml_files`), what one says (`schemas.pattern_files`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from plantwire.platform.yaml_files import read_yaml_files
from plantwire.schemas.pattern_files import parse_pattern_files
from plantwire.schemas.patterns import Pattern
from plantwire.schemas.rule_files import Refused


def load_patterns(paths: Iterable[Path]) -> list[Pattern] | Refused:
    """The patterns of all `paths`, each a file or a folder, in the order of their ids."""
    texts, problems = read_yaml_files(paths)
    parsed = parse_pattern_files(texts)
    if isinstance(parsed, Refused):
        problems.extend(parsed.problems)
    if problems or isinstance(parsed, Refused):
        return Refused(tuple(sorted(problems)))
    return parsed

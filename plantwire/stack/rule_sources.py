"""Rule files on disk.

In: paths of files and folders. Out: the AlarmRules in them, or `Refused`.
Guarantees: all or nothing, over all files.
Not here: which files a folder stands for (`platform.yaml_files`), what one says (`schemas.rule_files`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from plantwire.platform.yaml_files import read_yaml_files
from plantwire.schemas.records import AlarmRule
from plantwire.schemas.rule_files import Refused, parse_rule_files


def load_rules(paths: Iterable[Path]) -> list[AlarmRule] | Refused:
    """The rules of all `paths`, each a file or a folder, of version 0."""
    texts, problems = read_yaml_files(paths)
    parsed = parse_rule_files(texts)
    if isinstance(parsed, Refused):
        problems.extend(parsed.problems)
    if problems or isinstance(parsed, Refused):
        return Refused(tuple(sorted(problems)))
    return parsed

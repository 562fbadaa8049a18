"""YAML as positions and plain values: what a rule file may be made of, before it means anything.

In: any text. Out: a mapping or list node with line numbers, or problems with file and line.
Guarantees: nothing is constructed or evaluated; size and depth are bounded; aliases, anchors and tags
are refused, so that no text expands; never raises on any text.
Not here: what a rule is (`schemas.rule_files`).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import Final

import msgspec
import yaml

FILE_MAX_CHARACTERS: Final = 256 * 1024
DEPTH_MAX: Final = 8

_TEXT_TAG: Final = "tag:yaml.org,2002:str"
_PLAIN_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "seq", "map")
)
# Numbers as JSON writes them (a leading + and a bare fraction too): YAML 1.1 would read 1:30 as 90
# and 012 as 10, which no one who writes a limit means.
_NUMBER: Final = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?\Z")
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\Z")
_NOT_FINITE: Final = re.compile(r"[-+]?\.?(?:inf|infinity|nan)\Z", re.IGNORECASE)


class RuleProblem(msgspec.Struct, frozen=True, order=True):
    """What is wrong with a rule file, where; `line` counts from 1."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class NodeReader:
    """Reads the nodes of one file and collects what is wrong; a reading that fails returns None."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.problems: list[RuleProblem] = []

    def report(self, where: yaml.Node | int, reason: str) -> None:
        """Note a problem at a node, or at a line."""
        line = where if isinstance(where, int) else line_of(where)
        self.problems.append(RuleProblem(self._file, line, reason))

    def compose(self, text: str) -> yaml.Node | None:
        """The file's one document; None where it is empty or not acceptable YAML."""
        if len(text) > FILE_MAX_CHARACTERS:
            self.report(1, f"the file has {len(text):,} characters; {FILE_MAX_CHARACTERS:,} are the most")
            return None
        try:
            return yaml.compose(text, Loader=_BoundedLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.report(1 if mark is None else mark.line + 1, _yaml_reason(error))
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self.report(line, f"character U+{_code_point(error.character):04X} is not taken")
        except (ValueError, OverflowError):
            # PyYAML lets chr() fail on an escape such as "\UFFFFFFFF", without a mark.
            self.report(_line_of_long_escape(text), "an escape that is no character")
        return None

    def entries(
        self, text: str, key: str, *, noun: str = "entries", most: int | None = None
    ) -> list[yaml.Node]:
        """The items of a file that is `key: [...]` and nothing else, `most` of them at most; none where
        something is wrong with the whole, which is reported.
        """
        document = self.compose(text)
        if document is None:
            if not self.problems:
                self.report(1, f"the file is empty; it must have '{key}:'")
            return []
        top = self.mapping(document, "the file", known=(key,), required=(key,))
        items = self.items(top[key], f"'{key}'") if top and key in top else None
        if items and most is not None and len(items) > most:
            self.report(document, f"{len(items):,} {noun}; {most:,} in a file are the most")
            return []
        return items or []

    def mapping(
        self, node: yaml.Node, what: str, known: Iterable[str], required: Iterable[str] = ()
    ) -> dict[str, yaml.Node] | None:
        """The values of a mapping by key. Unknown, doubled and missing keys are reported."""
        if not isinstance(node, yaml.MappingNode):
            self.report(node, f"{what} must be a mapping (key: value), not {_kind(node)}")
            return None
        choices = sorted(known)
        entries: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.report(key, f"a key of {what} must be a word, not {_kind(key)}")
            elif key.value not in choices:
                self.report(key, f"{what} has no key {_short(key.value)}{_hint(key.value, choices)}")
            elif key.value in entries:
                first = line_of(entries[key.value])
                self.report(key, f"{what} has {key.value!r} twice, first at line {first}")
            else:
                entries[key.value] = value
        for key in required:
            if key not in entries:
                self.report(node, f"{what} lacks {key!r}")
        return entries

    def items(self, node: yaml.Node, what: str) -> list[yaml.Node] | None:
        """The items of a list."""
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        self.report(node, f"{what} must be a list (- item), not {_kind(node)}")
        return None

    def text(self, node: yaml.Node, what: str, max_characters: int) -> str | None:
        """A text of 1 to `max_characters` printable characters."""
        if not isinstance(node, yaml.ScalarNode):
            self.report(node, f"{what} must be text, not {_kind(node)}")
        elif node.tag != _TEXT_TAG:
            self.report(node, f"{what} must be text; put {_short(node.value)} in quotes")
        elif not 1 <= len(node.value) <= max_characters:
            size = len(node.value)
            self.report(node, f"{what} has {size} characters; 1 to {max_characters} are allowed")
        elif not node.value.isprintable():
            self.report(node, f"{what} has a control character or a line break")
        else:
            return str(node.value)
        return None

    def number(self, node: yaml.Node, what: str) -> float | None:
        """A finite number."""
        if (written := self._plain(node, what, "number")) is None:
            return None
        if _NUMBER.match(written):
            number = float(written)
            if math.isfinite(number):
                return number
            self.report(node, f"{what} is too large: {_short(written)}")
        elif _NOT_FINITE.match(written):
            self.report(node, f"{what} must be finite, not {_short(written)}")
        else:
            self.report(node, f"{what} must be a number, not {_short(written)}")
        return None

    def integer(self, node: yaml.Node, what: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`."""
        if (written := self._plain(node, what, "whole number")) is None:
            return None
        if not _INTEGER.match(written):
            self.report(node, f"{what} must be a whole number, not {_short(written)}")
        elif not low <= int(written) <= high:
            self.report(node, f"{what} is {int(written)}; {low} to {high} are allowed")
        else:
            return int(written)
        return None

    def _plain(self, node: yaml.Node, what: str, kind: str) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.report(node, f"{what} must be a {kind}, not {_kind(node)}")
        elif node.style is not None:
            self.report(node, f"{what} must be a {kind}, without quotes")
        else:
            return str(node.value)
        return None


class _BoundedLoader(yaml.SafeLoader):
    """Composes nodes only, and refuses on the way whatever could expand or nest without end."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases (*name) are not taken; a glob that starts with * needs quotes", event)
        if getattr(event, "anchor", None) is not None:
            raise _refusal("anchors (&name) are not taken", event)
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            raise _refusal("tags (!name) are not taken", event)
        if self._depth >= DEPTH_MAX:
            raise _refusal(f"more than {DEPTH_MAX} levels deep", event)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def line_of(node: yaml.Node) -> int:
    """The line of a node, from 1."""
    return int(node.start_mark.line) + 1


def _refusal(reason: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    mark = event.start_mark
    return yaml.MarkedYAMLError(problem=reason, problem_mark=mark if isinstance(mark, yaml.Mark) else None)


def _yaml_reason(error: yaml.MarkedYAMLError) -> str:
    if error.context == "while scanning an alias":
        return "aliases (*name) are not taken; a glob that starts with * needs quotes"
    if "found another document" in (error.problem or ""):
        return "one file holds one document; remove the --- between them"
    reason = " ".join(part for part in (error.context, error.problem) if part)
    return f"not YAML: {_printable(reason) or 'unreadable'}"


def _code_point(character: object) -> int:
    return character if isinstance(character, int) else ord(str(character)[:1] or "\0")


def _line_of_long_escape(text: str) -> int:
    found = re.search(r"\\U[0-9A-Fa-f]{8}", text)
    return 1 if found is None else text.count("\n", 0, found.start()) + 1


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "nothing" if node.value == "" else _short(node.value)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:300]


def _hint(word: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(word[:60].lower(), choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it takes {', '.join(choices)}"

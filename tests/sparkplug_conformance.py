"""`python -m tests.sparkplug_conformance` writes docs/sparkplug-conformance.md.

In: tests/sparkplug_assertions.yaml, and the `sparkplug` markers of all tests (read, not run). Out: the
document. Guarantees: raises `ConformanceError` where a marker names an unknown assertion or no plain text, or
where an assertion of the host has neither a test nor a reason, or both.
Not here: the tests.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
ASSERTIONS_FILE = ROOT / "tests" / "sparkplug_assertions.yaml"
DOCUMENT = ROOT / "docs" / "sparkplug-conformance.md"
PREFIX = "tck-id-"
MARKER = "sparkplug"

INTRODUCTION = """\
# Sparkplug B 3.0: what the standard asks, and what shows that it is so

Made from the markers of the tests by `python -m tests.sparkplug_conformance`: do not edit. The ids are those
of the assertions in the Sparkplug 3.0.0 specification (each with the prefix `tck-id-`), the words are ours.
An assertion is listed with the tests that prove it; `make test` runs them, those under `integration` with a
real MQTT broker and a real Kafka, and many of these with an edge node by another implementation, pysparkplug.

The gateway is a host application. It speaks MQTT 3.1.1 to one MQTT server, so what the standard asks of
MQTT 5.0 clients and of hosts with several servers does not apply. It is no MQTT server and no edge node; the
simulator's edge node is one, for trying things out.
"""


class ConformanceError(Exception):
    """The markers and the list of assertions do not fit together; the text says where."""


@dataclass(frozen=True, order=True)
class MarkedTest:
    """A test that carries the marker."""

    file: str
    name: str

    def link(self) -> str:
        return f"[{self.name.removeprefix('test_')}](../{self.file})"


def read_assertions() -> dict[str, Any]:
    """The list, as in its file."""
    listed: dict[str, Any] = yaml.safe_load(ASSERTIONS_FILE.read_text("utf-8"))
    return listed


def all_ids(listed: Mapping[str, Any]) -> list[str]:
    """Every assertion, without the prefix."""
    own = [assertion for section in listed["host"] for assertion in section["assertions"]]
    return own + [assertion for group in listed["others"] for assertion in group["ids"].split()]


def marked_tests(folder: Path) -> dict[str, list[MarkedTest]]:
    """Tests by assertion (without the prefix), from the source of all test files under `folder`."""
    found: dict[str, set[MarkedTest]] = {}
    for file in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        name = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else file.name
        for function, assertion in _marks(tree, name):
            found.setdefault(assertion, set()).add(MarkedTest(name, function))
    return {assertion: sorted(tests) for assertion, tests in found.items()}


def _marks(tree: ast.Module, file: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            if not _is_marker(decorator):
                continue
            if not isinstance(decorator, ast.Call) or decorator.keywords or not decorator.args:
                raise ConformanceError(f"{file}: {node.name}: the marker names no assertion")
            for argument in decorator.args:
                if not isinstance(argument, ast.Constant) or not str(argument.value).startswith(PREFIX):
                    raise ConformanceError(f"{file}: {node.name}: {ast.unparse(argument)} is no {PREFIX}…")
                yield node.name, str(argument.value).removeprefix(PREFIX)


def _is_marker(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(target, ast.Attribute) and target.attr == MARKER


def document(listed: Mapping[str, Any], tests: Mapping[str, list[MarkedTest]]) -> str:
    """The document's text; raises `ConformanceError`."""
    ids = all_ids(listed)
    tests = _as_anchored(tests, listed.get("spelt_too", {}))
    if doubled := sorted({one for one in ids if ids.count(one) > 1}):
        raise ConformanceError(f"listed twice: {', '.join(doubled)}")
    if unknown := sorted(tests.keys() - set(ids)):
        where = tests[unknown[0]][0]
        raise ConformanceError(f"unknown assertions: {', '.join(unknown)} ({where.file}, {where.name})")
    host = [line for section in listed["host"] for line in _host_section(section, tests)]
    others = [line for group in listed["others"] for line in _other_section(group, tests)]
    own = {one for section in listed["host"] for one in section["assertions"]}
    proven = len(own & tests.keys())
    lines = [
        INTRODUCTION,
        "",
        f"Of {len(ids)} assertions {len(own)} are for a host application: {proven} are shown by tests;",
        f"{len(own) - proven} do not apply, for the reason given (marked —).",
        "",
        "## For host applications",
        *host,
        "",
        "## For edge nodes and MQTT servers",
        "",
        "Not for a host to fulfil. Tests that carry one of these show what the host makes of messages that",
        "keep or break it, or that the simulator's edge node keeps it.",
        *others,
    ]
    return "\n".join(line.strip("\n") for line in lines) + "\n"


def _as_anchored(
    tests: Mapping[str, list[MarkedTest]], spelt_too: Mapping[str, str]
) -> dict[str, list[MarkedTest]]:
    anchored: dict[str, set[MarkedTest]] = {}
    for assertion, marked in tests.items():
        anchored.setdefault(spelt_too.get(assertion, assertion), set()).update(marked)
    return {assertion: sorted(marked) for assertion, marked in anchored.items()}


def _host_section(section: Mapping[str, Any], tests: Mapping[str, list[MarkedTest]]) -> Iterator[str]:
    yield from ("", f"### {section['title']}", "", "| assertion | asks | | shown by |", "|---|---|---|---|")
    for assertion, entry in section["assertions"].items():
        described = {"asks": entry} if isinstance(entry, str) else entry
        reason, in_part = described.get("not_applicable"), described.get("in_part")
        proofs = tests.get(assertion, [])
        if bool(proofs) == bool(reason):
            what = "both a test and a reason" if reason else "neither a test nor a reason"
            raise ConformanceError(f"{PREFIX}{assertion} has {what} why it does not apply")
        result = "—" if reason else "in part" if in_part else "pass"
        shown = reason or " ".join(filter(None, (in_part, _links(proofs))))
        yield f"| `{assertion}` | {described['asks']} | {result} | {shown} |"


def _other_section(group: Mapping[str, Any], tests: Mapping[str, list[MarkedTest]]) -> Iterator[str]:
    members = group["ids"].split()
    shown = [one for one in members if one in tests]
    left = [f"`{one}`" for one in members if one not in tests]
    yield from ("", f"### {group['title']}", "")
    yield f"For the {group['who']}: {len(members)} assertions, {len(shown)} of them with tests here."
    if shown:
        yield from ("", "| assertion | shown by |", "|---|---|")
    for assertion in shown:
        yield f"| `{assertion}` | {_links(tests[assertion])} |"
    if left:
        yield from ("", f"Without tests here: {', '.join(left)}.")


def _links(tests: list[MarkedTest]) -> str:
    return "; ".join(test.link() for test in tests)


def main() -> None:
    """Write the document."""
    DOCUMENT.write_text(document(read_assertions(), marked_tests(ROOT / "tests")), "utf-8")


if __name__ == "__main__":
    main()

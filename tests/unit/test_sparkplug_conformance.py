"""docs/sparkplug-conformance.md is what the tests say; its generator refuses what does not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sparkplug_conformance import (
    DOCUMENT,
    ROOT,
    ConformanceError,
    MarkedTest,
    all_ids,
    document,
    marked_tests,
    read_assertions,
)

LISTED = {
    "host": [{"title": "Own", "assertions": {"a": "Does a.", "b": {"asks": "b", "not_applicable": "No b."}}}],
    "others": [{"title": "Theirs", "who": "edge node", "ids": "c d"}],
}
PROOF = {"a": [MarkedTest("tests/test_a.py", "test_a_is_done")]}


def test_the_document_is_up_to_date() -> None:
    made = document(read_assertions(), marked_tests(ROOT / "tests"))
    assert DOCUMENT.read_text("utf-8") == made, "run: python -m tests.sparkplug_conformance"


def test_every_assertion_of_the_standard_is_listed_once() -> None:
    ids = all_ids(read_assertions())
    assert len(ids) == len(set(ids)) == 299


def test_what_is_tested_and_what_does_not_apply() -> None:
    text = document(LISTED, PROOF)
    assert "| `a` | Does a. | pass | [a_is_done](../tests/test_a.py) |" in text
    assert "| `b` | b | — | No b. |" in text
    assert "Without tests here: `c`, `d`." in text
    assert "Of 4 assertions 2 are for a host application: 1 are shown by tests" in text


def test_what_holds_in_part_says_how_far() -> None:
    listed = {
        "host": [{"title": "Own", "assertions": {"a": {"asks": "a", "in_part": "Half."}}}],
        "others": [],
    }
    assert "| `a` | a | in part | Half. [a_is_done](../tests/test_a.py) |" in document(listed, PROOF)


def test_an_id_that_is_spelt_in_two_ways_is_one() -> None:
    text = document({**LISTED, "spelt_too": {"aa": "a"}}, {"aa": [MarkedTest("tests/test_b.py", "test_b")]})
    assert "| `a` | Does a. | pass | [b](../tests/test_b.py) |" in text


def test_a_test_for_an_edge_nodes_assertion_is_shown() -> None:
    text = document(LISTED, {**PROOF, "d": [MarkedTest("tests/test_d.py", "test_d")]})
    assert "| `d` | [d](../tests/test_d.py) |" in text
    assert "2 assertions, 1 of them with tests here" in text


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ({}, "tck-id-a has neither a test nor a reason"),
        ({**PROOF, "b": PROOF["a"]}, "tck-id-b has both a test and a reason"),
        ({**PROOF, "e": PROOF["a"]}, "unknown assertions: e"),
    ],
)
def test_what_does_not_fit_together_is_refused(tests: dict[str, list[MarkedTest]], message: str) -> None:
    with pytest.raises(ConformanceError, match=message):
        document(LISTED, tests)


def test_markers_are_found_on_functions_and_classes(tmp_path: Path) -> None:
    (tmp_path / "test_marked.py").write_text(
        "@pytest.mark.sparkplug('tck-id-a', 'tck-id-b')\nasync def test_one(): ...\n"
        "@mark.sparkplug('tck-id-a')\nclass TestTwo:\n"
        "    @pytest.mark.parametrize('x', [1])\n    @pytest.mark.sparkplug('tck-id-c')\n"
        "    def test_three(self, x): ...\n"
    )
    (tmp_path / "other.py").write_text("@pytest.mark.sparkplug('tck-id-z')\ndef test_four(): ...\n")
    found = marked_tests(tmp_path)
    assert {key: [test.name for test in tests] for key, tests in found.items()} == {
        "a": ["TestTwo", "test_one"],
        "b": ["test_one"],
        "c": ["test_three"],
    }


@pytest.mark.parametrize(
    "decorator",
    ["pytest.mark.sparkplug", "pytest.mark.sparkplug()", "pytest.mark.sparkplug(IDS[0])",
     "pytest.mark.sparkplug('a')", "pytest.mark.sparkplug(*IDS)"],
)  # fmt: skip
def test_a_marker_without_a_plain_id_is_refused(tmp_path: Path, decorator: str) -> None:
    (tmp_path / "test_marked.py").write_text(f"@{decorator}\ndef test_one(): ...\n")
    with pytest.raises(ConformanceError):
        marked_tests(tmp_path)

"""The SQL of patterns: what is in it, and what never is."""

from __future__ import annotations

import re
from decimal import Decimal
from fnmatch import fnmatchcase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plantwire.domain.patterns import (
    MATCH_COLUMNS,
    double_literal,
    glob_regex,
    match_sql,
    matches_sql,
    patterns_of_sql,
    views_sql,
)
from plantwire.schemas.patterns import Pattern, RiseThenDrop, Spikes, Stuck

finite = st.floats(allow_nan=False, allow_infinity=False)
shapes = st.one_of(
    st.builds(
        RiseThenDrop, st.integers(2, 1000), st.integers(1, 3600), drop_percent=finite, drop_by=st.none()
    ),
    st.builds(
        RiseThenDrop, st.integers(2, 1000), st.integers(1, 3600), drop_percent=st.none(), drop_by=finite
    ),
    st.builds(Spikes, st.integers(2, 100), st.integers(1, 3600), above=finite),
    st.builds(Spikes, st.integers(2, 100), st.integers(1, 3600), below=finite),
    st.builds(Spikes, st.integers(2, 100), st.integers(1, 3600), change=finite),
    st.builds(Stuck, st.integers(1, 86400), st.integers(2, 10**6)),
)


def pattern(shape: RiseThenDrop | Spikes | Stuck, text: str = "x", devices: str = "*") -> Pattern:
    return Pattern(text, 1, devices, text, 1, text, shape, 300)


@given(shapes, st.text())
def test_no_text_of_a_pattern_is_in_its_match(shape: RiseThenDrop | Spikes | Stuck, text: str) -> None:
    sql = match_sql(pattern(shape, text, text), 7)
    assert sql == match_sql(pattern(shape), 7)
    # Outside of our own identifiers and the interval there is no quote, and no comment can begin.
    assert set(re.findall(r"'[^']*'", sql)) == _intervals(shape)
    assert "--" not in sql
    assert "/*" not in sql
    assert ";" not in sql


def _intervals(shape: RiseThenDrop | Spikes | Stuck) -> set[str]:
    if isinstance(shape, RiseThenDrop):
        return {f"'{2 * shape.within_s}.001'"}
    return {f"'{shape.within_s}.001'"} if isinstance(shape, Spikes) else set()


@given(finite)
def test_a_literal_is_the_number_itself_and_a_double(number: float) -> None:
    text = double_literal(number)
    digits = text.strip("()")
    assert float(digits) == number
    assert float(Decimal(digits)) == number
    assert re.fullmatch(r"\(-[0-9.]+[eE][-+]?[0-9]+\)|[0-9.]+[eE][-+]?[0-9]+", text)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_has_no_literal(number: float) -> None:
    with pytest.raises(ValueError, match="no literal"):
        double_literal(number)


@given(st.lists(shapes, min_size=1, max_size=8))
def test_each_pattern_looks_at_its_own_samples_only(shapes: list[RiseThenDrop | Spikes | Stuck]) -> None:
    sql = matches_sql([pattern(shape) for shape in shapes])
    assert [int(number) for number in re.findall(r"`pattern_no` = (\d+)", sql)] == list(range(len(shapes)))
    recognised = sum(not isinstance(shape, Stuck) for shape in shapes)
    assert sql.count("MATCH_RECOGNIZE (") == sql.count("WITHIN INTERVAL") == recognised


def test_without_patterns_there_is_no_query() -> None:
    with pytest.raises(ValueError, match="no patterns"):
        matches_sql([])


def test_no_quantifier_is_open() -> None:
    """Greedy or reluctant makes no difference to an exact count, and the state is bounded by it."""
    for shape in (RiseThenDrop(5, 120, drop_percent=10), Spikes(3, 60, above=90)):
        (rows,) = re.findall(r"PATTERN \(([^)]*)\)", match_sql(pattern(shape), 0))
        assert re.fullmatch(r"(`[A-Z]+`(\{\d+\})? ?)+", rows)


def test_every_match_has_the_same_columns() -> None:
    for shape in (RiseThenDrop(5, 120, drop_by=3), Spikes(3, 60, below=1)):
        sql = match_sql(pattern(shape), 0)
        (columns,) = re.findall(r"\ASELECT ([^()]*) FROM \(", sql)
        assert columns == ", ".join(f"`{column}`" for column in MATCH_COLUMNS)
    columns = match_sql(pattern(Stuck(600, 2)), 0).partition("\nFROM (")[0].removeprefix("SELECT ")
    columns = re.sub(r"CASE WHEN .* END|CAST\([^)]*\)", "...", columns)
    names = [re.search(r"`(\w+)`\Z", column.strip()) for column in columns.split(",")]
    assert [name and name[1] for name in names] == list(MATCH_COLUMNS)


def test_each_view_stands_on_the_one_before() -> None:
    views = views_sql()
    names = ["pattern_samples", *views]
    for before, sql in zip(names, views.values(), strict=False):
        assert f"FROM `{before}`" in sql


def patterns_of(*globs: tuple[str, str]) -> list[Pattern]:
    return [Pattern("x", 1, devices, metric, 1, "", Stuck(1, 2), 1) for devices, metric in globs]


def test_a_sample_is_marked_with_each_pattern_that_it_is_for() -> None:
    sql = patterns_of_sql(
        patterns_of(("a*", "*"), ("*", "b"), ("*", "*"), ("?", "[c]")), "device_id", "metric"
    )
    assert sql == (
        r"ARRAY[CASE WHEN REGEXP(`device_id`, '(?s)\A\x{61}.*\z') THEN 0 END, "
        r"CASE WHEN REGEXP(`metric`, '(?s)\A\x{62}\z') THEN 1 END, "
        r"CASE WHEN TRUE THEN 2 END, "
        r"CASE WHEN REGEXP(`device_id`, '(?s)\A.\z') AND REGEXP(`metric`, '(?s)\A[\x{63}]\z') THEN 3 END]"
    )


@given(st.text(), st.text())
def test_no_text_gets_out_of_a_literal(devices: str, metric: str) -> None:
    sql = patterns_of_sql(patterns_of((devices, metric)), "device_id", "metric")
    literals = re.findall(r"'([^']*)'", sql)
    assert len(literals) == (devices != "*") + (metric != "*")
    for literal in literals:
        assert re.fullmatch(
            r"\(\?s\)\\A(\.\*|\.|\(\?!\)|\[\^?([-]|\\x\{[0-9a-f]+\})+\]|\\x\{[0-9a-f]+\})*\\z", literal
        )
    rest = re.sub(r"'[^']*'", "", sql)
    assert re.fullmatch(r"ARRAY\[CASE WHEN [A-Z(), `_a-z]* THEN 0 END\]", rest)


GLOBBED = st.text(alphabet="ab-]![*?^\\.c\n'é😀", max_size=8)


@given(GLOBBED, GLOBBED)
@example("[!]a]", "b")
@example("[]-a]", "^")
@example("[a-c-e]", "-")
@example("[^a]", "^")
@example("a_b%", "acbd")
def test_a_glob_matches_what_it_matches_in_alarm_rules(glob: str, name: str) -> None:
    in_python = re.sub(
        r"\\x\{([0-9a-f]+)\}", lambda code: f"\\U{int(code[1], 16):08x}", glob_regex(glob)
    ).replace(r"\z", r"\Z")
    assert bool(re.search(in_python, name)) == fnmatchcase(name, glob)

# ruff: noqa: S608 - a pattern gives the SQL numbers, and no text; a property test holds it to that
"""Telemetry patterns as Flink SQL: pure text.

In: validated patterns; a table of samples (columns of `SAMPLE_COLUMNS`). Out: which patterns a sample is for;
views over the samples, and a query of which each row is a match (columns of `MATCH_COLUMNS`).
Guarantees: of a pattern's texts only the globs are in the SQL, as regular expressions in which each of their
characters is a hexadecimal number: there is nothing to escape. Per device and metric the state is a few
numbers, whatever the times and counts of a pattern.
Not here: files (`schemas.pattern_files`), what a match means for an alarm (`domain.pattern_alarms`), tables
and jobs (`jobs.telemetry_patterns`).

How it keeps cheap: a condition of MATCH_RECOGNIZE that looks at another row has Flink collect the whole
match so far, for each row; a match of a thousand rows costs a million steps. And every row that could begin
a match has a timer until it no longer can. So what a row has to know of those before it comes from OVER
windows with one number of state (the number before it, how many rises end in it, since when it stays the
same, the last top), conditions look at their own row, and only rows that can begin or end a match reach
MATCH_RECOGNIZE. Every quantifier is an exact number: greedy or reluctant is no question. AFTER MATCH is
SKIP PAST LAST ROW: a sample is in one match of a pattern. Whether a value is stuck is such a number by
itself: its beginning and end need no MATCH_RECOGNIZE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from plantwire.schemas.patterns import Pattern, RiseThenDrop, Spikes, Stuck

SAMPLES: Final = "pattern_samples"
RUNS: Final = "pattern_runs"
SAMPLE_COLUMNS: Final = ("pattern_no", "device_id", "site", "metric", "sample_ms", "number")
"""Of the table `SAMPLES`, which also has its time attribute `event_time`: `sample_ms` + `GRACE_MS`."""
GRACE_MS: Final = 2_000
"""How much longer than windows a match waits for samples that take longer than others. One that is missing
breaks a run, while a window changes but little. So the rows have a time that is so much later than the
sample's, under the same watermark."""
MATCH_COLUMNS: Final = (
    "pattern_no",
    "device_id",
    "metric",
    "site",
    "begins",
    "start_ms",
    "end_ms",
    "number",
    "limit_number",
)
"""`begins` is false where a stuck value moves again, and at a metric's first sample, of which it is not known
whether it moved; `limit_number` is null where there is none."""

_KEY: Final = "`pattern_no`, `device_id`, `metric`"
_ORDER: Final = f"PARTITION BY {_KEY} ORDER BY `event_time`"
_PAIR: Final = f"WINDOW `w` AS ({_ORDER} ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)"
_ALL: Final = f"WINDOW `w` AS ({_ORDER})"


def patterns_of_sql(patterns: Sequence[Pattern], device_id: str, metric: str) -> str:
    """The SQL array of the positions of the patterns that a sample is for, null for each that it is not.

    `device_id` and `metric` are the names of columns.
    """
    positions = []
    for number, pattern in enumerate(patterns):
        tests = [
            f"REGEXP(`{column}`, '{glob_regex(glob)}')"
            for column, glob in ((device_id, pattern.devices), (metric, pattern.metric))
            if glob != "*"
        ]
        positions.append(f"CASE WHEN {' AND '.join(tests) or 'TRUE'} THEN {number} END")
    return f"ARRAY[{', '.join(positions)}]"


def glob_regex(glob: str) -> str:
    """The Java regular expression that matches what `fnmatch.fnmatchcase` matches.

    Every character of the glob is a hexadecimal number in it.
    """
    pieces, at = [], 0
    while at < len(glob):
        character, end = glob[at], -1
        if character == "[":
            # A ] right after the opening is a member of the set and does not close it.
            end = glob.find("]", at + (3 if glob.startswith("!", at + 1) else 2))
        if character == "*":
            pieces.append(".*")
        elif character == "?":
            pieces.append(".")
        elif end != -1:
            pieces.append(_set_regex(glob[at + 1 : end]))
            at = end
        else:
            pieces.append(_code(character))
        at += 1
    return r"(?s)\A" + "".join(pieces) + r"\z"


def _set_regex(inside: str) -> str:
    negated = inside.startswith("!")
    members, at = [], int(negated)
    while at < len(inside):
        if at + 2 < len(inside) and inside[at + 1] == "-":
            if inside[at] <= inside[at + 2]:
                members.append(f"{_code(inside[at])}-{_code(inside[at + 2])}")
            at += 3
        else:
            members.append(_code(inside[at]))
            at += 1
    if not members:
        return "." if negated else "(?!)"
    return f"[{'^' if negated else ''}{''.join(members)}]"


def _code(character: str) -> str:
    return f"\\x{{{ord(character):x}}}"


def views_sql() -> dict[str, str]:
    """The views that all patterns stand on, by name, each on those before it.

    In a view's rows a time of a metric is there once: of several, the first that came. `before_number` and
    `before_ms` are those of the sample before, `rises` how many rises in a row end in this sample,
    `same_since_ms` and `same_samples` since when and in how many samples the number stays what it is.
    """
    columns = ", ".join(f"`{column}`" for column in SAMPLE_COLUMNS)
    return {
        "pattern_samples_once": f"""
SELECT {columns}, `event_time` FROM (
  SELECT *, COUNT(*) OVER `w` AS `rows_here`, FIRST_VALUE(`sample_ms`) OVER `w` AS `before_ms`
  FROM `{SAMPLES}` {_PAIR}
) WHERE `rows_here` = 1 OR `before_ms` <> `sample_ms`""",
        "pattern_steps": f"""
SELECT *, LAG(`number`) OVER `w` AS `before_number`, LAG(`sample_ms`) OVER `w` AS `before_ms`,
  COUNT(*) OVER `w` AS `row_no`
FROM `pattern_samples_once` {_ALL}""",
        # LAST_VALUE passes nulls by. It also forgets what is older than a restart of `row_no`, after a
        # device was silent for longer than the state's lifetime; a maximum would not.
        RUNS: f"""
SELECT {columns}, `event_time`, `before_number`, `before_ms`,
  `row_no` - LAST_VALUE({_unless("`number` > `before_number`", "`row_no`")}) OVER `w` AS `rises`,
  `row_no` - LAST_VALUE({_unless("`number` = `before_number`", "`row_no`")}) OVER `w` + 1 AS `same_samples`,
  LAST_VALUE({_unless("`number` = `before_number`", "`sample_ms`")}) OVER `w` AS `same_since_ms`
FROM `pattern_steps` {_ALL}""",
    }


def matches_sql(patterns: Sequence[Pattern]) -> str:
    """The query of all matches, of one pattern after the other."""
    if not patterns:
        raise ValueError("no patterns: there is nothing to match")
    return "\nUNION ALL\n".join(match_sql(pattern, number) for number, pattern in enumerate(patterns))


def match_sql(pattern: Pattern, number: int) -> str:
    """The matches of one pattern; `number` is its position, by which its samples are marked."""
    shape = pattern.shape
    if isinstance(shape, RiseThenDrop):
        return _rise_then_drop(shape, number)
    if isinstance(shape, Spikes):
        return _spikes(shape, number)
    return _stuck(shape, number)


def _rise_then_drop(shape: RiseThenDrop, number: int) -> str:
    if shape.drop_percent is not None:
        drop = f"ABS(`top`) * {double_literal(shape.drop_percent / 100)}"
    else:
        drop = double_literal(shape.drop_by or 0.0)
    rises, within_ms = int(shape.rises), int(shape.within_s) * 1000
    source = f"""
  SELECT * FROM (
    SELECT *, `top` - {drop} AS `drop_number` FROM (
      SELECT *, LAST_VALUE(CASE WHEN `rises` >= {rises} THEN `number` END) OVER `w` AS `top`,
        LAST_VALUE(CASE WHEN `rises` >= {rises} THEN `sample_ms` END) OVER `w` AS `top_ms`
      FROM `{RUNS}` WHERE `pattern_no` = {int(number)} {_ALL}
    )
  ) WHERE `rises` = {rises}
    OR (`rises` > {rises}
      AND `sample_ms` - MOD(`sample_ms`, {within_ms}) <> `before_ms` - MOD(`before_ms`, {within_ms}))
    OR (`rises` < {rises} AND `number` < `top` AND `number` <= `drop_number`)"""
    # Of a rise one row in `within_s` is a RISE, so that what rises for ever has few timers. The last of them
    # is less than `within_s` before the top, and has no row between it and the first FALL.
    return _recognise(
        source,
        {
            "site": "`FALL`.`site`",
            "begins": "TRUE",
            "start_ms": "`FALL`.`top_ms`",
            "end_ms": "`FALL`.`sample_ms`",
            "number": "`FALL`.`number`",
            "limit_number": "`FALL`.`drop_number`",
        },
        "`RISE` `FALL`",
        2 * shape.within_s,
        {
            "RISE": f"`rises` >= {rises}",
            "FALL": f"`rises` < {rises} AND `sample_ms` - `top_ms` <= {within_ms}",
        },
    )


def _spikes(shape: Spikes, number: int) -> str:
    if shape.above is not None:
        limit = double_literal(shape.above)
        is_spike = f"`number` > {limit} AND (`before_number` IS NULL OR `before_number` <= {limit})"
    elif shape.below is not None:
        limit = double_literal(shape.below)
        is_spike = f"`number` < {limit} AND (`before_number` IS NULL OR `before_number` >= {limit})"
    else:
        limit = double_literal(shape.change or 0.0)
        is_spike = f"ABS(`number` - `before_number`) > {limit}"
    source = f"""
  SELECT * FROM `{RUNS}` WHERE `pattern_no` = {int(number)} AND {is_spike}"""
    return _recognise(
        source,
        {
            "site": "LAST(`SPIKE`.`site`)",
            "begins": "TRUE",
            "start_ms": "FIRST(`SPIKE`.`sample_ms`)",
            "end_ms": "LAST(`SPIKE`.`sample_ms`)",
            "number": "LAST(`SPIKE`.`number`)",
            "limit_number": limit,
        },
        f"`SPIKE`{{{int(shape.count)}}}",
        shape.within_s,
        {"SPIKE": "`number` IS NOT NULL"},
    )


def _stuck(shape: Stuck, number: int) -> str:
    columns = ", ".join(f"`{column}`" for column in ("pattern_no", "device_id", "metric", "site"))
    return f"""SELECT {columns}, `stuck` AS `begins`,
  CASE WHEN `stuck` THEN `same_since_ms` ELSE COALESCE(`before_since_ms`, `sample_ms`) END AS `start_ms`,
  `sample_ms` AS `end_ms`, `number`, CAST(NULL AS DOUBLE) AS `limit_number`
FROM (
  SELECT *, LAG(`stuck`) OVER `w` AS `was_stuck`, LAG(`same_since_ms`) OVER `w` AS `before_since_ms` FROM (
    SELECT *, `sample_ms` - `same_since_ms` >= {int(shape.for_s) * 1000}
      AND `same_samples` >= {int(shape.samples)} AS `stuck`
    FROM `{RUNS}` WHERE `pattern_no` = {int(number)}
  ) {_ALL}
) WHERE `was_stuck` IS NULL OR `stuck` <> `was_stuck`"""


def _recognise(
    source: str, measures: dict[str, str], rows: str, within_s: int, define: dict[str, str]
) -> str:
    """A MATCH_RECOGNIZE over the subquery `source`; its rows are at most `within_s` apart."""
    told = ",\n    ".join(f"{measure} AS `{column}`" for column, measure in measures.items())
    variables = ",\n    ".join(f"`{variable}` AS {condition}" for variable, condition in define.items())
    columns = ", ".join(f"`{column}`" for column in MATCH_COLUMNS)
    return f"""SELECT {columns} FROM ({source}
) MATCH_RECOGNIZE (
  PARTITION BY {_KEY}
  ORDER BY `event_time`
  MEASURES
    {told}
  ONE ROW PER MATCH
  AFTER MATCH SKIP PAST LAST ROW
  PATTERN ({rows}) WITHIN {_interval(within_s)}
  DEFINE
    {variables}
)"""


def double_literal(number: float) -> str:
    """The SQL literal of type DOUBLE that is exactly `number`; raises ValueError where it is not finite."""
    if not math.isfinite(number):
        raise ValueError(f"{number} has no literal")
    text = repr(float(number))
    # Without an exponent it would be a DECIMAL.
    text = text if "e" in text else f"{text}E0"
    return f"({text})" if text.startswith("-") else text


def _interval(seconds: int) -> str:
    # Flink lets a match go when its rows are as far apart as WITHIN says: a millisecond more includes that.
    return f"INTERVAL '{int(seconds)}.001' SECOND(7, 3)"


def _unless(condition: str, value: str) -> str:
    """`value`, null where `condition` holds; the first row, of which nothing is known, has it."""
    return f"CASE WHEN {condition} THEN NULL ELSE {value} END"

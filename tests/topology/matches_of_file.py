"""`matches_of_file.py PATTERNS SAMPLES NAMES MATCHES`: what the job's SQL finds in files."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from plantwire.domain.patterns import GRACE_MS, SAMPLES, patterns_of_sql
from plantwire.jobs.telemetry_patterns import find_matches
from plantwire.platform.pattern_source import load_patterns


def main() -> None:
    """Read, match, write."""
    patterns_file, samples_file, names_file, matches_file = sys.argv[1:]
    patterns = load_patterns([Path(patterns_file)])
    assert isinstance(patterns, list), patterns
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    tables = StreamTableEnvironment.create(env)
    tables.execute_sql(
        f"""
        CREATE TEMPORARY TABLE `names` (`device_id` STRING, `metric` STRING)
        WITH ('connector' = 'filesystem', 'path' = '{names_file}', 'format' = 'json')
        """
    )
    positions = patterns_of_sql(patterns, "device_id", "metric")
    marked = tables.execute_sql(
        f"""
        SELECT `device_id`, `metric`, `p`.`pattern_no`
        FROM (SELECT *, {positions} AS `positions` FROM `names`) AS `n`
        CROSS JOIN UNNEST(`n`.`positions`) AS `p` (`pattern_no`)
        WHERE `p`.`pattern_no` IS NOT NULL
        """  # noqa: S608
    )
    with marked.collect() as rows:
        marks = [list(row) for row in rows]
    tables.execute_sql(
        f"""
        CREATE TEMPORARY TABLE `{SAMPLES}` (
          `pattern_no` INT, `device_id` STRING, `site` STRING, `metric` STRING,
          `sample_ms` BIGINT, `number` DOUBLE,
          `event_time` AS TO_TIMESTAMP_LTZ(`sample_ms` + {GRACE_MS}, 3),
          WATERMARK FOR `event_time` AS `event_time` - INTERVAL '{GRACE_MS / 1000}' SECOND
        ) WITH ('connector' = 'filesystem', 'path' = '{samples_file}', 'format' = 'json')
        """
    )
    with find_matches(tables, patterns).execute_and_collect() as rows:
        # Outside of an operator Java's signed bytes come as they are.
        matches = [orjson.loads(bytes(byte & 0xFF for byte in body)) for _, body in rows]
    Path(matches_file).write_bytes(orjson.dumps({"marks": marks, "matches": matches}))


main()

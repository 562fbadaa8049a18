"""The job's own windows of 1 s, written to Kafka: `windows_flink.py BOOTSTRAP GROUP TOPIC`, by `flink run`.

In, Out: as every engine (`engines.windows_order`). Guarantees: source, samples and windows are those of the
job that is submitted in production; only the function that shows windows in Redis is a Kafka sink here.
"""

from __future__ import annotations

import sys

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from bench.window_topic import END_SEPARATOR
from plantwire.jobs.frame_tables import create_samples, read_frames
from plantwire.jobs.telemetry_aggregation import packed_windows
from plantwire.schemas.topics import TELEMETRY_RAW
from plantwire.schemas.windows import ONE_SECOND


def main() -> None:
    """Submit."""
    bootstrap, group, topic = sys.argv[1:]
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    tables = StreamTableEnvironment.create(env)
    frames = read_frames(tables, TELEMETRY_RAW, bootstrap, group, uid="windows")
    create_samples(tables, frames, uid="windows")
    tables.execute_sql(
        f"""
        CREATE TEMPORARY TABLE `windows` (`body` STRING) WITH (
          'connector' = 'kafka',
          'topic' = '{topic}',
          'properties.bootstrap.servers' = '{bootstrap}',
          'properties.linger.ms' = '20',
          'properties.enable.idempotence' = 'true',
          'sink.delivery-guarantee' = 'at-least-once',
          'format' = 'raw'
        )
        """
    )
    tables.create_temporary_view("packed", packed_windows(tables, (ONE_SECOND,)))
    statements = tables.create_statement_set()
    statements.add_insert_sql(
        f"INSERT INTO `windows` SELECT CAST(`end_s` AS STRING) || '{END_SEPARATOR}' || `packed` FROM `packed`"  # noqa: S608
    )
    statements.attach_as_datastream()
    env.execute("windows")


if __name__ == "__main__":
    main()

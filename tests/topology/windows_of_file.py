"""`windows_of_file.py SAMPLES WINDOWS`: the job's windows of a file of samples, by Flink in this process."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from plantwire.jobs.frame_tables import SAMPLES
from plantwire.jobs.telemetry_aggregation import packed_windows
from plantwire.schemas.windows import GRACE_MS, unpack_windows


def main() -> None:
    """Read, compute, write."""
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    tables = StreamTableEnvironment.create(env)
    tables.execute_sql(
        f"""
        CREATE TEMPORARY TABLE `{SAMPLES}` (
          `device_id` STRING, `metric` STRING, `number` DOUBLE, `at_ms` BIGINT,
          `measured` AS TO_TIMESTAMP_LTZ(`at_ms`, 3),
          WATERMARK FOR `measured` AS `measured` - INTERVAL '{GRACE_MS / 1000}' SECOND
        ) WITH ('connector' = 'filesystem', 'path' = '{sys.argv[1]}', 'format' = 'json')
        """
    )
    windows: defaultdict[str, list[Any]] = defaultdict(list)
    with packed_windows(tables).execute().collect() as rows:
        for window, end_s, packed in rows:
            devices, rejected = unpack_windows(packed)
            assert rejected == 0
            windows[window] += [
                [device_id, metric, end_s * 1000, *values]
                for device_id, metrics in devices.items()
                for metric, values in metrics.items()
            ]
    Path(sys.argv[2]).write_bytes(orjson.dumps(windows))


main()

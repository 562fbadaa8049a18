"""Frames as SQL: the topic as a table, and its samples as a table in event time.

In: a table environment, a topic of TelemetryFrames. Out: the temporary view `SAMPLES` with the columns
device_id, metric, number, measured (its time attribute).
Guarantees: only live numbers of good quality; every sample that is left out is counted with its reason
(`samples_<reason>`, reasons below), and every record that is no frame (`frames_rejected`). The watermark
follows the plant, not its clocks: see `progress` below.
Not here: windows (`jobs.telemetry_aggregation`), reading bodies (stack/jars/flink).
"""

from __future__ import annotations

from typing import Final

from pyflink.java_gateway import get_gateway
from pyflink.table import Schema, StreamTableEnvironment, Table

from plantwire.domain.admission import MAX_AHEAD_MS
from plantwire.schemas.records import QUALITY_GOOD
from plantwire.schemas.windows import GRACE_MS

SAMPLES: Final = "samples"
HOLD_MS: Final = 300
"""How far behind the gateway's clock a partition's frames may hold the watermark."""
IDLE_MS: Final = 500
"""After this time without frames a partition holds nothing back."""
LIVE_WITHIN_MS: Final = 5_000
"""Frames that come later than this after their gateway let them go tell that the job is catching up."""
CATCHING_UP_MS: Final = 60_000
"""How far behind the frames the watermark is meanwhile. A partition that waits its turn, and any while the
job starts, may look idle although it has frames. They must not be late; windows may, they are old anyway.
"""
FETCH_BYTES: Final = 65_536
"""Of a partition at once. While the job catches up, partitions are worked off in turns of so much: in longer
ones those that wait would look idle.
"""
_LARGEST: Final = "1.7976931348623157E308"


def create_frames(tables: StreamTableEnvironment, topic: str, bootstrap: str, group: str) -> None:
    """The table `frames`. Starts where `group` committed, else at the end: windows are of what is live.

    `progress` is what a frame says about how far the plant has come. That is the frame's own time, but
    within what its gateway's clock allows: a device whose clock is ahead counts as one without delay, and one
    that is far behind, or a backlog that is drained, does not hold the others back. A gateway whose clock is
    ahead cannot push further than this machine's time.
    """
    clock = "GREATEST(`received_time_ms`, `gateway_out_us` / 1000)"
    within = f"LEAST(GREATEST(`event_time_ms`, {clock} - {HOLD_MS}), {clock})"
    watermark = f"""CASE
            WHEN `progress` < CURRENT_TIMESTAMP - INTERVAL '{LIVE_WITHIN_MS / 1000}' SECOND
            THEN `progress` - INTERVAL '{CATCHING_UP_MS / 1000}' SECOND
            ELSE `progress` - INTERVAL '{GRACE_MS / 1000}' SECOND END"""
    tables.execute_sql(
        f"""
        CREATE TEMPORARY TABLE `frames` (
          `record_key` STRING,
          `device_id` STRING,
          `event_time_ms` BIGINT,
          `received_time_ms` BIGINT,
          `historical` BOOLEAN,
          `metrics` ARRAY<ROW<`name` STRING, `number` DOUBLE, `quality` INT, `event_time_ms` BIGINT>>,
          `gateway_out_us` BIGINT,
          `progress` AS LEAST(TO_TIMESTAMP_LTZ({within}, 3), CURRENT_TIMESTAMP),
          WATERMARK FOR `progress` AS {watermark}
        ) WITH (
          'connector' = 'kafka',
          'topic' = '{topic}',
          'properties.bootstrap.servers' = '{bootstrap}',
          'properties.group.id' = '{group}',
          'properties.auto.offset.reset' = 'latest',
          'properties.fetch.max.wait.ms' = '100',
          'properties.fetch.min.bytes' = '1',
          'properties.max.partition.fetch.bytes' = '{FETCH_BYTES}',
          'scan.startup.mode' = 'group-offsets',
          'scan.watermark.idle-timeout' = '{IDLE_MS} ms',
          'key.format' = 'raw', 'key.fields' = 'record_key',
          'value.format' = 'plantwire-frame', 'value.fields-include' = 'EXCEPT_KEY'
        )
        """
    )


def create_samples(tables: StreamTableEnvironment) -> None:
    """The view `samples` of `frames`, each sample in its own time where it has one.

    What is late is said of the second that a sample belongs to, once, whichever windows are asked for.
    """
    tables.execute_sql("CREATE TEMPORARY SYSTEM FUNCTION `counted` AS 'plantwire.Counted' LANGUAGE JAVA")
    tables.execute_sql(
        """
        CREATE TEMPORARY VIEW `opened` AS
        SELECT `f`.`record_key`, `f`.`device_id`, `f`.`historical`, `f`.`progress`,
               `m`.`name` AS `metric`, `m`.`number`, `m`.`quality`,
               COALESCE(`m`.`event_time_ms`, `f`.`event_time_ms`) AS `time_ms`
        FROM `frames` AS `f`
        CROSS JOIN UNNEST(`f`.`metrics`) AS `m` (`name`, `number`, `quality`, `event_time_ms`)
        """
    )
    second_ends = "TO_TIMESTAMP_LTZ(`time_ms` - MOD(`time_ms`, 1000) + 999, 3)"
    live = tables.sql_query(
        f"""
        SELECT `device_id`, `metric`, `number`, TO_TIMESTAMP_LTZ(`time_ms`, 3) AS `measured`
        FROM `opened`
        WHERE `counted`(CASE
          WHEN `record_key` IS NULL OR `record_key` <> `device_id` THEN 'of_another_device'
          WHEN `number` IS NULL THEN 'without_number'
          WHEN `historical` THEN 'historical'
          WHEN `quality` <> {QUALITY_GOOD} THEN 'not_good'
          WHEN TO_TIMESTAMP_LTZ(`time_ms` - {MAX_AHEAD_MS}, 3) > CURRENT_TIMESTAMP THEN 'ahead'
          WHEN {second_ends} <= CURRENT_WATERMARK(`progress`) THEN 'late'
          WHEN ABS(`number`) <= {_LARGEST} THEN 'live'
          ELSE 'not_finite' END) = 'live'
        """  # noqa: S608 - constants of ours
    )
    _take_time_from(tables, live)


def _take_time_from(tables: StreamTableEnvironment, live: Table) -> None:
    """Make `measured` the time attribute, under the watermark that the frames have set.

    SQL has time attributes of sources only, so the rows leave it and come back, as they are: `RowData` is
    what SQL itself works on, nothing is converted. PyFlink alone would convert them.
    """
    jvm = get_gateway().jvm
    loader = jvm.Thread.currentThread().getContextClassLoader()
    row_data = jvm.java.lang.Class.forName("org.apache.flink.table.data.RowData", False, loader)
    as_it_is = live._j_table.getResolvedSchema().toPhysicalRowDataType().bridgedTo(row_data)
    rows = tables._j_tenv.toDataStream(live._j_table, as_it_is)
    schema = (
        Schema.new_builder()
        .column("device_id", "STRING")
        .column("metric", "STRING")
        .column("number", "DOUBLE")
        .column("measured", "TIMESTAMP_LTZ(3)")
        .watermark("measured", "SOURCE_WATERMARK()")
        .build()
    )
    tables._j_tenv.createTemporaryView(SAMPLES, rows, schema._j_schema)

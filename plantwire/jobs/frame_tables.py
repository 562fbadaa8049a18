"""Frames as SQL: the topic as a table, and its samples as a table in event time.

In: a table environment, a topic of TelemetryFrames. Out: the temporary views `FRAMES` (with `progress` as its
time attribute) and `SAMPLES` with the columns device_id, metric, number, measured (its time attribute).
Guarantees: only live numbers of good quality are in `SAMPLES`; every sample that is left out is counted with
its reason (`samples_<reason>`), and every record that is no frame (`frames_rejected`). The watermark follows
the plant, not its clocks: see `progress` below; and what a partition holds when a job comes back is not late.
Not here: windows (`jobs.telemetry_aggregation`), reading bodies, watermarks and samples (stack/jars/flink).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from confluent_kafka.admin import AdminClient
from pyflink.java_gateway import get_gateway
from pyflink.table import Schema, StreamTableEnvironment

from plantwire.domain.admission import MAX_AHEAD_MS
from plantwire.domain.live_windows import HOLD_MS, IDLE_MS
from plantwire.schemas.records import QUALITY_GOOD
from plantwire.schemas.windows import GRACE_MS

FRAMES: Final = "frames"
SAMPLES: Final = "samples"
LIVE_WITHIN_MS: Final = 5_000
"""A partition whose frames are read later than this after their gateway let them go has a backlog."""
WAIT_MS: Final = 10_000
"""For so long a partition with a backlog may wait for its turn, and is waited for."""
SETTLE_MS: Final = 3_000
"""For so long after its first frame a job waits for partitions that it has not read before it tells time; for
`WAIT_MS` where one that it has read has a backlog.
"""
KAFKA_TIMEOUT_S: Final = 30.0
FETCH_BYTES: Final = 65_536
"""Of a partition at once, so that turns are short while a backlog is worked off."""

_FRAME_COLUMNS: Final = {
    "record_key": "STRING",
    "device_id": "STRING",
    "site": "STRING",
    "event_time_ms": "BIGINT",
    "historical": "BOOLEAN",
    "metrics": "ARRAY<ROW<`name` STRING, `number` DOUBLE, `quality` INT, `event_time_ms` BIGINT>>",
    "partition": "INT",
    "progress": "TIMESTAMP_LTZ(3)",
}


class Frames(NamedTuple):
    """A topic's frames as rows of SQL's own kind (`RowData`), under the plant's watermark."""

    j_rows: Any
    j_columns: Any
    """Their names, in order."""


def read_frames(
    tables: StreamTableEnvironment, topic: str, bootstrap: str, group: str, *, uid: str
) -> Frames:
    """The frames; `uid` begins the identities of operators.

    Starts where `group` committed, else at the end: windows are of what is live.

    `progress` is what a frame says about how far the plant has come. That is the frame's own time, but
    within what its gateway's clock allows: a device whose clock is ahead counts as one without delay, and one
    that is far behind, or a backlog that is drained, does not hold the others back. A gateway whose clock is
    ahead cannot push further than this machine's time.
    """
    tables.execute_sql(
        f"""
        CREATE TEMPORARY TABLE `frame_records` (
          `record_key` STRING,
          `device_id` STRING,
          `site` STRING,
          `event_time_ms` BIGINT,
          `received_time_ms` BIGINT,
          `historical` BOOLEAN,
          `metrics` {_FRAME_COLUMNS["metrics"]},
          `gateway_out_us` BIGINT,
          `partition` INT METADATA VIRTUAL
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
          'key.format' = 'raw', 'key.fields' = 'record_key',
          'value.format' = 'plantwire-frame', 'value.fields-include' = 'EXCEPT_KEY'
        )
        """
    )
    clock = "GREATEST(`received_time_ms`, `gateway_out_us` / 1000)"
    within = f"LEAST(GREATEST(`event_time_ms`, {clock} - {HOLD_MS}), {clock})"
    columns = ", ".join(f"`{name}`" for name in _FRAME_COLUMNS if name != "progress")
    frames = tables.sql_query(
        f"""
        SELECT {columns}, LEAST(TO_TIMESTAMP_LTZ({within}, 3), CURRENT_TIMESTAMP) AS `progress`
        FROM `frame_records`
        """  # noqa: S608 - names and constants of ours
    )
    jvm = get_gateway().jvm
    # SQL's watermarks take partitions for idle by the clock alone, so the rows leave it for those of our own.
    # `RowData` is what SQL itself works on, nothing is converted; PyFlink alone would convert them.
    loader = jvm.Thread.currentThread().getContextClassLoader()
    row_data = jvm.java.lang.Class.forName("org.apache.flink.table.data.RowData", False, loader)
    j_schema = frames._j_table.getResolvedSchema()
    j_rows = tables._j_tenv.toDataStream(
        frames._j_table, j_schema.toPhysicalRowDataType().bridgedTo(row_data)
    )
    names = list(_FRAME_COLUMNS)
    watermarks = jvm.plantwire.FrameWatermarks(
        names.index("partition"),
        names.index("progress"),
        _count_partitions(topic, bootstrap),
        GRACE_MS,
        IDLE_MS,
        WAIT_MS,
        SETTLE_MS,
        LIVE_WITHIN_MS,
    )
    j_timed = j_rows.assignTimestampsAndWatermarks(watermarks).name("plant-time").uid(f"{uid}-plant-time")
    return Frames(j_timed, j_schema.getColumnNames())


def _count_partitions(topic: str, bootstrap: str) -> int:
    """How many partitions the topic has now; further ones join without being waited for at a start."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    return len(admin.list_topics(topic, KAFKA_TIMEOUT_S).topics[topic].partitions)


def create_frames(tables: StreamTableEnvironment, frames: Frames) -> None:
    """The view `frames`, in the time that the plant has come to."""
    _create_view(tables, FRAMES, frames.j_rows, _FRAME_COLUMNS, "progress")


def create_samples(tables: StreamTableEnvironment, frames: Frames, *, uid: str) -> None:
    """The view `samples` of `frames`, each sample in its own time where it has one.

    What is late is said of the second that a sample belongs to, once, whichever windows are asked for.
    """
    jvm = get_gateway().jvm
    opened = jvm.plantwire.OpenFrames(frames.j_columns, QUALITY_GOOD, MAX_AHEAD_MS)
    row_type = jvm.plantwire.OpenFrames.ROW.getLogicalType()
    j_type = jvm.org.apache.flink.table.runtime.typeutils.InternalTypeInfo.of(row_type)
    j_samples = frames.j_rows.process(opened, j_type).name("open-frames").uid(f"{uid}-open-frames")
    columns = {
        "device_id": "STRING",
        "metric": "STRING",
        "number": "DOUBLE",
        "measured": "TIMESTAMP_LTZ(3)",
    }
    _create_view(tables, SAMPLES, j_samples, columns, "measured")


def _create_view(
    tables: StreamTableEnvironment, name: str, j_rows: Any, columns: dict[str, str], time: str
) -> None:
    schema = Schema.new_builder()
    for column, data_type in columns.items():
        schema = schema.column(column, data_type)
    j_schema = schema.watermark(time, "SOURCE_WATERMARK()").build()._j_schema
    tables._j_tenv.createTemporaryView(name, j_rows, j_schema)

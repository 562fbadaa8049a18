"""The telemetry-patterns job: frames → matches of patterns → alarm events.

In: the table `frames` (`jobs.frame_tables`), patterns, and the alarms of patterns that the log shows active.
Out: alarm events as Row(device id, body, headers).
Guarantees: in event time; only live numbers of good quality; every sample of a watched metric that is left
out is counted with its reason (`samples_<reason>`). Not on the critical path: a match is known when the
watermark has passed it, `GRACE_MS` after what happened.
Not here: which Kafka (`jobs.main`), patterns as SQL (`domain.patterns`), alarms (`udfs.telemetry_patterns`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec
from pyflink.common import Duration, Row, Types, WatermarkStrategy
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.table import Schema, StreamTableEnvironment

from plantwire.domain.admission import MAX_AHEAD_MS
from plantwire.domain.live_windows import IDLE_MS
from plantwire.domain.patterns import (
    GRACE_MS,
    MATCH_COLUMNS,
    SAMPLE_COLUMNS,
    SAMPLES,
    matches_sql,
    patterns_of_sql,
    views_sql,
)
from plantwire.jobs.kafka_tables import KEY_AND_BODY, key_in_jvm
from plantwire.schemas.patterns import Pattern
from plantwire.schemas.records import QUALITY_GOOD, AlarmEvent
from plantwire.udfs.alarm_detection import KAFKA_ROW
from plantwire.udfs.telemetry_patterns import LoggedAlarm, PatternAlarms

NAME: Final = "telemetry-patterns"
QUERY_VERSION: Final = 2
"""To be raised with every change of the queries that are not the patterns' own: those here, and of
`jobs.frame_tables`."""
STATE_TTL: Final = "1 d"
"""A metric that is silent for longer starts afresh: Flink lets the state of its OVER windows go."""

_LARGEST: Final = "1.7976931348623157E308"
_SAMPLE_ROW: Final = Types.ROW_NAMED(
    list(SAMPLE_COLUMNS),
    [Types.INT(), Types.STRING(), Types.STRING(), Types.STRING(), Types.LONG(), Types.DOUBLE()],
)


def build(
    env: StreamExecutionEnvironment,
    tables: StreamTableEnvironment,
    patterns: Sequence[Pattern],
    logged: Sequence[AlarmEvent],
) -> DataStream:
    """Samples of `frames`, their matches, and the alarms that they are."""
    query = _digest(patterns)
    # Operators have their identity from the query, and their place in it: those of others must not take up
    # their state.
    tables.get_config().set("table.exec.uid.format", f"{NAME}-{query}-<id>_<transformation>")
    create_samples(tables, patterns)
    matches = find_matches(tables, patterns)
    # One element more than alarms, so that the topology is the same whether there are any.
    known = [LoggedAlarm(None), *map(LoggedAlarm, logged)]
    log = env.from_collection(
        [Row(_device_of(alarm), msgspec.json.encode(alarm)) for alarm in known], KEY_AND_BODY
    )
    # It is read to its end once; with other patterns it is to be read again.
    log.name("alarms-in-the-log").uid(f"alarms-in-the-log-{query}")
    return (
        key_in_jvm(matches.union(_timeless(tables, log)))
        .process(PatternAlarms(patterns), KAFKA_ROW)
        .name("pattern-alarms")
        .uid("pattern-alarms")
    )


def _timeless(tables: StreamTableEnvironment, stream: DataStream) -> DataStream:
    """`stream`, bounded, of Row(key, body), without a say in how far event time has come.

    A stream that ends puts its time at the end of all times. Where frames are silent for a moment, that would
    count alone, and no timer be told afterwards. So it is united with one that never ends and says nothing
    about time, and what comes of both is idle.
    """
    tables.execute_sql(
        """
        CREATE TEMPORARY TABLE `for_ever` (`n` INT) WITH (
          'connector' = 'datagen', 'rows-per-second' = '1', 'fields.n.min' = '0', 'fields.n.max' = '0'
        )
        """
    )
    # No row passes, but the planner does not know.
    nothing = tables.sql_query(
        "SELECT CAST(`n` AS STRING), CAST(NULL AS BYTES) FROM `for_ever` WHERE `n` > 0"
    )
    idle = WatermarkStrategy.no_watermarks().with_idleness(Duration.of_millis(IDLE_MS))
    return (
        stream.union(tables.to_append_stream(nothing, KEY_AND_BODY))
        .assign_timestamps_and_watermarks(idle)
        .name("log-without-time")
        .uid("log-without-time")
    )


def create_samples(tables: StreamTableEnvironment, patterns: Sequence[Pattern]) -> None:
    """The view `domain.patterns.SAMPLES` of `frames`: a sample once for each pattern that it is for."""
    tables.execute_sql("CREATE TEMPORARY SYSTEM FUNCTION `counted` AS 'plantwire.Counted' LANGUAGE JAVA")
    opened = """
        SELECT `f`.`record_key`, `f`.`device_id`, `f`.`site`, `f`.`historical`, `f`.`progress`,
               `m`.`name` AS `metric`, `m`.`number`, `m`.`quality`,
               COALESCE(`m`.`event_time_ms`, `f`.`event_time_ms`) AS `sample_ms`
        FROM `frames` AS `f`
        CROSS JOIN UNNEST(`f`.`metrics`) AS `m` (`name`, `number`, `quality`, `event_time_ms`)"""
    marked = f"SELECT *, {patterns_of_sql(patterns, 'device_id', 'metric')} AS `positions` FROM ({opened})"  # noqa: S608
    live = tables.sql_query(
        f"""
        SELECT `p`.`pattern_no`, `device_id`, `site`, `metric`, `sample_ms`, `number`
        FROM ({marked}) AS `o`
        CROSS JOIN UNNEST(`o`.`positions`) AS `p` (`pattern_no`)
        WHERE `p`.`pattern_no` IS NOT NULL AND `counted`(CASE
          WHEN `p`.`pattern_no` IS NULL THEN 'of_no_pattern'
          WHEN `record_key` IS NULL OR `record_key` <> `device_id` THEN 'of_another_device'
          WHEN `number` IS NULL THEN 'without_number'
          WHEN `historical` THEN 'historical'
          WHEN `quality` <> {QUALITY_GOOD} THEN 'not_good'
          WHEN TO_TIMESTAMP_LTZ(`sample_ms` - {MAX_AHEAD_MS}, 3) > CURRENT_TIMESTAMP THEN 'ahead'
          WHEN TO_TIMESTAMP_LTZ(`sample_ms` + {GRACE_MS}, 3) <= CURRENT_WATERMARK(`progress`) THEN 'late'
          WHEN ABS(`number`) <= {_LARGEST} THEN 'live'
          ELSE 'not_finite' END) = 'live'
        """  # noqa: S608 - names and constants of ours; of a pattern, what `patterns_of_sql` makes safe
    )
    schema = (
        Schema.new_builder()
        .column("pattern_no", "INT NOT NULL")
        .column("device_id", "STRING NOT NULL")
        .column("site", "STRING NOT NULL")
        .column("metric", "STRING NOT NULL")
        .column("sample_ms", "BIGINT NOT NULL")
        .column("number", "DOUBLE NOT NULL")
        .column_by_expression("event_time", f"TO_TIMESTAMP_LTZ(`sample_ms` + {GRACE_MS}, 3)")
        .watermark("event_time", "SOURCE_WATERMARK()")
        .build()
    )
    # SQL has time attributes of sources only: the rows leave it and come back, under the frames' watermark.
    rows = tables.to_append_stream(live, _SAMPLE_ROW)
    tables.create_temporary_view(SAMPLES, tables.from_data_stream(rows, schema))


def find_matches(tables: StreamTableEnvironment, patterns: Sequence[Pattern]) -> DataStream:
    """The matches in `SAMPLES` as Row(device id, `domain.pattern_alarms.Match` as JSON)."""
    tables.get_config().set("table.exec.state.ttl", STATE_TTL)
    for name, sql in views_sql().items():
        tables.create_temporary_view(name, tables.sql_query(sql))
    fields = ", ".join(f"KEY '{column}' VALUE `{column}`" for column in MATCH_COLUMNS)
    query = f"""
        SELECT `device_id`, CAST(JSON_OBJECT(KEY 'type' VALUE 'match', {fields} NULL ON NULL) AS BYTES)
        FROM ({matches_sql(patterns)})"""  # noqa: S608 - names of ours
    return tables.to_append_stream(tables.sql_query(query), KEY_AND_BODY)


def _digest(patterns: Sequence[Pattern]) -> str:
    texts = [str(QUERY_VERSION), patterns_of_sql(patterns, "device_id", "metric"), matches_sql(patterns)]
    texts += [pattern.pattern_id for pattern in patterns]
    return hashlib.blake2b("\0".join((*texts, *views_sql().values())).encode(), digest_size=6).hexdigest()


def _device_of(alarm: LoggedAlarm) -> str:
    return "" if alarm.event is None else alarm.event.device_id

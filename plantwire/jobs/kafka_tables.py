"""Kafka topics as streams of (key, body), keyed inside the JVM.

In: a table environment, a topic. Out: a KeyedStream of bodies, a stream of (key, body), or a sink.
Why the Table API: its `raw` formats hand key and body over as they are, so the key is there without
decoding the body in Python first; a Python `key_by` costs an extra Python operator and half of the
throughput. Its sinks also write headers, which PyFlink's KafkaSink cannot.
Not here: what is in a body (`schemas.codec`).
"""

from __future__ import annotations

from typing import Any, Final

from pyflink.common import Types
from pyflink.datastream import DataStream, KeyedStream
from pyflink.java_gateway import get_gateway
from pyflink.table import Schema, StatementSet, StreamTableEnvironment
from pyflink.table.expressions import col, to_timestamp_ltz

BYTES: Final = Types.PRIMITIVE_ARRAY(Types.BYTE())
KEY_AND_BODY: Final = Types.ROW([Types.STRING(), BYTES])


def key_and_body_stream(
    tables: StreamTableEnvironment, topic: str, bootstrap: str, group: str, *, from_start: bool = False
) -> DataStream:
    """The topic as Row(key, body). Starts where `group` committed, else at the beginning.

    `from_start` begins at the first record whenever there is no checkpoint to go on from.
    """
    name = f"source_{topic.replace('.', '_')}"
    startup = "earliest-offset" if from_start else "group-offsets"
    tables.execute_sql(
        f"""
        CREATE TEMPORARY TABLE `{name}` (`record_key` STRING, `body` BYTES) WITH (
          'connector' = 'kafka',
          'topic' = '{topic}',
          'properties.bootstrap.servers' = '{bootstrap}',
          'properties.group.id' = '{group}',
          'properties.auto.offset.reset' = 'earliest',
          'properties.fetch.max.wait.ms' = '100',
          'properties.fetch.min.bytes' = '1',
          'scan.startup.mode' = '{startup}',
          'key.format' = 'raw', 'key.fields' = 'record_key',
          'value.format' = 'raw', 'value.fields-include' = 'EXCEPT_KEY'
        )
        """
    )
    # to_data_stream would answer with an ExternalTypeInfo, which Python operators cannot read.
    return tables.to_append_stream(tables.from_path(name), KEY_AND_BODY)


def key_in_jvm(stream: DataStream) -> KeyedStream:
    """Key a stream of Row(key, body) by its first field; the elements of the result are the bodies.

    This is what `DataStream.key_by` builds, less the Python operator that it would compute the key in.
    """
    key_type = Types.ROW([Types.STRING()])
    j_selector = get_gateway().jvm.KeyByKeySelector()
    j_keyed = stream._j_data_stream.keyBy(j_selector, key_type.get_java_type_info())
    return KeyedStream(j_keyed, BYTES, stream)


def add_kafka_sink(
    tables: StreamTableEnvironment,
    statements: StatementSet,
    stream: DataStream,
    topic: str,
    bootstrap: str,
    *,
    with_event_time: bool = False,
) -> None:
    """Write a stream of Row(device_id, body, headers) to a topic, at least once, without lingering.

    `with_event_time`: the rows have `event_time_ms` as well, which becomes the records' timestamp; else the
    timestamp is when they are written.
    """
    name = f"sink_{topic.replace('.', '_')}"
    tables.execute_sql(
        f"""
        CREATE TEMPORARY TABLE `{name}` (
          `device_id` STRING,
          `body` BYTES,
          `headers` MAP<STRING, BYTES> METADATA
          {", `event_time` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp'" if with_event_time else ""}
        ) WITH (
          'connector' = 'kafka',
          'topic' = '{topic}',
          'properties.bootstrap.servers' = '{bootstrap}',
          'properties.linger.ms' = '0',
          'properties.acks' = 'all',
          'properties.enable.idempotence' = 'true',
          'sink.delivery-guarantee' = 'at-least-once',
          'key.format' = 'raw', 'key.fields' = 'device_id',
          'value.format' = 'raw', 'value.fields-include' = 'EXCEPT_KEY'
        )
        """
    )
    schema = (
        Schema.new_builder()
        .column("device_id", "STRING")
        .column("body", "BYTES")
        .column("headers", "MAP<STRING, BYTES>")
    )
    if not with_event_time:
        statements.add_insert(name, tables.from_data_stream(stream, schema.build()))
        return
    rows = tables.from_data_stream(stream, schema.column("event_time_ms", "BIGINT").build())
    event_time = to_timestamp_ltz(col("event_time_ms"), 3)
    statements.add_insert(name, rows.select(col("device_id"), col("body"), col("headers"), event_time))


def process_mode_operators(environment: Any) -> list[str]:
    """The Python operators of a topology that would run in a process of their own, by name.

    Where thread mode does not support a function PyFlink falls back to process mode silently, ten
    times slower; a job asks before it starts. Empty when all is well.
    """
    j_graph = environment._j_stream_execution_environment.getStreamGraph(False)
    names = []
    nodes = j_graph.getStreamNodes().iterator()
    while nodes.hasNext():
        node = nodes.next()
        factory = node.getOperatorFactory()
        if factory is None:  # sources and virtual nodes
            continue
        operator_class = factory.getStreamOperatorClass(
            get_gateway().jvm.Thread.currentThread().getContextClassLoader()
        )
        if operator_class.getSimpleName().startswith("ExternalPython"):
            names.append(str(node.getOperatorName()))
    return names

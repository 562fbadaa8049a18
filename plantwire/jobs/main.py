"""Submit a job: `flink run -d -py plantwire/jobs/main.py NAME`, such as alarm-detection.

The only place that reads settings, names real topics and executes. Cluster-wide behaviour
(checkpoints, thread mode, buffer time-out) is set in flink-conf/config.yaml.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from plantwire.jobs import (
    alarm_detection,
    anomaly_scoring,
    live_state,
    telemetry_aggregation,
    telemetry_patterns,
)
from plantwire.jobs.frame_tables import create_frames, create_samples, read_frames
from plantwire.jobs.kafka_tables import add_kafka_sink, key_and_body_stream, process_mode_operators
from plantwire.jobs.settings import JobSettings
from plantwire.platform.alarm_log import active_pattern_alarms
from plantwire.platform.pattern_source import load_patterns
from plantwire.platform.rule_topic import read_rules
from plantwire.platform.scoring_source import load_scoring
from plantwire.schemas import topics
from plantwire.schemas.patterns import Pattern
from plantwire.schemas.rule_files import Refused
from plantwire.schemas.scoring_files import ScoringEntry
from plantwire.udfs.alarm_detection import AlarmDetection
from plantwire.udfs.anomaly_scoring import AnomalyScoring
from plantwire.udfs.live_state import LiveAlarms, LiveTelemetry
from plantwire.udfs.live_windows import ShowWindows

RULES_TIMEOUT_S = 30.0


def submit_alarm_detection(settings: JobSettings, *, group: str, fast_path: bool) -> None:
    """Frames and rules from Kafka → alarms.fire and the dead-letter topic."""
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    tables = StreamTableEnvironment.create(env)
    frames = key_and_body_stream(tables, topics.TELEMETRY_RAW, settings.kafka, group)
    rules = key_and_body_stream(tables, topics.ALARMS_RULES, settings.kafka, group, from_start=True)
    detection = AlarmDetection(
        read_rules(settings.kafka, RULES_TIMEOUT_S).values(),
        settings.kafka,
        settings.redis if fast_path else None,
    )
    alarms, rejected = alarm_detection.build(frames, rules, detection)
    statements = tables.create_statement_set()
    add_kafka_sink(tables, statements, alarms, topics.ALARMS_FIRE, settings.kafka)
    add_kafka_sink(tables, statements, rejected, topics.TELEMETRY_DLQ, settings.kafka)
    statements.attach_as_datastream()
    _execute(env, alarm_detection.NAME)


def submit_live_state(settings: JobSettings, *, group: str) -> None:
    """Frames and alarm events from Kafka → Redis."""
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    tables = StreamTableEnvironment.create(env)
    frames = key_and_body_stream(tables, topics.TELEMETRY_RAW, settings.kafka, group)
    events = key_and_body_stream(tables, topics.ALARMS_FIRE, settings.kafka, group)
    live_state.build(
        frames,
        events,
        LiveTelemetry(settings.redis, settings.live_interval_ms),
        LiveAlarms(settings.redis, settings.kafka),
    )
    _execute(env, live_state.NAME)


def submit_telemetry_aggregation(settings: JobSettings, *, group: str) -> None:
    """Live samples from Kafka → windows → Redis."""
    env = _environment_of_changing_query()
    env.set_parallelism(1)
    tables = StreamTableEnvironment.create(env)
    telemetry_aggregation.name_operators(tables)
    frames = read_frames(tables, topics.TELEMETRY_RAW, settings.kafka, group, uid=telemetry_aggregation.NAME)
    create_samples(tables, frames, uid=telemetry_aggregation.NAME)
    telemetry_aggregation.build(tables, ShowWindows(settings.redis))
    _execute(env, telemetry_aggregation.NAME)


def submit_anomaly_scoring(settings: JobSettings, *, group: str) -> None:
    """Frames from Kafka → frames of scores, back to where they came from."""
    if settings.scoring_file is None:
        raise SystemExit("PLANTWIRE_SCORING_FILE is not set: it names the file that says what is scored.")
    entries = _read_scoring(settings.scoring_file)
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    tables = StreamTableEnvironment.create(env)
    frames = key_and_body_stream(tables, topics.TELEMETRY_RAW, settings.kafka, group)
    scores = anomaly_scoring.build(frames, AnomalyScoring(entries))
    statements = tables.create_statement_set()
    add_kafka_sink(tables, statements, scores, topics.TELEMETRY_RAW, settings.kafka, with_event_time=True)
    statements.attach_as_datastream()
    _execute(env, anomaly_scoring.NAME)


def submit_telemetry_patterns(settings: JobSettings, *, group: str) -> None:
    """Live samples from Kafka → matches of patterns → alarms.fire. Nothing is submitted that is not sound."""
    if settings.patterns is None:
        raise SystemExit("PLANTWIRE_PATTERNS is not set: it names the file, or folder, of the patterns.")
    patterns = _read_patterns(settings.patterns)
    env = _environment_of_changing_query()
    env.set_parallelism(1)
    tables = StreamTableEnvironment.create(env)
    frames = read_frames(tables, topics.TELEMETRY_RAW, settings.kafka, group, uid=telemetry_patterns.NAME)
    create_frames(tables, frames)
    alarms = telemetry_patterns.build(env, tables, patterns, active_pattern_alarms(settings.kafka))
    statements = tables.create_statement_set()
    add_kafka_sink(tables, statements, alarms, topics.ALARMS_FIRE, settings.kafka)
    statements.attach_as_datastream()
    _execute(env, telemetry_patterns.NAME)


def _read_patterns(path: Path) -> list[Pattern]:
    patterns = load_patterns([path])
    if isinstance(patterns, Refused):
        raise SystemExit("\n".join(str(problem) for problem in patterns.problems))
    if not patterns:
        raise SystemExit(f"PLANTWIRE_PATTERNS: there is no pattern in {path}.")
    return patterns


def _read_scoring(file: Path) -> tuple[ScoringEntry, ...]:
    entries = load_scoring(file)
    if isinstance(entries, Refused):
        raise SystemExit("\n".join(str(problem) for problem in entries.problems))
    return entries


def _environment_of_changing_query() -> StreamExecutionEnvironment:
    """After a change of the query, what the operators of the former were about is let go."""
    configuration = Configuration()
    configuration.set_string("execution.state-recovery.ignore-unclaimed-state", "true")
    env = StreamExecutionEnvironment.get_execution_environment()
    env.configure(configuration)
    return env


def _execute(env: StreamExecutionEnvironment, name: str) -> None:
    if slow := process_mode_operators(env):
        raise SystemExit(
            f"{name}: {', '.join(slow)} would run in process mode, ten times slower; "
            "set python.execution-mode: thread and use only functions that it supports"
        )
    env.execute(name)


def main() -> None:
    """Parse the command line and submit."""
    parser = argparse.ArgumentParser(prog="main.py", description="Submit a Plantwire job to Flink.")
    names = [
        alarm_detection.NAME,
        live_state.NAME,
        telemetry_aggregation.NAME,
        anomaly_scoring.NAME,
        telemetry_patterns.NAME,
    ]
    parser.add_argument("job", choices=names)
    parser.add_argument("--group", help="Kafka consumer group (default: plantwire-<job>)")
    parser.add_argument(
        "--no-redis", action="store_true", help="alarm-detection only: no fast path, Kafka output alone"
    )
    arguments = parser.parse_args()
    settings = JobSettings()
    group = arguments.group or f"plantwire-{arguments.job}"
    if arguments.job == alarm_detection.NAME:
        submit_alarm_detection(settings, group=group, fast_path=not arguments.no_redis)
    elif arguments.job == live_state.NAME:
        submit_live_state(settings, group=group)
    elif arguments.job == telemetry_aggregation.NAME:
        submit_telemetry_aggregation(settings, group=group)
    elif arguments.job == anomaly_scoring.NAME:
        submit_anomaly_scoring(settings, group=group)
    else:
        submit_telemetry_patterns(settings, group=group)


if __name__ == "__main__":
    main()

"""The live-state job: frames and alarm events → the live picture in Redis.

In: a stream of Row(device id, TelemetryFrame body), a stream of Row(device id, AlarmEvent body).
Out: Redis. Runs apart from detection, so that neither telemetry's load nor a Redis that is away can
hold an alarm up.
Not here: which Kafka (`jobs.main`), what is written (`udfs.live_state`).
"""

from __future__ import annotations

from typing import Final

from pyflink.common import Types
from pyflink.datastream import DataStream

from plantwire.jobs.kafka_tables import key_in_jvm
from plantwire.udfs.live_state import LiveAlarms, LiveTelemetry

NAME: Final = "live-state"


def build(frames: DataStream, alarm_events: DataStream, telemetry: LiveTelemetry, alarms: LiveAlarms) -> None:
    """Two independent branches that end in Redis."""
    key_in_jvm(frames).process(telemetry, Types.STRING()).name("live-telemetry").uid("live-telemetry")
    alarm_events.process(alarms, Types.STRING()).name("live-alarms").uid("live-alarms")

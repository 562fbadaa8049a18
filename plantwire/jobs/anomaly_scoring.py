"""The anomaly-scoring job: frames → scores, as telemetry of the same devices.

In: a stream of Row(device id, TelemetryFrame body).
Out: TelemetryFrames of scores as Row(device id, body, headers, event time in ms). They go where the frames
came from: so scores are shown, stored and judged by alarm rules as any metric is.
Not here: which Kafka (`jobs.main`), what a score is (`domain.anomaly`).
"""

from __future__ import annotations

from typing import Final

from pyflink.datastream import DataStream

from plantwire.jobs.kafka_tables import key_in_jvm
from plantwire.udfs.anomaly_scoring import SCORED_ROW, AnomalyScoring

NAME: Final = "anomaly-scoring"


def build(frames: DataStream, scoring: AnomalyScoring) -> DataStream:
    """Score frames, keyed by device."""
    return key_in_jvm(frames).process(scoring, SCORED_ROW).name("score-anomalies").uid("score-anomalies")

"""The alarm-detection job: frames and rules → alarm events.

In: a stream of Row(device id, TelemetryFrame body), a stream of Row(rule id, AlarmRule body).
Out: (alarm events, rejected frames), both as Row(device id, body, headers).
Guarantees: no watermark, window or database on the way.
Not here: which Kafka (`jobs.main`), what an alarm is (`domain.detection`).
"""

from __future__ import annotations

from typing import Final

from pyflink.datastream import DataStream

from plantwire.jobs.kafka_tables import key_in_jvm
from plantwire.udfs.alarm_detection import KAFKA_ROW, REJECTED, RULES_DESCRIPTOR, AlarmDetection

NAME: Final = "alarm-detection"


def build(frames: DataStream, rules: DataStream, detection: AlarmDetection) -> tuple[DataStream, DataStream]:
    """Join frames, keyed by device, with the rules, broadcast to every device."""
    frames_by_device = key_in_jvm(frames)
    rules_everywhere = rules.broadcast(RULES_DESCRIPTOR)
    alarms = (
        frames_by_device.connect(rules_everywhere)
        .process(detection, KAFKA_ROW)
        .name("detect-alarms")
        .uid("detect-alarms")
    )
    return alarms, alarms.get_side_output(REJECTED)

"""Every Kafka topic, Redis channel and Redis key name, spelt once.

Topics marked compacted keep the last value per key for ever; the others are kept for a time.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Topic(NamedTuple):
    """A Kafka topic as `plantwire up` creates it."""

    name: str
    partitions: int
    compacted: bool = False
    retention_ms: int = 7 * 24 * 3600 * 1000


TELEMETRY_RAW: Final = "device.telemetry.raw"
TELEMETRY_DLQ: Final = "device.telemetry.dlq"
ALARMS_FIRE: Final = "alarms.fire"
ALARMS_ACTIONS: Final = "alarms.actions"
ALARMS_STATE: Final = "alarms.state"
ALARMS_NOTIFY: Final = "alarms.notify"
ALARMS_RULES: Final = "alarms.rules"
COMMANDS_QUEUE: Final = "commands.queue"
COMMANDS_DISPATCH: Final = "commands.dispatch"
COMMANDS_ACK: Final = "commands.ack"

TOPICS: Final = (
    Topic(TELEMETRY_RAW, partitions=4),
    Topic(TELEMETRY_DLQ, partitions=1),
    Topic(ALARMS_FIRE, partitions=4, retention_ms=90 * 24 * 3600 * 1000),
    Topic(ALARMS_ACTIONS, partitions=4),
    Topic(ALARMS_STATE, partitions=4, compacted=True),
    Topic(ALARMS_NOTIFY, partitions=1),
    Topic(ALARMS_RULES, partitions=1, compacted=True),
    Topic(COMMANDS_QUEUE, partitions=4),
    Topic(COMMANDS_DISPATCH, partitions=4),
    Topic(COMMANDS_ACK, partitions=4),
)

HEADER_FINGERPRINT: Final = "avro.fingerprint"
HEADER_REASON: Final = "reason"
HEADER_SOURCE: Final = "source"
HEADER_RECEIVED_TIME: Final = "received.time.ms"
HEADER_WHOLE_SIZE: Final = "whole.size.bytes"
"""Of a dead letter that was cut to fit a record."""

CHANNEL_CRITICAL: Final = "alarms:critical"
CHANNEL_CLEARED: Final = "alarms:cleared"
CHANNEL_EVENTS: Final = "alarms:events"
CHANNEL_TELEMETRY: Final = "telemetry:updates"
CHANNEL_WINDOWS: Final = "windows:updates"

KEY_EPOCH: Final = "epoch"
KEY_ACTIVE_ALARMS: Final = "alarms:active"
KEY_DEVICES: Final = "devices"
# Present once every active alarm of the log is in Redis; gone when Redis lost its data.
KEY_ALARMS_COMPLETE: Final = "alarms:complete"
PREFIX_SEQUENCE: Final = "seq:device:"
PREFIX_HISTORY: Final = "history:device:"
PREFIX_STATE: Final = "state:device:"
# The metrics of a device that are not of good quality; gone when all are.
PREFIX_QUALITY: Final = "quality:device:"
# `window:{1s|5m}:device:{id}`, the latest window per metric; `window:{1s|5m}:end:{id}`, when it ended.
PREFIX_WINDOW: Final = "window:"
PREFIX_ALARM_REVISION: Final = "alarms:revision:"


def device_room(device_id: str) -> str:
    """The Socket.IO room of those who may see a device."""
    return f"device:{device_id}"

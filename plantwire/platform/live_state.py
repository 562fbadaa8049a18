"""The live picture of the plant in Redis: each change is one atomic step.

In: a device's coalesced values, or an AlarmEvent.
Out: Redis keys and channels as `schemas.topics` names them.
Guarantees: a telemetry message's sequence number, history entry, latest values and publication appear
together or not at all; an alarm event is applied and announced once, however often it is written,
because an alarm's revisions only go up.
Not here: what survives (Kafka, Flink's state). Redis is a cache; `platform.alarm_log` refills it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

import orjson
import redis

from plantwire.schemas import topics
from plantwire.schemas.records import AlarmEvent, AlarmKind
from plantwire.schemas.severity import Severity
from plantwire.schemas.wire import alarm_to_wire

HISTORY_LENGTH: Final = 1000
# Longer than any replay: what a restored job writes again is told by its revision.
REVISION_LIFETIME_S: Final = 7 * 24 * 3600

_TELEMETRY_SCRIPT: Final = """
redis.call('SET', KEYS[1], ARGV[2], 'NX')
local seq = string.format('%.0f', redis.call('INCR', KEYS[2]))
local any_not_good = redis.call('EXISTS', KEYS[7]) == 1
for i = 7, #ARGV, 2 do
  redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
  if any_not_good then
    redis.call('HDEL', KEYS[7], ARGV[i])
  end
end
local quality = ''
if ARGV[6] == '' then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], seq .. '-0', 'timestamp', ARGV[4], 'data', ARGV[5])
else
  quality = ',"quality":' .. ARGV[6]
  for metric, code in pairs(cjson.decode(ARGV[6])) do
    redis.call('HSET', KEYS[7], metric, code)
  end
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], seq .. '-0', 'timestamp', ARGV[4], 'data', ARGV[5],
    'quality', ARGV[6])
end
redis.call('SADD', KEYS[5], ARGV[1])
redis.call('PUBLISH', KEYS[6], '[{"deviceId":"' .. ARGV[1] .. '","seq":' .. seq ..
  ',"timestamp":' .. ARGV[4] .. ',"metrics":' .. ARGV[5] .. quality .. '}]')
return tonumber(seq)
"""

_ALARM_SCRIPT: Final = """
local applied = redis.call('GET', KEYS[1])
if applied and tonumber(applied) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[5])
if ARGV[6] == '1' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
end
if ARGV[4] ~= '' then
  redis.call('PUBLISH', ARGV[4], ARGV[3])
end
redis.call('PUBLISH', ARGV[7], ARGV[3])
return 1
"""


class LiveState:
    """Writes the live picture; one instance per process, not shared between threads.

    `client` raises `redis.RedisError` when Redis is away; every method lets it through.
    """

    def __init__(self, client: redis.Redis, history_length: int = HISTORY_LENGTH) -> None:
        self._client = client
        self._history_length = history_length
        self._telemetry = client.register_script(_TELEMETRY_SCRIPT)
        self._alarm = client.register_script(_ALARM_SCRIPT)

    def publish_telemetry(
        self,
        device_id: str,
        timestamp_ms: int,
        values: Mapping[str, float | str],
        qualities: Mapping[str, int] | None = None,
    ) -> int:
        """Give `values` (metric → number or text) the device's next sequence number, announce them, and
        answer the number.

        `qualities` has the metrics that are not good (metric → OPC quality), with or without a value; every
        other one in `values` is good.
        """
        arguments: list[str | bytes | int] = [
            device_id,
            # Taken only when Redis has none: then its history is new, and so must the epoch be.
            uuid.uuid4().hex,
            self._history_length,
            timestamp_ms,
            orjson.dumps(values),
            orjson.dumps(qualities) if qualities else "",
        ]
        for metric, value in values.items():
            arguments.append(metric)
            arguments.append(orjson.dumps(value))
        sequence: Any = self._telemetry(
            keys=[
                topics.KEY_EPOCH,
                topics.PREFIX_SEQUENCE + device_id,
                topics.PREFIX_HISTORY + device_id,
                topics.PREFIX_STATE + device_id,
                topics.KEY_DEVICES,
                topics.CHANNEL_TELEMETRY,
                topics.PREFIX_QUALITY + device_id,
            ],
            args=arguments,
        )
        return int(sequence)

    def publish_alarm(self, event: AlarmEvent) -> bool:
        """Apply and announce `event`; False when it, or a later one of this alarm, already was."""
        applied: Any = self._alarm(
            keys=[topics.PREFIX_ALARM_REVISION + event.alarm_id, topics.KEY_ACTIVE_ALARMS],
            args=[
                event.alarm_id,
                event.revision,
                orjson.dumps(alarm_to_wire(event)),
                announcement_channel(event),
                REVISION_LIFETIME_S,
                int(event.kind == AlarmKind.CLEARED),
                topics.CHANNEL_EVENTS,
            ],
        )
        return bool(applied)

    def alarms_complete(self) -> bool:
        """Whether Redis holds every active alarm."""
        return bool(self._client.exists(topics.KEY_ALARMS_COMPLETE))

    def mark_alarms_complete(self) -> None:
        """Say that every active alarm of the log is in Redis."""
        self._client.set(topics.KEY_ALARMS_COMPLETE, 1)


def announcement_channel(event: AlarmEvent) -> str:
    """The channel, besides `alarms:events`, that an event is announced on; empty for none."""
    if event.kind == AlarmKind.CLEARED:
        return topics.CHANNEL_CLEARED
    return topics.CHANNEL_CRITICAL if event.severity == Severity.CRITICAL else ""

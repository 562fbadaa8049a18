"""Live windows in Redis: latest per device and metric, and an announcement.

In: the windows of one moment. Out: hashes and a channel as `schemas.topics` names them.
Guarantees: a device's latest windows and their announcement appear together or not at all; a window that is
not newer than the one shown, as in a replay, changes nothing and is not announced.
Not here: what survives: the stored windows are in the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

import orjson
import redis

from plantwire.schemas import topics
from plantwire.schemas.windows import Window, WindowValues

DEVICES_PER_CALL: Final = 100
"""A script holds Redis, and with it alarms: about a millisecond for so many devices."""
KEPT_WINDOWS: Final = 600
"""How many windows long the latest one of a silent device is still shown."""

_SCRIPT: Final = """
local told = {}
local at = 3
for i = 3, #KEYS do
  local device, metrics = ARGV[at], tonumber(ARGV[at + 2])
  local shown = redis.call('HGET', KEYS[2], device)
  if not shown or tonumber(shown) < tonumber(ARGV[1]) then
    redis.call('HSET', KEYS[2], device, ARGV[1])
    for m = at + 3, at + 1 + 2 * metrics, 2 do
      redis.call('HSET', KEYS[i], ARGV[m], ARGV[m + 1])
    end
    redis.call('EXPIRE', KEYS[i], ARGV[2])
    told[#told + 1] = ARGV[at + 1]
  end
  at = at + 3 + 2 * metrics
end
if #told > 0 then
  redis.call('EXPIRE', KEYS[2], ARGV[2])
  redis.call('PUBLISH', KEYS[1], '[' .. table.concat(told, ',') .. ']')
end
return #told
"""


class LiveWindows:
    """Writes live windows; one instance per process, not shared between threads.

    `client` raises `redis.RedisError` when Redis is away; it is let through.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._script = client.register_script(_SCRIPT)

    def publish(self, window: Window, end_ms: int, devices: Mapping[str, Mapping[str, WindowValues]]) -> int:
        """Show and announce the windows that ended at `end_ms`; answers how many devices had none so new."""
        return sum(self._publish(window, end_ms, some) for some in _parts(devices))

    def _publish(self, window: Window, end_ms: int, devices: Mapping[str, Mapping[str, WindowValues]]) -> int:
        prefix = topics.PREFIX_WINDOW + window.name
        bounds = {"start": end_ms - window.size_ms, "end": end_ms}
        arguments: list[str | bytes | int] = [end_ms, KEPT_WINDOWS * window.every_ms // 1000]
        for device_id, metrics in devices.items():
            seen = {metric: values.to_wire() for metric, values in metrics.items()}
            message = {"deviceId": device_id, "window": window.name, **bounds, "metrics": seen}
            arguments += [device_id, orjson.dumps(message), len(seen)]
            for metric, values in seen.items():
                arguments += [metric, orjson.dumps({**bounds, **values})]
        news: Any = self._script(
            keys=[
                topics.CHANNEL_WINDOWS,
                f"{prefix}:ends",
                *(f"{prefix}:device:{device_id}" for device_id in devices),
            ],
            args=arguments,
        )
        return int(news)


def _parts(
    devices: Mapping[str, Mapping[str, WindowValues]],
) -> Iterator[dict[str, Mapping[str, WindowValues]]]:
    rest = iter(devices.items())
    while part := dict(islice(rest, DEVICES_PER_CALL)):
        yield part

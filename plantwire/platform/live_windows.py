"""Live windows in Redis: latest per device and metric, and an announcement.

In: the windows of one moment. Out: hashes and a channel as `schemas.topics` names them.
Guarantees: a device's latest windows and their announcement appear together or not at all; a window that is
not newer than the one shown, as in a replay, changes nothing and is not announced. What belongs to a device
expires with it.
Not here: what survives: the stored windows are in the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson
import redis

from plantwire.schemas import topics
from plantwire.schemas.windows import Window, WindowValues

DEVICES_PER_CALL: Final = 100
METRICS_PER_CALL: Final = 500
"""A script holds Redis, and with it alarms: about a millisecond for so many. A device is shown in one step:
one with more metrics than this has a script of its own, which takes as much longer."""
KEPT_WINDOWS: Final = 600
"""How many windows long the latest one of a silent device is still shown."""

# In slices, for what one command may be given is bounded.
_SCRIPT: Final = """
local told = {}
local at = 3
for i = 2, #KEYS, 2 do
  local first, last = at + 2, at + 1 + 2 * tonumber(ARGV[at + 1])
  local shown = redis.call('GET', KEYS[i])
  if not shown or tonumber(shown) < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[i], ARGV[1], 'EX', ARGV[2])
    for from = first, last, 1000 do
      redis.call('HSET', KEYS[i + 1], unpack(ARGV, from, math.min(from + 999, last)))
    end
    redis.call('EXPIRE', KEYS[i + 1], ARGV[2])
    told[#told + 1] = ARGV[at]
  end
  at = last + 1
end
if #told > 0 then
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
        keys = [topics.CHANNEL_WINDOWS]
        arguments: list[str | bytes | int] = [end_ms, KEPT_WINDOWS * window.every_ms // 1000]
        for device_id, metrics in devices.items():
            seen = {metric: values.to_wire() for metric, values in metrics.items()}
            message = {"deviceId": device_id, "window": window.name, **bounds, "metrics": seen}
            arguments += [orjson.dumps(message), len(seen)]
            for metric, values in seen.items():
                arguments += [metric, orjson.dumps({**bounds, **values})]
            keys += [f"{prefix}:end:{device_id}", f"{prefix}:device:{device_id}"]
        news: Any = self._script(keys=keys, args=arguments)
        return int(news)


def _parts(
    devices: Mapping[str, Mapping[str, WindowValues]],
) -> Iterator[dict[str, Mapping[str, WindowValues]]]:
    """Parts of at most `DEVICES_PER_CALL` devices with `METRICS_PER_CALL` metrics, or of one device."""
    part: dict[str, Mapping[str, WindowValues]] = {}
    metrics = 0
    for device_id, values in devices.items():
        if part and (len(part) == DEVICES_PER_CALL or metrics + len(values) > METRICS_PER_CALL):
            yield part
            part, metrics = {}, 0
        part[device_id] = values
        metrics += len(values)
    if part:
        yield part

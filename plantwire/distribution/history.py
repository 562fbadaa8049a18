"""Messages that a client missed, from the device's history in Redis.

In: a device and a range of message numbers. Out: the messages, as JSON, in order.
Guarantees: at most `HISTORY_REQUEST_MAX` messages; those that the history no longer holds are left out,
as are entries that are not what the contract says (counted).
Not here: whether the client may see the device (`sessions`).
"""

from __future__ import annotations

from typing import Final

import msgspec
import redis.asyncio

from plantwire.distribution.messages import TelemetryUpdate, qualities_of, values_of
from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.packets import ALL_GOOD, telemetry_body
from plantwire.schemas.topics import PREFIX_HISTORY

HISTORY_REQUEST_MAX: Final = 300


class History:
    """Reads histories; `client` does not decode responses."""

    def __init__(self, client: redis.asyncio.Redis, metrics: DistributionMetrics) -> None:
        self._client = client
        self._metrics = metrics

    async def messages(self, device_id: str, first: int, last: int) -> list[bytes]:
        """The telemetry messages `first`…`last` of a device; raises `redis.RedisError`."""
        entries = await self._client.xrange(
            PREFIX_HISTORY + device_id, f"{first}-0", f"{last}-0", count=HISTORY_REQUEST_MAX
        )
        return [body for entry_id, fields in entries if (body := self._body(device_id, entry_id, fields))]

    def _body(self, device_id: str, entry_id: bytes, fields: dict[bytes, bytes]) -> bytes | None:
        try:
            data = fields[b"data"]
            values_of(data)
            quality = fields.get(b"quality", ALL_GOOD)
            qualities_of(quality)
            sequence, timestamp_ms = int(entry_id.partition(b"-")[0]), int(fields[b"timestamp"])
        except (KeyError, ValueError):
            self._metrics.dropped.labels("malformed-source").inc()
            return None
        return telemetry_body(
            TelemetryUpdate(device_id, sequence, timestamp_ms, msgspec.Raw(data), msgspec.Raw(quality))
        )

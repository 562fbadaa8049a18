"""The alarm log as it comes, in Redis.

In: AlarmEvent bodies. Out: the events in Redis. Guarantees: written until Redis has them; those that the fast
path wrote are recognised there.
Not here: what Redis lost (`platform.alarm_refill`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from plantwire.platform.live_writer import RedisWriter
from plantwire.schemas.codec import ALARM_CODEC, UndecodableError


class LiveAlarmWriter:
    """`counters` makes a counter (anything with `inc()`) of a name."""

    def __init__(self, writer: RedisWriter, counters: Callable[[str], Any]) -> None:
        self._writer = writer
        self._count_published = counters("alarms_published")
        self._count_known = counters("alarms_already_published")
        self._count_rejected = counters("alarms_rejected")

    def take(self, body: bytes | None, now_us: int) -> None:
        """Write one event; raises the last `redis.RedisError` where Redis stays away."""
        try:
            event = ALARM_CODEC.decode(body or b"")
        except UndecodableError:
            self._count_rejected.inc()
            return
        if not event.published_us:
            event = msgspec.structs.replace(event, published_us=now_us)
        published = self._writer.write(lambda live: live.publish_alarm(event))
        (self._count_published if published else self._count_known).inc()

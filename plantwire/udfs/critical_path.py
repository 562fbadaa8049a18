"""The fast path: critical alarms go from the evaluating thread straight to Redis.

In: an AlarmEvent. Out: the same with `published_us` set where it was written.
Guarantees: never blocks evaluation for longer than the socket time-out, and, when Redis is away, not
even that more than once per `RETRY_AFTER_S`. What is not written here reaches Redis by way of Kafka
`alarms.fire` and the live-state job, later but surely.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec
import redis

from plantwire.platform.live_state import LiveState
from plantwire.schemas.records import AlarmEvent
from plantwire.schemas.severity import Severity

SOCKET_TIMEOUT_S: Final = 0.05
RETRY_AFTER_S: Final = 1.0


class CriticalPath:
    """Writes critical raises and their clears to Redis; counts what it could not."""

    def __init__(self, redis_url: str) -> None:
        self._live_state = LiveState(
            redis.Redis.from_url(
                redis_url,
                socket_timeout=SOCKET_TIMEOUT_S,
                socket_connect_timeout=SOCKET_TIMEOUT_S,
                socket_keepalive=True,
            )
        )
        self._retry_at_s = 0.0
        self.published = 0
        self.left_to_kafka = 0

    def publish(self, event: AlarmEvent) -> AlarmEvent:
        """Announce a critical event at once; others, and all while Redis is away, pass through."""
        if event.severity != Severity.CRITICAL:
            return event
        now_s = time.monotonic()
        if now_s < self._retry_at_s:
            self.left_to_kafka += 1
            return event
        published = msgspec.structs.replace(event, published_us=time.time_ns() // 1000)
        try:
            self._live_state.publish_alarm(published)
        except redis.RedisError:
            self._retry_at_s = time.monotonic() + RETRY_AFTER_S
            self.left_to_kafka += 1
            return event
        self.published += 1
        return published

"""The fast path: critical alarms go from the evaluating thread straight to Redis.

In: an AlarmEvent. Out: the same with `published_us` set where it was written.
Guarantees: never blocks evaluation for longer than the socket time-out, and, when Redis is away, not
even that more than once per `RETRY_AFTER_S`. What is not written here reaches Redis by way of Kafka
`alarms.fire` and who follows it, later but surely.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import redis
import structlog

from plantwire.platform.live_state import LiveState
from plantwire.schemas.records import AlarmEvent
from plantwire.schemas.severity import Severity

SOCKET_TIMEOUT_S: Final = 0.05
RETRY_AFTER_S: Final = 1.0

_log = structlog.get_logger(__name__)


class CriticalPath:
    """Writes critical raises and their clears to Redis; counts what it could and could not.

    `counters` makes a counter (anything with `inc()`) of a name.
    """

    def __init__(self, redis_url: str, counters: Callable[[str], Any]) -> None:
        self._live_state = LiveState(
            redis.Redis.from_url(
                redis_url,
                socket_timeout=SOCKET_TIMEOUT_S,
                socket_connect_timeout=SOCKET_TIMEOUT_S,
                socket_keepalive=True,
            )
        )
        self._retry_at_s = 0.0
        self._away = False
        self._count_published = counters("critical_published")
        self._count_left_to_kafka = counters("critical_left_to_kafka")

    def publish(self, event: AlarmEvent) -> AlarmEvent:
        """Announce a critical event at once; others, and all while Redis is away, pass through."""
        if event.severity != Severity.CRITICAL:
            return event
        now_s = time.monotonic()
        if now_s < self._retry_at_s:
            self._count_left_to_kafka.inc()
            return event
        published = msgspec.structs.replace(event, published_us=time.time_ns() // 1000)
        try:
            self._live_state.publish_alarm(published)
        except redis.RedisError as error:
            self._retry_at_s = time.monotonic() + RETRY_AFTER_S
            self._count_left_to_kafka.inc()
            self._tell(away=True, reason=str(error))
            return event
        self._count_published.inc()
        self._tell(away=False, reason="")
        return published

    def _tell(self, *, away: bool, reason: str) -> None:
        """Log when it changes, not for every alarm."""
        if away != self._away:
            self._away = away
            (_log.warning if away else _log.info)(
                "critical-path", redis="away" if away else "back", reason=reason
            )

"""Keeps every active alarm in Redis, also when Redis lost its data while nothing happened.

In: Redis, and the alarm log in Kafka. Out: the active alarms in Redis, and the mark that all are there.
Guarantees: Redis is looked at every `CHECK_EVERY_S`; when the mark is gone, the log is read and what is
active written again, each by its revision, so nothing newer is overwritten. A failure is tried again.
Not here: the events as they come (`platform.live_alarms`).
"""

from __future__ import annotations

import threading
from typing import Final

import redis
import structlog

from plantwire.platform.alarm_log import active_alarms
from plantwire.platform.live_state import LiveState
from plantwire.platform.topic_reader import TopicError

CHECK_EVERY_S: Final = 1.0
TIMEOUT_S: Final = 2.0

_log = structlog.get_logger(__name__)


class AlarmRefill:
    """A thread of its own with a connection of its own; `start` and `stop` it."""

    def __init__(self, redis_url: str, bootstrap: str) -> None:
        self._live_state = LiveState(
            redis.Redis.from_url(redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        )
        self._bootstrap = bootstrap
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alarm-refill", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns once the thread has, or, where Kafka keeps it, soon."""
        self._stopping.set()
        self._thread.join(2 * TIMEOUT_S)

    def refill_if_wiped(self) -> int | None:
        """Write the active alarms if Redis does not hold them; answers how many, None when it does.

        Raises `redis.RedisError` and `TopicError`.
        """
        if self._live_state.alarms_complete():
            return None
        events = active_alarms(self._bootstrap)
        for event in events:
            self._live_state.publish_alarm(event)
        self._live_state.mark_alarms_complete()
        return len(events)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                written = self.refill_if_wiped()
                if written is not None:
                    _log.info("alarms-refilled", alarms=written)
            except (redis.RedisError, TopicError) as error:
                _log.warning("alarms-not-refilled", reason=str(error))
            self._stopping.wait(CHECK_EVERY_S)

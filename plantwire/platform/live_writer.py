"""The live picture in Redis, written by whoever waits for Redis.

In: a step to take on a `LiveState`. Out: what it answers.
Guarantees: a step is repeated while Redis is away, for so long and no longer; its caller is held back, and
with it the source, which must not run ahead of a Redis that is away.
Not here: what is written (`platform.live_state`), the path that does not wait (`platform.critical_path`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

import redis

from plantwire.platform.live_state import LiveState

RETRY_FOR_S: Final = 20.0
"""Below the time-out after which Flink gives the cancellation of a task up."""
RETRY_EVERY_S: Final = 0.25

T = TypeVar("T")


class RedisWriter:
    """A LiveState that waits for Redis, for a while."""

    def __init__(self, redis_url: str, retry_for_s: float = RETRY_FOR_S) -> None:
        self._retry_for_s = retry_for_s
        self._live_state = LiveState(
            redis.Redis.from_url(redis_url, socket_timeout=2, socket_connect_timeout=2, socket_keepalive=True)
        )

    def write(self, step: Callable[[LiveState], T]) -> T:
        """Run `step`, again and again while Redis is away; raises the last RedisError in the end."""
        give_up_s = time.monotonic() + self._retry_for_s
        while True:
            try:
                return step(self._live_state)
            except redis.RedisError:
                if time.monotonic() > give_up_s:
                    raise
                # Back-pressure is the point: the source must not run ahead of a Redis that is away.
                time.sleep(RETRY_EVERY_S)

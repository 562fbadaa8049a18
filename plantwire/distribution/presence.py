"""Who is connected, in Redis: `user:{id}:sockets` (set) and `socket:{id}` (hash), both expiring.

In: arrivals and departures. Out: keys that are refreshed while the client stays.
Guarantees: best effort: presence never delays a client; entries of a process that died expire.
Changes wait in a bounded queue; when it is full they are dropped and counted, and the next refresh
writes every client that is there.
Not here: authorisation; nothing is decided by presence.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from plantwire.distribution.metrics import DistributionMetrics

CHANGES_MAX: Final = 10_000
REFRESH_PER_STEP: Final = 500

log = structlog.get_logger(__name__)


class Presence:
    """See the module; `run()` works until cancelled."""

    def __init__(self, client: redis.asyncio.Redis, metrics: DistributionMetrics, expiry_s: int) -> None:
        self._client = client
        self._metrics = metrics
        self._expiry_s = expiry_s
        self._present: dict[str, tuple[str, int]] = {}
        self._changes: asyncio.Queue[tuple[str, str, bool]] = asyncio.Queue(CHANGES_MAX)

    def arrived(self, sid: str, subject: str) -> None:
        """A client connected."""
        self._present[sid] = (subject, int(time.time() * 1000))
        self._note(sid, subject, True)

    def left(self, sid: str, subject: str) -> None:
        """A client is gone."""
        self._present.pop(sid, None)
        self._note(sid, subject, False)

    async def run(self) -> None:
        """Write changes as they come and refresh everyone at a third of the expiry."""
        loop = asyncio.get_running_loop()
        refresh_at_s = loop.time() + self._expiry_s / 3
        while True:
            try:
                async with asyncio.timeout_at(refresh_at_s):
                    sid, subject, present = await self._changes.get()
                await self._write([(sid, subject)] if present else [], [] if present else [(sid, subject)])
            except TimeoutError:
                refresh_at_s = loop.time() + self._expiry_s / 3
                await self._refresh()

    def _note(self, sid: str, subject: str, present: bool) -> None:
        try:
            self._changes.put_nowait((sid, subject, present))
        except asyncio.QueueFull:
            self._metrics.dropped.labels("presence-queue-full").inc()

    async def _refresh(self) -> None:
        everyone = [(sid, subject) for sid, (subject, _) in self._present.items()]
        for start in range(0, len(everyone), REFRESH_PER_STEP):
            await self._write(everyone[start : start + REFRESH_PER_STEP], [])

    async def _write(self, there: list[tuple[str, str]], gone: list[tuple[str, str]]) -> None:
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for sid, subject in there:
                    entry = self._present.get(sid)
                    if entry is None:
                        continue
                    user_key, socket_key = presence_keys(sid, subject)
                    pipe.sadd(user_key, sid)
                    pipe.expire(user_key, self._expiry_s)
                    pipe.hset(socket_key, mapping={"user": subject, "connectedAt": entry[1]})
                    pipe.expire(socket_key, self._expiry_s)
                for sid, subject in gone:
                    user_key, socket_key = presence_keys(sid, subject)
                    pipe.srem(user_key, sid)
                    pipe.delete(socket_key)
                await pipe.execute()
        except (RedisError, OSError) as error:
            self._metrics.dropped.labels("presence-unwritten").inc()
            log.debug("presence.unwritten", error=str(error))


def presence_keys(sid: str, subject: str) -> tuple[str, str]:
    """The keys of a user's sockets and of one socket."""
    return f"user:{subject}:sockets", f"socket:{sid}"

"""Redis → hub: subscriptions, and a snapshot whenever one may have been missed.

In: the channels `alarms:critical`, `alarms:events` and `telemetry:updates`, each on a connection of its
own, so that a critical alarm never waits behind telemetry; the keys of the live picture.
Out: calls of the hub.
Guarantees: a snapshot is read only while all channels are subscribed, and again after any of them was
lost, after the epoch changed and until Redis holds every active alarm; a lost connection is tried
again after a growing, jittered time; a connection that is silent is probed and given up.
Not here: what follows from a message (`hub`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
import redis.asyncio
import structlog
from redis.exceptions import RedisError

from plantwire.distribution.hub import Hub
from plantwire.distribution.messages import MalformedError, parse_alarm
from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.picture import DeviceState, Snapshot
from plantwire.schemas import topics
from plantwire.schemas.identifiers import is_device_id

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
SILENCE_MAX_S: Final = 5.0
WATCH_INTERVAL_S: Final = 2.0
DEVICES_PER_READ: Final = 100
CHANNELS: Final = (topics.CHANNEL_CRITICAL, topics.CHANNEL_EVENTS, topics.CHANNEL_TELEMETRY)

log = structlog.get_logger(__name__)


class RedisFeed:
    """See the module. `run()` works until cancelled."""

    def __init__(self, client: redis.asyncio.Redis, hub: Hub, metrics: DistributionMetrics) -> None:
        """`client` does not decode responses and has a connection pool of its own."""
        self._client = client
        self._hub = hub
        self._metrics = metrics
        self._subscribed: set[str] = set()
        self._wanted = asyncio.Event()
        self._cause = "start"
        self._epoch: bytes | None = None
        self._complete = False

    async def run(self) -> None:
        """Follow Redis until cancelled."""
        async with asyncio.TaskGroup() as group:
            for channel in CHANNELS:
                group.create_task(self._follow(channel), name=f"follow {channel}")
            group.create_task(self._synchronise(), name="synchronise")
            group.create_task(self._watch(), name="watch")

    async def _follow(self, channel: str) -> None:
        async def subscribe() -> None:
            async with self._client.pubsub() as subscription:
                await subscription.subscribe(channel)
                await self._read(subscription, channel)

        def lost() -> None:
            self._subscribed.discard(channel)
            self._hub.set_live(False)

        await _persist(f"subscription {channel}", subscribe, lost)

    async def _read(self, subscription: Any, channel: str) -> None:
        alarms = channel != topics.CHANNEL_TELEMETRY
        received = self._metrics.received.labels(channel)
        probed = False
        while True:
            message = await subscription.get_message(timeout=SILENCE_MAX_S)
            if message is None:
                if probed:
                    raise redis.exceptions.ConnectionError("silent")
                await subscription.ping()
                probed = True
                continue
            probed = False
            if message["type"] == "message":
                received.inc()
                if alarms:
                    self._hub.receive_alarm(message["data"])
                elif not self._hub.receive_telemetry(message["data"]):
                    self._want("sequence-went-back")
            elif message["type"] == "subscribe":
                # Also after the client library connected again by itself.
                self._hub.expect_snapshot()
                self._subscribed.add(channel)
                self._want("subscribed")

    def _want(self, cause: str) -> None:
        self._cause = cause
        self._wanted.set()

    async def _synchronise(self) -> None:
        async def work() -> None:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                if len(self._subscribed) == len(CHANNELS):
                    await self._read_snapshot()

        def failed() -> None:
            self._hub.set_live(False)
            self._want("snapshot-failed")

        await _persist("snapshot", work, failed)

    async def _read_snapshot(self) -> None:
        self._metrics.resynchronised.labels(self._cause).inc()
        self._hub.begin_snapshot()
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.get(topics.KEY_EPOCH)
            pipe.exists(topics.KEY_ALARMS_COMPLETE)
            pipe.hvals(topics.KEY_ACTIVE_ALARMS)
            pipe.smembers(topics.KEY_DEVICES)
            epoch, complete, bodies, members = await pipe.execute()
        alarms = []
        for body in bodies:
            try:
                alarms.append(parse_alarm(body))
            except MalformedError as error:
                self._metrics.dropped.labels("malformed-source").inc()
                log.warning("source.malformed", reason=str(error))
        device_ids = sorted(name for raw in members if is_device_id(name := raw.decode("utf-8", "replace")))
        devices: dict[str, DeviceState] = {}
        for start in range(0, len(device_ids), DEVICES_PER_READ):
            devices.update(await self._read_devices(device_ids[start : start + DEVICES_PER_READ]))
        self._epoch, self._complete = epoch, bool(complete)
        snapshot = Snapshot(epoch.decode() if epoch is not None else None, bool(complete), alarms, devices)
        self._hub.finish_snapshot(snapshot)
        if len(self._subscribed) == len(CHANNELS) and not self._wanted.is_set():
            self._hub.set_live(True)

    async def _read_devices(self, device_ids: list[str]) -> dict[str, DeviceState]:
        """The latest values with the message number they are of; one atomic step for each device."""
        async with self._client.pipeline(transaction=True) as pipe:
            for device_id in device_ids:
                pipe.hgetall(topics.PREFIX_STATE + device_id)
                pipe.xrevrange(topics.PREFIX_HISTORY + device_id, count=1)
                pipe.hgetall(topics.PREFIX_QUALITY + device_id)
            replies = await pipe.execute()
        devices = {}
        for device_id, values, entries, qualities in zip(
            device_ids, replies[::3], replies[1::3], replies[2::3], strict=True
        ):
            try:
                entry_id, fields = entries[0]
                devices[device_id] = DeviceState(
                    int(entry_id.partition(b"-")[0]),
                    int(fields[b"timestamp"]),
                    {metric.decode(): orjson.loads(value) for metric, value in values.items()},
                    {metric.decode(): int(code) for metric, code in qualities.items()},
                )
            except (IndexError, KeyError, ValueError) as error:
                self._metrics.dropped.labels("malformed-source").inc()
                log.warning("source.malformed", device_id=device_id, reason=repr(error))
        return devices

    async def _watch(self) -> None:
        """Notice a Redis that was wiped, and one whose alarms are complete again, without any message."""

        async def work() -> None:
            while True:
                await asyncio.sleep(WATCH_INTERVAL_S)
                if not self._hub.live:
                    # A snapshot is due in any case as soon as there is a connection.
                    continue
                async with self._client.pipeline(transaction=True) as pipe:
                    pipe.get(topics.KEY_EPOCH)
                    pipe.exists(topics.KEY_ALARMS_COMPLETE)
                    epoch, complete = await pipe.execute()
                if epoch != self._epoch:
                    self._hub.expect_snapshot()
                    self._want("epoch-changed")
                elif bool(complete) != self._complete:
                    self._want("alarms-complete")

        await _persist("watch", work, lambda: None)


async def _persist(name: str, work: Callable[[], Awaitable[None]], on_failure: Callable[[], None]) -> None:
    """Do `work` again whenever Redis fails it, after a time that grows until the work lasts."""
    loop = asyncio.get_running_loop()
    backoff_s = BACKOFF_FIRST_S
    while True:
        started_s = loop.time()
        try:
            await work()
        except (RedisError, OSError) as error:
            on_failure()
            if loop.time() - started_s > BACKOFF_MAX_S:
                backoff_s = BACKOFF_FIRST_S
            log.warning("redis.lost", part=name, error=str(error), retry_s=round(backoff_s, 2))
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

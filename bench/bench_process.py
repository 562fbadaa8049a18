"""Processes of the bench itself that speak JSON lines: the load generator and the clients.

In: a module, an order. Out: its messages, one after the other.
Guarantees: a process that ends before its message came raises BenchError with the end of its error output;
leaving the context ends the process.
Not here: what is said (`bench.load_generator`, `bench.socket_clients`).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from bench.report import ROOT
from bench.stack_control import BenchError

LINE_MAX_BYTES: Final = 16 * 1024 * 1024
END_TIMEOUT_S: Final = 60.0
ERROR_TAIL_CHARACTERS: Final = 800


class BenchProcess:
    """A running module of the bench."""

    def __init__(self, module: str, process: asyncio.subprocess.Process) -> None:
        self._module = module
        self._process = process
        self.pid = process.pid

    def say(self, line: bytes) -> None:
        """Write a line to its standard input; lines are few and small, so nothing is awaited."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")

    async def hear(self, event: str, timeout_s: float) -> dict[str, Any]:
        """Its next message, which must be `event`."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BenchError(f"{self._module} did not say {event!r} within {timeout_s:.0f} s") from None
        if not line:
            raise BenchError(f"{self._module} ended: {await self._last_words()}")
        message: dict[str, Any] = msgspec.json.decode(line)
        if message["event"] != event:
            raise BenchError(f"{self._module} said {message} instead of {event!r}")
        return message

    async def end(self) -> None:
        """Close its standard input and wait until it has ended well."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                code = await self._process.wait()
        except TimeoutError:
            raise BenchError(f"{self._module} did not end within {END_TIMEOUT_S:.0f} s") from None
        if code != 0:
            raise BenchError(f"{self._module} ended with {code}: {await self._last_words()}")

    async def _last_words(self) -> str:
        assert self._process.stderr is not None
        words = (await self._process.stderr.read()).decode(errors="replace").strip()
        return words[-ERROR_TAIL_CHARACTERS:] or "it said nothing"


@asynccontextmanager
async def bench_process(module: str, order: msgspec.Struct) -> AsyncIterator[BenchProcess]:
    """Start `python -m MODULE` and give it its order."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_MAX_BYTES,
        cwd=ROOT,
    )
    try:
        started = BenchProcess(module, process)
        started.say(msgspec.json.encode(order))
        yield started
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

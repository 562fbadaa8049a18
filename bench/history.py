"""`python -m bench.history`: how long a question for history takes, from 15 min to a year.

In: command line. Out: bench/results/history.json and tables; exit code 0 when it ran.
Guarantees: every question is put over HTTP to a distribution process as it is deployed, for another series
than the one before; its answer is checked for the tier and the number of points that the range must have.
Not here: what a figure means (README.md), the rows (`bench.history_rows`).
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import psycopg
from rich.console import Console
from rich.table import Table

from bench import report
from bench.history_rows import Filled, fill, series_name
from bench.http_process import HttpProcess
from bench.spread import Distribution, distribution
from plantwire.platform.tokens import Role, TokenAuthority
from plantwire.schemas.tiers import DAY_MS, HOUR_MS, MINUTE_MS
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.postgres import Postgres
from plantwire.stack.servers.redis import Redis

READY_TIMEOUT_S: Final = 60.0
YEAR: Final = "1 year"
YEAR_TARGET_MS: Final = 200.0
RAW_EQUIVALENT_TARGET: Final = 50_000_000
# How often the process is asked for a sign of life, which holds up whatever holds up its event loop.
PULSE_INTERVAL_S: Final = 0.005
PULSE_IDLE_S: Final = 5.0
SECRET: Final = secrets.token_hex(32)


class Range(msgspec.Struct, frozen=True):
    """A range until now, and the answer that it must have."""

    name: str
    span_ms: int
    tier: str
    points_min: int


RANGES: Final = (
    Range("15 min", 15 * MINUTE_MS, "1s", 880),
    Range("1 h", HOUR_MS, "1s", 710),
    Range("8 h", 8 * HOUR_MS, "1s", 950),
    Range("1 d", DAY_MS, "1m", 710),
    Range("7 d", 7 * DAY_MS, "1m", 660),
    Range("30 d", 30 * DAY_MS, "1h", 710),
    # A little less than what the 1 h tier is kept, so that it answers, in points of 12 h with the first one
    # whole: a year and more is half as many points.
    Range(YEAR, 365 * DAY_MS - 13 * HOUR_MS, "1h", 720),
)


class Measured(msgspec.Struct, frozen=True):
    """What the questions for one range showed."""

    name: str
    tier: str
    step_ms: int
    points: int
    bytes: int
    first_ms: float
    """The very first question for this range, before anything was in a cache of the process."""
    ms: Distribution


class Reader(HttpProcess):
    """A distribution process."""

    def __init__(self, database: str, redis: str, folder: Path) -> None:
        super().__init__("distribution", "plantwire.distribution", folder / "distribution.log")
        self.settings = {
            "PLANTWIRE_DATABASE": database,
            "PLANTWIRE_REDIS": redis,
            "PLANTWIRE_DISTRIBUTION_PORT": str(self.port),
            "PLANTWIRE_TOKEN_SECRET": SECRET,
        }


@contextmanager
def servers(folder: Path, database: str | None) -> Iterator[tuple[str, Reader]]:
    """The database's URL and a ready distribution process."""
    ports = free_ports(2)
    redis = Redis(folder / "redis", ports[0], folder / "redis.log")
    postgres = Postgres(folder / "postgres", ports[1], folder / "postgres.log", secrets.token_hex(16))
    wanted = [redis] if database is not None else [redis, postgres]
    reader = Reader(database or postgres.url, redis.url, folder)
    try:
        for server in (*wanted, reader):
            server.prepare()
            server.start()
        for server in (*wanted, reader):
            server.wait_ready(READY_TIMEOUT_S)
        yield database or postgres.url, reader
    finally:
        for server in (reader, *reversed(wanted)):
            server.stop()


async def measure(client: httpx.AsyncClient, asked: Range, filled: Filled, times: int) -> Measured:
    """Ask `times` times, one after the other, for one series after the other."""
    taken_ms: list[float] = []
    answer: dict[str, Any] = {}
    size = 0
    for number in range(times + 1):
        device, metric = series_name(number % filled.series)
        parameters = {
            "metric": metric,
            "from": str(filled.until_ms - asked.span_ms),
            "to": str(filled.until_ms),
        }
        began_s = time.perf_counter()
        response = await client.get(f"/api/devices/{device}/history", params=parameters)
        taken_ms.append((time.perf_counter() - began_s) * 1000)
        response.raise_for_status()
        answer, size = response.json(), len(response.content)
        found = (answer["resolution"], len(answer["points"]) >= asked.points_min)
        if found != (asked.tier, True):
            raise SystemExit(f"{asked.name}: {found[0]}, {len(answer['points'])} points: not what it must be")
    return Measured(
        name=asked.name,
        tier=answer["resolution"],
        step_ms=answer["stepMs"],
        points=len(answer["points"]),
        bytes=size,
        first_ms=round(taken_ms[0], 3),
        ms=_spread(taken_ms[1:]),
    )


async def pulse(client: httpx.AsyncClient, stop: asyncio.Event) -> list[float]:
    """How long the process takes to answer what needs nothing but its event loop, in ms."""
    taken_ms = []
    while not stop.is_set():
        began_s = time.perf_counter()
        (await client.get("/healthz")).raise_for_status()
        taken_ms.append((time.perf_counter() - began_s) * 1000)
        await asyncio.sleep(PULSE_INTERVAL_S)
    return taken_ms


async def run(url: str, filled: Filled, times: int) -> tuple[list[Measured], Distribution, Distribution]:
    """All ranges; the pulse at rest and meanwhile."""
    authority = TokenAuthority(SECRET, "plantwire", "plantwire")
    token = authority.issue("bench", Role.VIEWER, ["*"], int(time.time()), 3600)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        resting = asyncio.Event()
        at_rest = asyncio.create_task(pulse(client, resting))
        await asyncio.sleep(PULSE_IDLE_S)
        resting.set()
        idle = _spread(await at_rest)
        busy = asyncio.Event()
        meanwhile = asyncio.create_task(pulse(client, busy))
        found = [await measure(client, asked, filled, times) for asked in RANGES]
        busy.set()
        return found, idle, _spread(await meanwhile)


def _spread(values: Sequence[float]) -> Distribution:
    found = distribution(values)
    assert found is not None
    return found


def print_figures(
    console: Console, found: Sequence[Measured], idle: Distribution, busy: Distribution
) -> None:
    """A line per range."""
    table = Table("range", "tier", "step, s", "points", "KiB", "first, ms", "p50", "p95", "p99, ms")
    for one in found:
        times = (f"{value:.1f}" for value in (one.first_ms, one.ms.p50, one.ms.p95, one.ms.p99))
        size = f"{one.bytes / 1024:.0f}"
        table.add_row(one.name, one.tier, f"{one.step_ms / 1000:g}", str(one.points), size, *times)
    console.print(table)
    console.print(
        f"a sign of life takes p99 {idle.p99:.1f} ms at rest, {busy.p99:.1f} ms while history is asked for"
    )


def main(words: Sequence[str] | None = None) -> int:
    """Measure and report; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__)
    parser.add_argument("--database", help="an empty database to fill and leave so; else an embedded server")
    parser.add_argument("--series", type=int, default=40, help="series of a year, a sample a second each")
    parser.add_argument("--times", type=int, default=200, help="questions for each range")
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    arguments = parser.parse_args(words)
    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix="plantwire-bench-") as name,
        servers(Path(name), arguments.database) as (url, reader),
    ):
        with psycopg.connect(url, autocommit=True) as connection:
            filled = fill(connection, arguments.series, int(time.time() * 1000))
        console.print(
            f"{filled.rows:,} rows for {filled.raw_equivalent:,} samples, {filled.variant}, "
            f"PostgreSQL {filled.server}, in {filled.took_s:.0f} s"
        )
        found, idle, busy = asyncio.run(run(reader.url, filled, arguments.times))
    year = next(one for one in found if one.name == YEAR)
    outcome = report.make_report(
        "history",
        parameters={"series": arguments.series, "times": arguments.times, "variant": filled.variant},
        figures={"filled": filled, "ranges": found, "pulse_ms": {"at_rest": idle, "meanwhile": busy}},
        ratios={},
        targets=(
            report.below("a year of one metric, p99", year.ms.p99, YEAR_TARGET_MS, "ms"),
            report.below("a year of one metric, first question", year.first_ms, YEAR_TARGET_MS, "ms"),
            report.at_least("raw-equivalent rows", filled.raw_equivalent, RAW_EQUIVALENT_TARGET),
        ),
    )
    path = report.write_report(outcome, arguments.results)
    print_figures(console, found, idle, busy)
    report.print_targets(console, outcome.targets)
    console.print(f"Written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""History read from the database.

In: a plan (`history_plan`), a device, a metric. Out: points in the order of time, a page at a time.
Guarantees: no query runs longer than its bound, no more than `connections_max` at once and `waiting_max`
waiting; a database that is away, slow, without tables or closed to its role is an error that says so, and
disturbs nothing else;
connections are made when they are needed, so it is found again by itself; nothing can be written.
The event loop is held for one slice of `SLICE_ROWS` rows at most: alarms go through it too.
Not here: which tier (`history_plan`), how points are written (`history_formats`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from plantwire.distribution.history_plan import Plan
from plantwire.schemas.records import QUALITY_GOOD
from plantwire.schemas.tiers import RAW, TIERS

SLICE_ROWS: Final = 500
CONNECT_TIMEOUT_S: Final = 3
# How long an unused connection is kept, and how long one that cannot be made is tried for again.
IDLE_MAX_S: Final = 60.0
RECONNECT_MAX_S: Final = 5.0
# What the database may take beyond its own bound on a statement until it counts as gone.
SILENCE_MAX_S: Final = 2.0
# How often the database is asked up to where rows of its tables may be gone.
GONE_EVERY_S: Final = 60.0
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AWAY: Final = "The database is not reachable at the moment."

# timestamp (ms), avg, min, max, sum, count
Point = tuple[int, float, float, float, float, int]

_GONE: Final = "SELECT relation, (extract(epoch FROM gone_before) * 1000)::bigint FROM storage_retention"
_RAW: Final = sql.SQL(
    "SELECT (date_part('epoch', time) * 1000)::bigint, number, number, number, number, 1::bigint "
    "FROM {table} WHERE device_id = %(device)s AND metric = %(metric)s "
    "AND time >= %(start)s AND time < %(end)s AND number IS NOT NULL AND quality = %(good)s "
    "ORDER BY time LIMIT %(rows)s"
)
_TIER: Final = sql.SQL(
    "SELECT (date_part('epoch', bucket) * 1000)::bigint, avg, min, max, sum, count FROM {table} "
    "WHERE device_id = %(device)s AND metric = %(metric)s AND bucket >= %(start)s AND bucket < %(end)s "
    "ORDER BY bucket LIMIT %(rows)s"
)
# Sums in the order of time, so that the same rows give the same bits; an average is weighted by count.
_MERGED: Final = sql.SQL(
    "SELECT (date_part('epoch', point) * 1000)::bigint, sum / count, min, max, sum, count FROM ("
    "SELECT date_bin(%(step)s, bucket, %(epoch)s) AS point, min(min) AS min, max(max) AS max, "
    "sum(sum ORDER BY bucket) AS sum, sum(count)::bigint AS count FROM {table} "
    "WHERE device_id = %(device)s AND metric = %(metric)s AND bucket >= %(start)s AND bucket < %(end)s "
    "GROUP BY 1) AS points ORDER BY point LIMIT %(rows)s"
)

_log = structlog.get_logger(__name__)


class HistoryError(Exception):
    """No answer from the database; `reason` and text are fit for the client."""

    reason = "unavailable"


class HistoryBusyError(HistoryError):
    """More questions than may wait, or one that waited too long for its turn."""

    reason = "busy"


class HistoryTimeoutError(HistoryError):
    """The query took longer than its bound."""

    reason = "timeout"


@dataclass(frozen=True)
class Page:
    """Points in the order of time, and the time of the next one where there are more."""

    points: list[Point]
    next_ms: int | None


class HistoryStore:
    """Reads the tiers; `open` before the first question, `close` at the end."""

    def __init__(
        self,
        url: str,
        connections_max: int,
        waiting_max: int,
        wait_s: float,
        statement_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ValueError where `url` is none; its text does not repeat it, for a password may be in it."""
        try:
            conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise ValueError("the database URL is not one of PostgreSQL") from None
        self._connections_max = connections_max
        self._connections_used = 0
        self._refusal: str | None = None
        self._clock = clock
        self._gone_before_ms: Mapping[str, int] = {}
        self._gone_due_s = 0.0
        self._wait_s = wait_s
        self._statement_timeout_s = statement_timeout_s
        self._pool = AsyncConnectionPool(
            url,
            kwargs={
                "autocommit": True,
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": "plantwire-distribution",
                # Plans made for the times at hand leave out chunks that a general one has to open.
                "prepare_threshold": None,
            },
            min_size=0,
            max_size=connections_max,
            max_waiting=waiting_max,
            timeout=wait_s,
            max_idle=IDLE_MAX_S,
            reconnect_timeout=RECONNECT_MAX_S,
            name="history",
            open=False,
            configure=self._configure,
            check=AsyncConnectionPool.check_connection,
        )

    async def open(self) -> None:
        """Ready to be asked; connects to nothing yet."""
        await self._pool.open()

    async def close(self) -> None:
        """Let go of every connection."""
        await self._pool.close()

    async def gone_before_ms(self) -> Mapping[str, int]:
        """By tier's name, the time before which rows may have been deleted while it was kept shorter; at most
        a minute old. Where the database does not say, what it said last: `read` tells what is amiss.
        """
        if self._clock() >= self._gone_due_s:
            self._gone_due_s = self._clock() + GONE_EVERY_S
            try:
                async with self._connection() as connection:
                    rows = await (await connection.execute(_GONE)).fetchall()
                gone: dict[str, int] = dict(rows)
                self._gone_before_ms = {tier.name: gone.get(tier.table, 0) for tier in TIERS}
            except (psycopg.Error, TimeoutError):
                pass
        return self._gone_before_ms

    async def read(self, plan: Plan, device_id: str, metric: str, limit: int) -> Page:
        """At most `limit` points; raises HistoryError."""
        try:
            async with self._connection() as connection:
                rows = await self._rows(connection, plan, device_id, metric, limit + 1)
        except TooManyRequests:
            raise HistoryBusyError("Too many requests for history are waiting.") from None
        except PoolTimeout:
            if self._connections_used < self._connections_max:
                raise HistoryError(_AWAY) from None
            raise HistoryBusyError(
                f"No connection to the database has become free within {self._wait_s:g} s."
            ) from None
        except psycopg.errors.QueryCanceled:
            raise HistoryTimeoutError(
                f"The database took longer than {self._statement_timeout_s:g} s: "
                "ask for less, or for a coarser resolution."
            ) from None
        except psycopg.errors.UndefinedTable:
            raise HistoryError(
                "Nothing has been stored yet: the database has no tables, or its role may not see them."
            ) from None
        except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError):
            raise HistoryError(_AWAY) from None
        except psycopg.Error as error:
            self._tell(error)
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                raise HistoryError("The database does not let this server's role read the tables.") from None
            raise HistoryError("The database refuses the question.") from None
        self._refusal = None
        next_ms = rows.pop()[0] if len(rows) > limit else None
        return Page(rows, next_ms)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """A connection for one question, for as long as one may take."""
        async with self._pool.connection() as connection:
            self._connections_used += 1
            try:
                async with asyncio.timeout(self._statement_timeout_s + SILENCE_MAX_S):
                    yield connection
            finally:
                self._connections_used -= 1

    def _tell(self, error: psycopg.Error) -> None:
        """Log a refusal, once while it is the same."""
        if error.sqlstate != self._refusal:
            self._refusal = error.sqlstate
            _log.warning("history.refused", sqlstate=error.sqlstate, reason=error.diag.message_primary)

    async def _rows(
        self, connection: psycopg.AsyncConnection, plan: Plan, device_id: str, metric: str, rows_max: int
    ) -> list[Point]:
        query = _RAW if plan.tier is RAW else _MERGED if plan.is_merged else _TIER
        values = {
            "device": device_id,
            "metric": metric,
            "start": EPOCH + timedelta(milliseconds=plan.start_ms),
            "end": EPOCH + timedelta(milliseconds=plan.end_ms),
            "step": timedelta(milliseconds=plan.step_ms),
            "epoch": EPOCH,
            "good": QUALITY_GOOD,
            "rows": rows_max,
        }
        found: list[Point] = []
        async with connection.cursor(binary=True) as cursor:
            await cursor.execute(query.format(table=sql.Identifier(plan.tier.table)), values)
            while rows := await cursor.fetchmany(SLICE_ROWS):
                found.extend(rows)
                await asyncio.sleep(0)
        return found

    async def _configure(self, connection: psycopg.AsyncConnection) -> None:
        await connection.execute(
            "SELECT set_config('statement_timeout', %s, false), "
            "set_config('default_transaction_read_only', 'on', false)",
            [str(int(self._statement_timeout_s * 1000))],
        )

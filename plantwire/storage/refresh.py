"""All tiers brought up to date at once, when someone asks.

In: a connection to a migrated database, settings. Out: tiers that hold all that was stored before the call.
Guarantees: with TimescaleDB only complete buckets are materialised (the one in progress is computed when it
is asked for), and nothing where the tier below may be gone already.
Not here: the regular upkeep (`policies`, `upkeep`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from psycopg import errors, sql

from plantwire.storage.migration import Connection, Variant
from plantwire.storage.policies import computable_days, refreshes
from plantwire.storage.rollups import LOCK, ROLLUPS, roll_up
from plantwire.storage.settings import StorageSettings

RETRY_S: Final = 0.2
BUCKETS: Final = {"telemetry_1m": "1 minute", "telemetry_1h": "1 hour", "telemetry_1d": "1 day"}


def refresh_tiers(
    connection: Connection, variant: Variant, settings: StorageSettings, timeout_s: float
) -> None:
    """Bring 1 min, 1 h and 1 d up to date, in this order; raises psycopg.Error.

    `timeout_s` bounds the wait for others that do the same.
    """
    deadline_s = time.monotonic() + timeout_s
    if variant is Variant.POSTGRESQL:
        with _alone(connection, timeout_s):
            for rollup in ROLLUPS:
                while roll_up(connection, rollup)[0]:
                    pass
        return
    for refresh in refreshes(settings, computable_days(connection)):
        reach = sql.Literal(f"{refresh.reach_days} days")
        start = sql.SQL("now() - {}::interval").format(reach) if refresh.reach_days else sql.SQL("NULL")
        end = sql.SQL("time_bucket({}::interval, now())").format(sql.Literal(BUCKETS[refresh.tier]))
        call = sql.SQL("CALL refresh_continuous_aggregate({}::regclass, {}, {})").format(
            sql.Literal(refresh.tier), start, end
        )
        while True:
            try:
                connection.execute(call)
                break
            except errors.LockNotAvailable:  # a policy is at it
                if time.monotonic() > deadline_s:
                    raise
                threading.Event().wait(RETRY_S)


@contextmanager
def _alone(connection: Connection, timeout_s: float) -> Iterator[None]:
    """Nobody else computes tiers meanwhile: a step that finds another at it leaves the work to that one, and
    has nothing to show for it yet. Raises LockNotAvailable.
    """
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute(f"SET LOCAL lock_timeout = {max(1, int(timeout_s * 1000))}".encode())
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))  # it outlives the transaction
    try:
        yield
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))

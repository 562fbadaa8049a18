"""All tiers brought up to date when someone asks, also while the upkeep is at it."""

from __future__ import annotations

import threading

import psycopg
import pytest

from plantwire.schemas.records import Metric
from plantwire.storage.migration import Connection, Variant
from plantwire.storage.refresh import refresh_tiers
from plantwire.storage.rollups import LOCK
from plantwire.storage.tables import TelemetryTables
from tests.integration.storage.storage_rig import connect, keeping_for_ever, read_tiers, wait_for, write_all
from tests.telemetry_truth import frame, record, samples_of, tiers

FRAMES = [frame("press-1", 1_790_000_000_000 + n * 10_000, Metric("a", float(n))) for n in range(50)]
_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def store(database: str) -> None:
    tables = TelemetryTables(keeping_for_ever(database))
    write_all(tables, [record(one) for one in FRAMES], 50)
    tables.close()


def is_waited_for(connection: Connection) -> bool:
    row = connection.execute(_WAITING).fetchone()
    return row is not None and row[0] > 0


def test_it_waits_for_a_step_of_another(plain_database: str) -> None:
    store(plain_database)
    settings = keeping_for_ever(plain_database)
    with connect(settings) as other, connect(settings) as mine, connect(settings) as watching:
        work = (mine, Variant.POSTGRESQL, settings, 30.0)
        refreshing = threading.Thread(target=refresh_tiers, args=work)
        with other.transaction():
            other.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            refreshing.start()
            wait_for(lambda: is_waited_for(watching), 10, "it waits")
        refreshing.join(30)
        assert not refreshing.is_alive()
        assert read_tiers(watching) == tiers(samples_of(FRAMES))
        # Others have their turn again.
        taken = other.execute("SELECT pg_try_advisory_xact_lock(%s)", (LOCK,)).fetchone()
        assert taken == (True,)


def test_it_says_so_where_another_does_not_come_to_an_end(plain_database: str) -> None:
    store(plain_database)
    settings = keeping_for_ever(plain_database)
    with connect(settings) as other, connect(settings) as mine, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        with pytest.raises(psycopg.errors.LockNotAvailable):
            refresh_tiers(mine, Variant.POSTGRESQL, settings, 0.2)

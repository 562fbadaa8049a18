"""Storage processes as consumer groups of one topic, and what they leave in their databases.

In: a broker, databases. Out: `Group`: a process and its database.
Not here: the process itself (`tests.integration.storage.storage_process`), the rows (`stored_tables`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from plantwire.storage.migration import require_current
from plantwire.storage.refresh import refresh_tiers
from plantwire.storage.tables import open_connection
from tests.conftest import running
from tests.integration.storage.storage_process import StorageProcess
from tests.integration.storage.storage_rig import keeping_for_ever
from tests.truth.offline_tables import Offline
from tests.truth.pipeline import wait_until_stored
from tests.truth.stored_tables import TABLES, assert_same, digests, read

REFRESH_WITHIN_S = 120.0


class Group:
    """A consumer group of one storage process, and its database."""

    def __init__(self, bootstrap: str, database: str, name: str, folder: Path, **settings: str) -> None:
        self._bootstrap = bootstrap
        self._name = name
        self.database = database
        log_file = folder / f"storage-{name}.log"
        self.process = StorageProcess(bootstrap, database, log_file, name, **settings)

    def wait_until_through(self, timeout_s: float) -> None:
        wait_until_stored(self._bootstrap, self._name, timeout_s)

    def run_through(self, timeout_s: float) -> None:
        """Start, store the whole topic, stop."""
        with running(self.process):
            self.wait_until_through(timeout_s)

    def assert_is(self, expected: Offline) -> None:
        """Every row of every table is the offline one."""
        with self._settled() as connection:
            for table in TABLES:
                assert_same(table, read(connection, table), expected.tables[table])

    def digests(self) -> dict[str, tuple[int, int]]:
        """Of every table, its tiers up to date."""
        with self._settled() as connection:
            return digests(connection)

    @contextmanager
    def _settled(self) -> Iterator[psycopg.Connection]:
        settings = keeping_for_ever(self.database)
        with open_connection(settings, "plantwire-test") as connection:
            connection.execute("SET statement_timeout = 0")
            refresh_tiers(connection, require_current(connection), settings, REFRESH_WITHIN_S)
            yield connection


def in_schema(database: str, name: str) -> str:
    """The URL of a new, empty schema of a database without TimescaleDB."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    return f"{database}?options=-csearch_path%3D{name}"

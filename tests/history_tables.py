"""The tables of stored telemetry for tests of those who read them, without a storage process."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

import plantwire.storage.migrations


@contextmanager
def schema(database_url: str) -> Iterator[str]:
    """The URL of an empty schema of its own; it is dropped at the end."""
    name = f"history_{secrets.token_hex(4)}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        try:
            yield f"{database_url}?options=-csearch_path%3D{name}"
        finally:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))


def make_tables(connection: psycopg.Connection) -> None:
    """Every table, as on a server without TimescaleDB, in the connection's schema."""
    folder = Path(plantwire.storage.migrations.__file__).parent
    for script in sorted(folder.glob("*.sql")):
        if ".timescaledb." not in script.name:
            connection.execute(script.read_text("utf-8").encode())

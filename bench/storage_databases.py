"""Fresh databases for `bench.storage`: on the embedded server, and on one with TimescaleDB.

In: a server. Out: the URL of an empty, migrated database; it is gone afterwards.
Guarantees: every run begins with empty tables and its own database or schema.
Not here: what is measured (`bench.storage`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from bench.storage_ways import SERIES_HYPERTABLE, SERIES_TABLE
from plantwire.storage.migration import Variant
from plantwire.storage.settings import StorageSettings
from plantwire.storage.tables import open_connection, prepare_database

POSTGRESQL: Final = "PostgreSQL"
TIMESCALEDB: Final = "TimescaleDB"


@contextmanager
def fresh_database(server: str, kind: str) -> Iterator[StorageSettings]:
    """Settings for an empty database of that kind on the server at the URL."""
    name = f"bench_{secrets.token_hex(6)}"
    if kind == TIMESCALEDB:
        with _administrator(server) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        url = urlsplit(server)._replace(path=f"/{name}").geturl()
        with _administrator(url) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    else:
        with _administrator(server) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        url = f"{server}?options=-csearch_path%3D{name}"
    try:
        settings = StorageSettings(database=url)
        with open_connection(settings, "bench") as connection:
            variant = prepare_database(connection, settings)
            connection.execute(SERIES_TABLE.encode())
            if variant is Variant.TIMESCALEDB:
                connection.execute(SERIES_HYPERTABLE.encode())
        yield settings
    finally:
        drop = "DROP DATABASE {} WITH (FORCE)" if kind == TIMESCALEDB else "DROP SCHEMA {} CASCADE"
        with _administrator(server) as connection:
            connection.execute(sql.SQL(drop).format(sql.Identifier(name)))


def _administrator(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(url, autocommit=True)

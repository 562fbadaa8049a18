"""Databases with the tables of stored telemetry, for tests of their readers without a storage process."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from plantwire.storage.migration import migrate

TIMESCALEDB = "PLANTWIRE_TEST_TIMESCALEDB"


@contextmanager
def schema(database_url: str) -> Iterator[str]:
    """The URL of an empty schema of its own; it is dropped at the end."""
    name = f"history_{secrets.token_hex(4)}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    try:
        yield f"{database_url}?options=-csearch_path%3D{name}"
    finally:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))


@contextmanager
def timescale_database() -> Iterator[str]:
    """The URL of an empty database with TimescaleDB, owned by a role with a password that is no superuser;
    skips where no server is named.
    """
    server = os.environ.get(TIMESCALEDB)
    if not server:
        pytest.skip(f"{TIMESCALEDB} names no server with TimescaleDB on which databases may be made")
    name, password = f"test_{secrets.token_hex(6)}", secrets.token_hex(16)
    role, parts = sql.Identifier(name), urlsplit(server)
    with psycopg.connect(server, autocommit=True) as connection:
        make = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        connection.execute(make.format(role, sql.Literal(password)))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
    try:
        with psycopg.connect(parts._replace(path=f"/{name}").geturl(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        yield f"postgresql://{name}:{password}@{parts.hostname}:{parts.port}/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


def make_tables(url: str) -> None:
    """Every table, in the URL's schema, as its server can have them."""
    with psycopg.connect(url, autocommit=True) as connection:
        migrate(connection)

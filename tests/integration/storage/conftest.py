"""A database of its own for each test: a schema of the embedded server, or a database with TimescaleDB."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

TIMESCALEDB = "PLANTWIRE_TEST_TIMESCALEDB"


@pytest.fixture
def plain_database(database_url: str) -> Iterator[str]:
    """URL of an empty schema on a server without TimescaleDB."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    yield f"{database_url}?options=-csearch_path%3D{name}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def timescale_database() -> Iterator[str]:
    """URL of an empty database with TimescaleDB, owned by a role that is no superuser."""
    server = os.environ.get(TIMESCALEDB)
    if not server:
        pytest.skip(f"{TIMESCALEDB} names no server with TimescaleDB on which databases may be made")
    name, password = f"test_{secrets.token_hex(6)}", secrets.token_hex(16)
    parts = urlsplit(server)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'".encode())
        connection.execute(f"CREATE DATABASE {name} OWNER {name}".encode())
    try:
        with psycopg.connect(parts._replace(path=f"/{name}").geturl(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION timescaledb")
        yield f"postgresql://{name}:{password}@{parts.hostname}:{parts.port}/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            connection.execute(f"DROP ROLE {name}".encode())


@pytest.fixture(params=["postgresql", pytest.param("timescaledb", marks=pytest.mark.timescaledb)])
def telemetry_database(request: pytest.FixtureRequest) -> str:
    """URL of an empty database, of either kind."""
    name = "plain_database" if request.param == "postgresql" else "timescale_database"
    url: str = request.getfixturevalue(name)
    return url

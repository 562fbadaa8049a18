"""A database of its own for each test: a schema of the embedded server, or a database with TimescaleDB."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest

from tests import history_tables


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
    with history_tables.timescale_database() as url:
        yield url


@pytest.fixture(params=["postgresql", pytest.param("timescaledb", marks=pytest.mark.timescaledb)])
def telemetry_database(request: pytest.FixtureRequest) -> str:
    """URL of an empty database, of either kind."""
    name = "plain_database" if request.param == "postgresql" else "timescale_database"
    url: str = request.getfixturevalue(name)
    return url

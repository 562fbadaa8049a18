"""The database's schema, brought up to date.

In: a connection in autocommit mode, the files of `migrations/`. Out: a database of this program's version.
Guarantees: each migration happens wholly or not at all, once, and only one process migrates at a time (an
advisory lock); a second call changes nothing. A database that a later program has migrated, or whose applied
files differ from ours, is refused. Whether it uses TimescaleDB is decided when the first migration runs, and
stays: the upper tiers are made of different things.
Not here: policies that follow from settings (`policies`).

The extension is the business of the server's owner (`CREATE EXTENSION timescaledb` takes a superuser, which
the role of the storage has no need to be). Where the database has it, it is used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from enum import Enum
from importlib import resources
from typing import Any, Final, NamedTuple

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

LOCK: Final = 0x706C616E74776972
"""Advisory lock of whoever changes the schema or the policies."""
_FILE: Final = re.compile(r"(\d{4})_([a-z0-9_]+)(?:\.(timescaledb|postgresql))?\.sql")
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_version (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    variant    text NOT NULL,
    digest     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


class SchemaError(Exception):
    """The database is not one that this program can use as it is; the text is fit for people."""


class Variant(Enum):
    """What the database is made of."""

    TIMESCALEDB = "timescaledb"
    POSTGRESQL = "postgresql"


class Migration(NamedTuple):
    """One step."""

    version: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """Tells whether the applied file was this one."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


class SchemaState(NamedTuple):
    """What a database has."""

    variant: Variant
    version: int
    latest: int
    extension: str | None
    """The version of TimescaleDB in this database, usable or not."""

    @property
    def current(self) -> bool:
        """Whether nothing is left to do."""
        return self.version == self.latest


def load_migrations(variant: Variant) -> list[Migration]:
    """The steps for a variant, in order; raises ValueError unless they are numbered 1, 2, 3 …"""
    found: list[Migration] = []
    for file in resources.files("plantwire.storage.migrations").iterdir():
        match = _FILE.fullmatch(file.name)
        if match is not None and match[3] in (None, variant.value):
            found.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
    found.sort()
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the migrations for {variant.value} are not numbered one by one")
    return found


def migrate(connection: Connection, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Run what is missing; answers what ran. Raises SchemaError, psycopg.Error."""
    connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
    try:
        applied = _applied(connection)
        variant = _variant(connection, applied)
        wanted = load_migrations(variant) if migrations is None else migrations
        _require_known(applied, wanted)
        missing = wanted[len(applied) :]
        for migration in missing:
            with connection.transaction():
                connection.execute("SET LOCAL statement_timeout = 0")  # an index on much takes its time
                connection.execute(_TABLE)
                connection.execute(migration.sql.encode())  # as bytes: no placeholder is looked for in it
                connection.execute(
                    "INSERT INTO schema_version (version, name, variant, digest) VALUES (%s, %s, %s, %s)",
                    (migration.version, migration.name, variant.value, migration.digest),
                )
        return list(missing)
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))


def schema_state(connection: Connection) -> SchemaState:
    """What the database has, without changing it. Raises SchemaError where it is of a later program."""
    applied = _applied(connection)
    variant = _variant(connection, applied)
    wanted = load_migrations(variant)
    _require_known(applied, wanted)
    return SchemaState(variant, len(applied), len(wanted), _extension(connection))


def require_current(connection: Connection) -> Variant:
    """The database's variant; raises SchemaError where something is left to do."""
    state = schema_state(connection)
    if not state.current:
        raise SchemaError(
            f"the database's schema is version {state.version} of {state.latest}: "
            "`plantwire database migrate` brings it up to date"
        )
    return state.variant


def _applied(connection: Connection) -> list[tuple[int, str, str]]:
    """(version, variant, digest) of what has run."""
    (table,) = connection.execute("SELECT to_regclass('schema_version')").fetchone() or (None,)
    if table is None:
        return []
    rows = connection.execute("SELECT version, variant, digest FROM schema_version ORDER BY version")
    return [(version, variant, digest) for version, variant, digest in rows]


def _variant(connection: Connection, applied: Sequence[tuple[int, str, str]]) -> Variant:
    if applied:
        return Variant(applied[0][1])
    if _extension(connection) is None:
        return Variant.POSTGRESQL
    # Under this licence there are hypertables only: no continuous aggregates, no columnstore.
    (licence,) = connection.execute("SELECT current_setting('timescaledb.license', true)").fetchone() or ("",)
    return Variant.POSTGRESQL if licence == "apache" else Variant.TIMESCALEDB


def _extension(connection: Connection) -> str | None:
    found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
    return None if found is None else str(found[0])


def _require_known(applied: Sequence[tuple[int, str, str]], wanted: Sequence[Migration]) -> None:
    if len(applied) > len(wanted):
        raise SchemaError(
            f"the database's schema is version {len(applied)}, which a later Plantwire made; "
            f"this one knows {len(wanted)}"
        )
    for (version, _, digest), migration in zip(applied, wanted, strict=False):
        if version != migration.version or digest != migration.digest:
            raise SchemaError(
                f"the database's schema was made by another Plantwire: its migration {version} is not ours"
            )

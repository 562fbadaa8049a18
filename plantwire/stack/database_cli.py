"""`plantwire database`: the schema of the telemetry's database, and its tiers.

In: the database of this home, or of PLANTWIRE_DATABASE. Out: lines, or JSON; exit status 0 when it is done
(`status`: when nothing is left to do), 1 when not, or when there is no database to be had.
Not here: the work (plantwire/storage).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import psycopg
import typer
from pydantic import ValidationError

from plantwire.stack import launcher
from plantwire.stack.assembly import database_url
from plantwire.stack.errors import StackError
from plantwire.stack.secret import Secrets, database_password
from plantwire.stack.settings import load_settings, redact
from plantwire.stack.status import settings_of
from plantwire.storage.migration import Connection, SchemaError, Variant, migrate, schema_state
from plantwire.storage.migration import require_current as require_current_schema
from plantwire.storage.policies import apply_policies
from plantwire.storage.refresh import refresh_tiers
from plantwire.storage.settings import StorageSettings
from plantwire.storage.tables import describe, open_connection

app = typer.Typer(name="database", help="The telemetry's database: schema and tiers.", no_args_is_help=True)
NAMES = {Variant.TIMESCALEDB: "TimescaleDB", Variant.POSTGRESQL: "PostgreSQL without TimescaleDB"}


@app.command("migrate")
def migrate_database() -> None:
    """Bring the schema up to date, and TimescaleDB's policies where settings have changed."""
    with _database() as (connection, settings):
        ran = migrate(connection)
        state = schema_state(connection)
        changed = state.variant is Variant.TIMESCALEDB and apply_policies(connection, settings)
    for migration in ran:
        typer.echo(f"+ {migration.version:04d} {migration.name}")
    if changed:
        typer.echo("~ policies")
    typer.echo(f"version {state.version}, {NAMES[state.variant]}{'' if ran or changed else ', unchanged'}")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout instead of lines.")] = False,
) -> None:
    """Show what the database has; exit status 1 when its schema is not up to date."""
    with _database() as (connection, settings):
        state = schema_state(connection)
    found = {
        "database": redact(settings.database),
        "variant": state.variant.value,
        "version": state.version,
        "latest": state.latest,
        "extension": state.extension,
    }
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        typer.echo(f"version {state.version} of {state.latest}, {NAMES[state.variant]}")
        if state.variant is Variant.POSTGRESQL and state.extension is not None and state.version:
            typer.echo("TimescaleDB came into this database after its tables: they do not use it")
    raise typer.Exit(0 if state.current else 1)


@app.command()
def refresh(
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds to wait for others.")
    ] = 60.0,
) -> None:
    """Bring all tiers up to date now, instead of within the minutes that it takes otherwise."""
    with _database() as (connection, settings):
        refresh_tiers(connection, require_current_schema(connection), settings, timeout_s)
    typer.echo("1 min, 1 h and 1 d hold all that was stored")


@contextmanager
def _database() -> Iterator[tuple[Connection, StorageSettings]]:
    stack = load_settings()
    snapshot = launcher.running(stack)
    if snapshot is not None and not stack.is_external("database"):
        # By the stack's record, which says whether the database is ours: then its password is in this home.
        stack = settings_of(snapshot, stack.home)
    url = database_url(stack, Secrets(token=None, database=database_password(stack, create=False)))
    try:
        settings = StorageSettings(database=url)
    except ValidationError as error:
        raise StackError(f"a setting of the storage is not valid: {error.errors()[0]['msg']}") from None
    try:
        with open_connection(settings, "plantwire-cli") as connection:
            yield connection, settings
    except (psycopg.Error, SchemaError) as error:
        raise StackError(f"{redact(url)}: {describe(error)}") from None

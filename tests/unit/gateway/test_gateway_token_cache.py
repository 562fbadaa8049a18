"""The token cache: remembers, expires, is bounded."""

from __future__ import annotations

import base64
import time

import pytest

from plantwire.gateway.token_cache import EXPIRED, TokenCache
from plantwire.platform.tokens import Claims, Role, TokenAuthority, TokenError

NOW_S = int(time.time())


class CountingAuthority(TokenAuthority):
    """Counts the verifications that it really does."""

    def __init__(self) -> None:
        super().__init__("k" * 32, "plantwire", "plantwire")
        self.verified = 0

    def verify(self, token: object) -> Claims:
        self.verified += 1
        return super().verify(token)


@pytest.fixture
def authority() -> CountingAuthority:
    return CountingAuthority()


def token(authority: TokenAuthority, subject: str, lifetime_s: int = 86_400) -> str:
    return authority.issue(subject, Role.DEVICE, ["press-1"], NOW_S, lifetime_s)


def test_a_token_is_verified_once(authority: CountingAuthority) -> None:
    cache, text = TokenCache(authority), token(authority, "a")
    assert {cache.verify(text, NOW_S + n).subject for n in range(5)} == {"a"}
    assert authority.verified == 1


def test_a_remembered_token_expires(authority: CountingAuthority) -> None:
    cache, text = TokenCache(authority), token(authority, "a", 86_400)
    cache.verify(text, NOW_S)
    with pytest.raises(TokenError, match=EXPIRED):
        cache.verify(text, NOW_S + 86_400)


def test_the_text_of_expiry_is_the_authority_s_own(authority: CountingAuthority) -> None:
    with pytest.raises(TokenError, match=f"^{EXPIRED}$"):
        authority.verify(authority.issue("a", Role.DEVICE, [], NOW_S - 100, 50))


def test_the_oldest_is_forgotten_first(authority: CountingAuthority) -> None:
    cache = TokenCache(authority, size_max=2)
    a, b, c = (token(authority, subject) for subject in "abc")
    for text in (a, b, c, b, c):
        cache.verify(text, NOW_S)
    assert authority.verified == 3
    cache.verify(a, NOW_S)
    assert authority.verified == 4


def test_a_refused_token_is_not_remembered(authority: CountingAuthority) -> None:
    cache = TokenCache(authority)
    for _ in range(2):
        with pytest.raises(TokenError):
            cache.verify("x.y.z", NOW_S)
    assert authority.verified == 2


def test_a_token_with_a_deeply_nested_header_is_refused(authority: CountingAuthority) -> None:
    header = base64.urlsafe_b64encode(b"[" * 40_000).decode().rstrip("=")
    with pytest.raises(TokenError):
        TokenCache(authority).verify(f"{header}.e30.c2ln", NOW_S)

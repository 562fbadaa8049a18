"""Tokens: what is accepted, and everything that is not."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from plantwire.platform.tokens import Role, TokenAuthority, TokenError

SECRET = "s" * 32
AUTHORITY = TokenAuthority(SECRET, "plantwire", "plantwire")
NOW_S = int(time.time())


def token(**changes: Any) -> str:
    claims = {
        "sub": "ann",
        "role": "operator",
        "devices": ["press-1"],
        "exp": NOW_S + 86_400,
        "iss": "plantwire",
        "aud": "plantwire",
    } | changes
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, SECRET, algorithm="HS256")


def test_an_issued_token_is_verified() -> None:
    claims = AUTHORITY.verify(AUTHORITY.issue("ann", Role.OPERATOR, ["press-1"], NOW_S, 86_400))
    assert (claims.subject, claims.role, claims.expires_at_s) == ("ann", Role.OPERATOR, NOW_S + 86_400)
    assert claims.may_access("press-1")
    assert not claims.may_access("press-2")


def test_the_star_is_every_device() -> None:
    assert AUTHORITY.verify(token(devices="*")).may_access("anything")
    assert AUTHORITY.verify(token(devices=["*"])).may_access("anything")


def test_a_token_without_devices_sees_none_and_one_without_role_only_looks() -> None:
    claims = AUTHORITY.verify(token(devices=None, role=None))
    assert claims.role == Role.VIEWER
    assert not claims.may_access("press-1")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": NOW_S - 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"aud": None}, "aud"),
        ({"aud": "other"}, "[Aa]udience"),
        ({"iss": None}, "iss"),
        ({"iss": "other"}, "[Ii]ssuer"),
        ({"sub": None}, "sub"),
        ({"role": "root"}, "role"),
        ({"devices": {"a": 1}}, "devices"),
        ({"devices": [1]}, "devices"),
    ],
)
def test_claims_that_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(TokenError, match=reason):
        AUTHORITY.verify(token(**changes))


@pytest.mark.parametrize("algorithm", ["none", "HS512"])
def test_the_algorithm_is_ours_to_choose(algorithm: str) -> None:
    forged = jwt.encode(
        {"sub": "a", "exp": NOW_S + 86_400, "iss": "plantwire", "aud": "plantwire"},
        None if algorithm == "none" else "s" * 64,
        algorithm=algorithm,
    )
    with pytest.raises(TokenError):
        AUTHORITY.verify(forged)


@pytest.mark.parametrize("value", [None, "", 5, "a.b.c", "not a token", b"bytes", "\ud800.a.b"])
def test_what_is_no_token(value: object) -> None:
    with pytest.raises(TokenError):
        AUTHORITY.verify(value)


def test_another_key_is_refused_and_a_short_one_never_used() -> None:
    other = TokenAuthority("t" * 32, "plantwire", "plantwire")
    with pytest.raises(TokenError):
        other.verify(token())
    with pytest.raises(ValueError, match="32 bytes"):
        TokenAuthority("short", "plantwire", "plantwire")

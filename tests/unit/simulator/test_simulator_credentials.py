"""Which token the simulated devices show."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from plantwire.platform.tokens import Role, TokenAuthority
from plantwire.simulator.credentials import (
    TOKEN_LIFETIME_S,
    CredentialError,
    GivenToken,
    IssuedTokens,
    find_credentials,
)
from plantwire.simulator.settings import SimulatorSettings

SECRET = "s" * 40


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatorSettings:
    monkeypatch.delenv("PLANTWIRE_TOKEN", raising=False)
    monkeypatch.delenv("PLANTWIRE_TOKEN_SECRET", raising=False)
    return SimulatorSettings(home=tmp_path)


def test_each_device_gets_a_token_for_itself_alone() -> None:
    authority = TokenAuthority(SECRET, "plantwire", "plantwire")
    tokens = IssuedTokens(authority)
    now_s = int(time.time())
    claims = authority.verify(tokens.token_for("press-01", now_s))
    assert (claims.role, claims.devices, claims.every_device) == (Role.DEVICE, {"press-01"}, False)
    assert tokens.token_for("pump-01", now_s) != tokens.token_for("press-01", now_s)


def test_a_token_is_renewed_when_half_of_its_life_is_over() -> None:
    tokens = IssuedTokens(TokenAuthority(SECRET, "plantwire", "plantwire"))
    first = tokens.token_for("press-01", 1000)
    assert tokens.token_for("press-01", 1000 + TOKEN_LIFETIME_S // 2 - 1) == first
    assert tokens.token_for("press-01", 1000 + TOKEN_LIFETIME_S // 2) != first


def test_the_order_of_the_sources(
    settings: SimulatorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CredentialError, match=r"token\.key"):
        find_credentials(settings, None)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token.key").write_text(SECRET + "\n")
    assert isinstance(find_credentials(settings, None), IssuedTokens)
    monkeypatch.setenv("PLANTWIRE_TOKEN", "from-environment")
    given = find_credentials(SimulatorSettings(home=tmp_path), None)
    assert isinstance(given, GivenToken)
    assert given.token_for("x", 0) == "from-environment"
    (tmp_path / "token").write_text("from-file\n")
    assert (
        find_credentials(SimulatorSettings(home=tmp_path), tmp_path / "token").token_for("x", 0)
        == "from-file"
    )


def test_what_is_no_key_is_refused_without_showing_it(settings: SimulatorSettings, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token.key").write_text("short-secret")
    with pytest.raises(CredentialError, match="fewer than 32 bytes") as caught:
        find_credentials(settings, None)
    assert "short-secret" not in str(caught.value)
    for content in (None, b"", b"\xff\xfe"):
        file = tmp_path / "token"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(CredentialError, match=str(file)):
            find_credentials(settings, file)

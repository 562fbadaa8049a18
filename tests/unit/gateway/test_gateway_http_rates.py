"""Rate limits over ASGI: who sends too much, or too many invalid tokens, is told when to come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from plantwire.gateway.http_gate import HttpGate
from plantwire.gateway.http_refusal import RefusalError
from plantwire.gateway.rejected import Reason
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.token_cache import TokenCache
from plantwire.platform.tokens import Role
from tests.unit.gateway.http_rig import (
    AUTHORITY,
    DAY_S,
    GOOD,
    NOW_S,
    PATH,
    Rig,
    assert_problem,
    bearer,
)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with rig.client() as client:
        yield client


async def test_a_client_over_its_rate_is_told_when_to_come_back() -> None:
    rig = Rig(gateway_rate_limit_frames_per_s=0.5, gateway_rate_limit_burst_frames=4)
    async with rig.client() as client:
        body = b"[" + b",".join([GOOD] * 4) + b"]"
        assert (await client.post(PATH, content=body, headers=bearer())).status_code == 202
        response = await client.post(PATH, content=GOOD, headers=bearer())
        assert_problem(response, 429, "rate-limited")
        assert 1 <= int(response.headers["retry-after"]) <= 2
        assert response.headers["ratelimit-policy"] == '"frames";q=4;w=8'
        assert response.headers["ratelimit"] == f'"frames";r=0;t={response.headers["retry-after"]}'
        other = AUTHORITY.issue("another", Role.DEVICE, ["press-1"], NOW_S, DAY_S)
        assert (await client.post(PATH, content=GOOD, headers=bearer(other))).status_code == 202
    assert len(rig.forwarder.frames) == 5
    assert rig.counted("rejected", transport="http", reason="rate-limited") == 1


async def test_what_is_refused_counts_against_the_rate_as_well() -> None:
    rig = Rig(gateway_rate_limit_frames_per_s=0.5, gateway_rate_limit_burst_frames=3)
    async with rig.client() as client:
        statuses = [(await client.post(PATH, content=b"x", headers=bearer())).status_code for _ in range(4)]
    assert statuses == [400, 400, 400, 429]


async def test_without_a_limit_nothing_is_counted() -> None:
    rig = Rig(gateway_rate_limit_frames_per_s=0, gateway_rate_limit_burst_frames=1)
    async with rig.client() as client:
        for _ in range(20):
            assert (await client.post(PATH, content=GOOD, headers=bearer())).status_code == 202


async def test_an_address_that_guesses_tokens_is_not_listened_to() -> None:
    rig = Rig(gateway_auth_failures_per_min=3)
    async with rig.client() as client:
        assert (await client.post(PATH, content=GOOD, headers=bearer())).status_code == 202
        for number in range(3):
            response = await client.post(PATH, content=GOOD, headers=bearer(f"guess-{number}"))
            assert_problem(response, 401, "token-invalid")
        response = await client.post(PATH, content=GOOD, headers=bearer("guess"))
        assert_problem(response, 429, "auth-rate-limited")
        assert 1 <= int(response.headers["retry-after"]) <= 20
        # A device behind the same address that was heard before goes on.
        assert (await client.post(PATH, content=GOOD, headers=bearer())).status_code == 202


def address_scope(host: str) -> dict[str, Any]:
    return {"type": "http", "client": (host, 1234)}


@pytest.mark.parametrize(
    ("host", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_an_address_is_what_one_subscriber_holds(host: str, other: str, same: bool) -> None:
    gate = HttpGate(GatewaySettings(gateway_auth_failures_per_min=1), TokenCache(AUTHORITY), time.time)
    headers = {b"authorization": b"Bearer x"}
    with pytest.raises(RefusalError, match="not valid"):
        gate.authenticate(headers, address_scope(host))
    with pytest.raises(RefusalError) as refused:
        gate.authenticate(headers, address_scope(other))
    assert refused.value.rejected.reason == (Reason.AUTH_RATE_LIMITED if same else Reason.TOKEN_INVALID)


async def test_parallel_requests_are_all_charged() -> None:
    rig = Rig(gateway_rate_limit_frames_per_s=0.1, gateway_rate_limit_burst_frames=5)
    async with rig.client() as client:
        responses = await asyncio.gather(
            *(client.post(PATH, content=GOOD, headers=bearer()) for _ in range(12))
        )
    assert sorted(response.status_code for response in responses) == [202] * 5 + [429] * 7

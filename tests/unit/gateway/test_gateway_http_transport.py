"""The telemetry endpoint over ASGI, with a forwarder that records: every status and every reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from plantwire.gateway.forwarder import Obstacle, UnavailableError
from plantwire.gateway.http_transport import STATUS_OF_REASON
from plantwire.gateway.rejected import NOT_HTTP, Reason
from plantwire.platform.tokens import Role
from tests.unit.gateway.http_rig import (
    BODY_LIMIT,
    DAY_S,
    GOOD,
    NOW_S,
    PATH,
    Rig,
    assert_problem,
    bearer,
    forged,
    token,
    unsigned_token,
)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with rig.client() as client:
        yield client


async def test_a_frame_is_accepted_once_the_forwarder_has_it(rig: Rig, client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, content=GOOD, headers=bearer())
    assert (response.status_code, response.json()) == (202, {"accepted": 1})
    assert [frame.device_id for frame in rig.forwarder.frames] == ["press-1"]
    assert rig.counted("frames_accepted", transport="http") == 1


async def test_the_hop_stamp_lies_between_send_and_answer(rig: Rig, client: httpx.AsyncClient) -> None:
    before_us = time.time_ns() // 1000
    await client.post(PATH, content=GOOD, headers=bearer())
    assert before_us <= rig.forwarder.frames[0].gateway_in_us <= time.time_ns() // 1000


async def test_a_list_is_accepted_whole(rig: Rig, client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, content=b"[" + GOOD + b"," + GOOD + b"]", headers=bearer())
    assert (response.status_code, response.json()) == (202, {"accepted": 2})


@pytest.mark.parametrize("role", [Role.DEVICE, Role.OPERATOR, Role.ADMIN])
async def test_roles_from_device_up_may_send(client: httpx.AsyncClient, role: Role) -> None:
    assert (await client.post(PATH, content=GOOD, headers=bearer(token(role)))).status_code == 202


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({}, 401, "token-missing"),
        ({"authorization": "Bearer "}, 401, "token-missing"),
        ({"authorization": "Basic eDp5"}, 401, "token-missing"),
        (bearer("nonsense"), 401, "token-invalid"),
        (bearer(unsigned_token()), 401, "token-invalid"),
        (bearer(token(lifetime_s=-10)), 401, "token-expired"),
        (bearer(forged("o" * 32, "plantwire")),
         401, "token-invalid"),
        (bearer(forged("k" * 32, "other")),
         401, "token-invalid"),
        (bearer(token(Role.VIEWER, ["*"])), 403, "role-too-low"),
        (bearer(token(devices=["press-2"])), 403, "other-device"),
    ],
)  # fmt: skip
async def test_who_may_not_send_is_told_why(
    rig: Rig, client: httpx.AsyncClient, headers: dict[str, str], status: int, reason: str
) -> None:
    response = await client.post(PATH, content=GOOD, headers=headers)
    assert_problem(response, status, reason)
    assert ("www-authenticate" in response.headers) == (status == 401)
    assert not rig.forwarder.frames
    assert rig.counted("rejected", transport="http", reason=reason) == 1


@pytest.mark.parametrize(
    "segment",
    [
        "a%2Fb",
        "a%2fb",
        "a/b",
        "a+b",
        "%2B",
        "%23",
        "a%23b",
        "%00",
        "a%00b",
        "%ff",
        "%252F",
        "",
        "..%2f..",
        "a%0d%0ab",
    ],
)
async def test_a_hostile_device_id_is_named(client: httpx.AsyncClient, rig: Rig, segment: str) -> None:
    raw = f"/api/v1/devices/{segment}/telemetry".encode()
    headers = bearer(token(devices=["*"]))
    request = client.build_request("POST", "http://gateway", content=GOOD, headers=headers)
    request.url = request.url.copy_with(raw_path=raw)
    assert_problem(await client.send(request), 422, "invalid-device-id")
    assert not rig.forwarder.frames


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"content-type": "application/json; charset=utf-8"}, 202),
        ({"content-type": "application/senml+json"}, 202),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-encoding": "br"}, 415),
    ],
)
async def test_the_media_type(client: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
    response = await client.post(PATH, content=GOOD, headers={**bearer(), **headers})
    assert response.status_code == status
    if status == 415:
        assert_problem(response, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"not json", 400, "not-json"),
        (b'{"metrics": {"t": NaN}}', 400, "not-a-number"),
        (b'{"metrics": {}}', 400, "bad-shape"),
        (b'{"metrics": {"t": 1, "t": 2}}', 422, "duplicate-key"),
        (b'{"timestamp": %d, "metrics": {"t": 1}}' % ((NOW_S + DAY_S) * 1000), 422, "timestamp-ahead"),
        (b'{"timestamp": -1, "metrics": {"t": 1}}', 422, "timestamp-out-of-range"),
    ],
)
async def test_a_bad_body_is_named_and_counted(
    rig: Rig, client: httpx.AsyncClient, body: bytes, status: int, reason: str
) -> None:
    assert_problem(await client.post(PATH, content=body, headers=bearer()), status, reason)
    assert rig.counted("rejected", transport="http", reason=reason) == 1
    assert (await client.post(PATH, content=GOOD, headers=bearer())).status_code == 202


async def test_a_large_body_with_its_length_declared_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, content=b" " * (BODY_LIMIT + 1), headers=bearer())
    assert_problem(response, 413, "body-too-large")


async def test_a_body_of_exactly_the_limit_is_read(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, content=GOOD.ljust(BODY_LIMIT), headers=bearer())
    assert response.status_code == 202


async def test_a_streamed_body_is_counted_and_not_kept(rig: Rig, client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10_000):
            yield b" " * 1024

    response = await client.post(PATH, content=chunks(), headers=bearer())
    assert_problem(response, 413, "body-too-large")
    assert (await client.post(PATH, content=GOOD, headers=bearer())).status_code == 202


async def test_a_streamed_body_below_the_limit_is_joined(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for offset in range(0, len(GOOD), 4):
            yield GOOD[offset : offset + 4]

    assert (await client.post(PATH, content=chunks(), headers=bearer())).status_code == 202


class Asgi:
    """One request by hand: `messages` arrive, then nothing more does."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self.messages:
            return self.messages.pop(0)
        return await asyncio.get_running_loop().create_future()

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def run(self, rig: Rig) -> None:
        headers = [(b"authorization", f"Bearer {token()}".encode())]
        scope = {"type": "http", "method": "POST", "raw_path": PATH.encode(), "headers": headers}
        await rig.app(scope, self.receive, self.send)


async def test_a_body_that_never_ends_is_given_up(rig: Rig) -> None:
    request = Asgi([{"type": "http.request", "body": b"{", "more_body": True}])
    await request.run(rig)
    assert request.sent[0]["status"] == 408
    assert (b"connection", b"close") in request.sent[0]["headers"]


async def test_a_client_that_goes_away_is_not_answered(rig: Rig) -> None:
    request = Asgi([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    await request.run(rig)
    assert not request.sent
    assert not rig.forwarder.frames


async def test_all_bodies_together_are_bounded(rig: Rig) -> None:
    part = {"type": "http.request", "body": b" " * 4000, "more_body": True}
    waiting = [Asgi([dict(part)]) for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        for request in waiting:
            group.create_task(request.run(rig))
    assert sorted(request.sent[0]["status"] for request in waiting) == [408, 408, 503]
    assert rig.counted("unavailable", transport="http", reason="body-memory-full") == 1
    again = Asgi([{"type": "http.request", "body": GOOD, "more_body": False}])
    await again.run(rig)
    assert again.sent[0]["status"] == 202


async def test_what_kafka_does_not_acknowledge_is_503(rig: Rig, client: httpx.AsyncClient) -> None:
    rig.forwarder.answer = lambda: UnavailableError(Obstacle.NOT_ACKNOWLEDGED, "No answer.")
    response = await client.post(PATH, content=GOOD, headers=bearer())
    assert_problem(response, 503, "not-acknowledged")
    assert int(response.headers["retry-after"]) >= 1
    assert rig.counted("frames_accepted", transport="http") == 0


async def test_a_full_forwarder_is_503(rig: Rig, client: httpx.AsyncClient) -> None:
    rig.forwarder.refuse_at_once = True
    response = await client.post(PATH, content=GOOD, headers=bearer())
    assert_problem(response, 503, "in-flight-full")
    assert rig.counted("unavailable", transport="http", reason="in-flight-full") == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_another_method_is_405(client: httpx.AsyncClient, method: str) -> None:
    response = await client.request(method, PATH)
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/api/v1/devices", "/api/v1/devices/press-1", "/api/v2" + PATH[7:]])
async def test_an_unknown_path_is_404(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.post(path, content=GOOD, headers=bearer()), 404, "unknown-path")


async def test_a_wrong_method_elsewhere_is_405(client: httpx.AsyncClient) -> None:
    assert_problem(await client.post("/healthz"), 405, "method-not-allowed")


async def test_a_fault_of_our_own_is_a_problem_too(rig: Rig) -> None:
    async def broken() -> str | None:
        raise ZeroDivisionError

    app = rig.app_with({"broken": broken})
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert_problem(await client.get("/readyz"), 500, "internal")


async def test_readiness_says_what_is_amiss(rig: Rig, client: httpx.AsyncClient) -> None:
    assert (await client.get("/readyz")).json()["checks"] == {"kafka": "ok"}
    rig.note = "buffering"
    assert (await client.get("/readyz")).json()["checks"] == {"kafka": "buffering"}
    rig.forwarder.finding = "Kafka does not answer"
    response = await client.get("/readyz")
    assert_problem(response, 503, "not-ready")
    assert "kafka: Kafka does not answer" in response.json()["detail"]
    assert (await client.get("/healthz")).status_code == 200


async def test_the_ledger_is_shown(rig: Rig, client: httpx.AsyncClient) -> None:
    rig.metrics.ledger.account("http").receive()
    answer = (await client.get("/ledger")).json()
    assert answer["sources"]["http"]["in_hand"] == answer["total"]["received"] == 1
    assert answer["identity_holds"]


async def test_metrics_are_exposed(client: httpx.AsyncClient) -> None:
    await client.post(PATH, content=GOOD, headers=bearer())
    text = (await client.get("/metrics")).text
    assert 'plantwire_gateway_frames_accepted_total{transport="http"} 1.0' in text


async def test_openapi_describes_the_endpoint_with_every_status_it_gives(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/api/v1/devices/{id}/telemetry"]["post"]
    given = {str(status) for status in STATUS_OF_REASON.values()} | {"202", "503"}
    assert set(operation["responses"]) == given
    assert (await client.get("/docs")).status_code == 200


def test_every_reason_that_http_can_give_has_a_status() -> None:
    assert set(Reason) - NOT_HTTP == set(STATUS_OF_REASON)

"""The telemetry endpoint over ASGI, with a forwarder that records: every status and every reason."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import pytest

from plantwire.gateway.forwarder import DeadLetter, Obstacle, UnavailableError
from plantwire.gateway.http_app import build_app
from plantwire.gateway.http_transport import STATUS_OF_REASON, TelemetryEndpoint
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.rejected import NOT_HTTP, Reason
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.token_cache import TokenCache
from plantwire.platform.tokens import Role, TokenAuthority
from plantwire.schemas.problem import PROBLEM_MEDIA_TYPE
from plantwire.schemas.records import TelemetryFrame

PATH = "/api/v1/devices/press-1/telemetry"
GOOD = b'{"metrics": {"t": 1}}'
BODY_LIMIT = 4096
AUTHORITY = TokenAuthority("k" * 32, "plantwire", "plantwire")
NOW_S = int(time.time())
# As long as any run of all tests may take.
DAY_S = 86_400


class RecordingForwarder:
    """Keeps what it is given; `answer` makes each promise."""

    def __init__(self) -> None:
        self.frames: list[TelemetryFrame] = []
        self.answer: Callable[[], UnavailableError | None] = lambda: None
        self.refuse_at_once = False
        self.finding: str | None = None

    def put(self, frames: Sequence[TelemetryFrame]) -> asyncio.Future[None]:
        if self.refuse_at_once:
            raise UnavailableError(Obstacle.IN_FLIGHT_FULL, "Full.")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if (error := self.answer()) is not None:
            future.set_exception(error)
        else:
            self.frames.extend(frames)
            future.set_result(None)
        return future

    def put_dead_letter(self, letter: DeadLetter) -> asyncio.Future[None]:
        raise AssertionError("HTTP refuses to the sender, not to the dead-letter topic")

    async def ready(self) -> str | None:
        return self.finding


class Rig:
    """The application with its parts in reach."""

    def __init__(self) -> None:
        self.settings = GatewaySettings(
            gateway_body_limit_bytes=BODY_LIMIT, gateway_body_timeout_s=0.2, gateway_body_memory_bytes=8192
        )
        self.forwarder = RecordingForwarder()
        self.metrics = GatewayMetrics()
        self.endpoint = TelemetryEndpoint(self.settings, TokenCache(AUTHORITY), self.forwarder, self.metrics)
        self.app = build_app(self.endpoint, self.metrics, {"kafka": self.forwarder.ready})

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"plantwire_gateway_{name}_total", labels) or 0.0


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=rig.app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


def forged(secret: str, audience: str) -> str:
    return TokenAuthority(secret, "plantwire", audience).issue("d", Role.ADMIN, ["*"], NOW_S, DAY_S)


def token(role: Role = Role.DEVICE, devices: Sequence[str] = ("press-1",), lifetime_s: int = DAY_S) -> str:
    return AUTHORITY.issue("d", role, devices, NOW_S, lifetime_s)


def bearer(text: str | None = None) -> dict[str, str]:
    return {"authorization": f"Bearer {text or token()}"}


def unsigned_token() -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"sub": "d", "role": "admin", "devices": ["*"], "exp": NOW_S + DAY_S, "iss": "plantwire"}
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part({**claims, 'aud': 'plantwire'})}."


def assert_problem(response: httpx.Response, status: int, reason: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE
    body = response.json()
    assert body["reason"] == reason
    assert body["status"] == status
    assert body["type"] == f"urn:plantwire:problem:{reason}"
    assert body["detail"]


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
        ({"content-encoding": "gzip"}, 415),
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

    app = build_app(rig.endpoint, rig.metrics, {"broken": broken})
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert_problem(await client.get("/readyz"), 500, "internal")


async def test_readiness_says_what_is_amiss(rig: Rig, client: httpx.AsyncClient) -> None:
    assert (await client.get("/readyz")).status_code == 200
    rig.forwarder.finding = "Kafka does not answer"
    response = await client.get("/readyz")
    assert_problem(response, 503, "not-ready")
    assert "kafka: Kafka does not answer" in response.json()["detail"]
    assert (await client.get("/healthz")).status_code == 200


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

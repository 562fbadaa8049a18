"""InfluxDB's endpoints, and what its answers mean. The settings that lead there."""

from __future__ import annotations

import gzip
from typing import Any, get_args

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from plantwire.stack.environment import SECRET_VARIABLES
from plantwire.storage.influx_client import InfluxAwayError, InfluxClient, InfluxRefusedError
from plantwire.storage.influx_settings import InfluxSettings

LINES = [b"telemetry value=1 1", b"telemetry value=2 2", b"telemetry value=3 3"]
TWO = {"influx_bucket": "plant", "influx_org": "works", "influx_token": "t0ken"}
ONE = {"influx_database": "plant", "influx_user": "anna", "influx_password": "s3cret"}


def client(answer: httpx.Response, asked: list[httpx.Request], **changes: Any) -> InfluxClient:
    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer

    settings = InfluxSettings(influx_url="http://influx.example:8086/", **changes)
    return InfluxClient(settings, httpx.MockTransport(handle))


def test_version_2_is_asked_with_bucket_org_and_token() -> None:
    asked: list[httpx.Request] = []
    assert client(httpx.Response(204), asked, **TWO).write(LINES) == 0
    (request,) = asked
    assert (request.method, request.url.path) == ("POST", "/api/v2/write")
    assert dict(request.url.params) == {"precision": "ms", "bucket": "plant", "org": "works"}
    assert request.headers["authorization"] == "Token t0ken"
    assert gzip.decompress(request.content) == b"\n".join(LINES)
    assert request.headers["content-encoding"] == "gzip"


def test_version_1_is_asked_with_database_policy_and_user() -> None:
    asked: list[httpx.Request] = []
    assert client(httpx.Response(204), asked, **ONE, influx_retention_policy="year").write(LINES) == 0
    (request,) = asked
    assert request.url.path == "/write"
    assert dict(request.url.params) == {"precision": "ms", "db": "plant", "rp": "year"}
    assert request.headers["authorization"] == "Basic YW5uYTpzM2NyZXQ="


def test_without_user_or_token_none_is_sent() -> None:
    asked: list[httpx.Request] = []
    client(httpx.Response(204), asked, influx_database="plant").write(LINES)
    client(httpx.Response(204), asked, influx_bucket="plant", influx_org="works").write(LINES)
    assert not any("authorization" in request.headers for request in asked)


@pytest.mark.parametrize("status", [400, 422])
def test_a_partial_write_tells_how_many_were_left_out(status: int) -> None:
    said = "partial write: points beyond retention policy dropped=2"
    body = {"error": said} if status == 400 else {"code": "unprocessable entity", "message": said}
    assert client(httpx.Response(status, json=body), [], **ONE).write(LINES) == 2
    lying = httpx.Response(400, json={"error": "partial write: x dropped=99"})
    assert client(lying, [], **ONE).write(LINES) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_lines_that_are_not_taken_together_are_refused(status: int) -> None:
    answer = httpx.Response(status, json={"error": "unable to parse 'x'"})
    with pytest.raises(InfluxRefusedError, match=f"{status}: unable to parse"):
        client(answer, [], **ONE).write(LINES)


@pytest.mark.parametrize("status", [301, 401, 403, 404, 429, 500, 502, 503])
def test_everything_else_is_worth_another_attempt(status: int) -> None:
    answer = httpx.Response(status, text="<html>s3cret t0ken</html>", headers={"Retry-After": "7"})
    with pytest.raises(InfluxAwayError) as caught:
        client(answer, [], **ONE).write(LINES)
    assert caught.value.retry_after_s == 7
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("told", "wait_s"), [("99999", 300), ("soon", 0), ("-1", 0), ("1.5", 0)])
def test_how_long_to_wait_is_bounded(told: str, wait_s: float) -> None:
    with pytest.raises(InfluxAwayError) as caught:
        client(httpx.Response(503, headers={"Retry-After": told}), [], **ONE).write(LINES)
    assert caught.value.retry_after_s == wait_s


def test_a_server_that_cannot_be_reached_is_away() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    settings = InfluxSettings(influx_url="http://influx.example:8086", **ONE)  # type: ignore[arg-type]
    one = InfluxClient(settings, httpx.MockTransport(handle))
    with pytest.raises(InfluxAwayError, match="not reachable"):
        one.write(LINES)
    with pytest.raises(InfluxAwayError, match="not reachable"):
        one.ready()


def test_a_ping_asks_whether_it_is_there() -> None:
    asked: list[httpx.Request] = []
    client(httpx.Response(204), asked, **ONE).ready()
    assert asked[0].url.path == "/ping"
    with pytest.raises(InfluxAwayError, match="503"):
        client(httpx.Response(503), [], **ONE).ready()


def test_its_secrets_are_told_to_no_other_process() -> None:
    fields = InfluxSettings.model_fields.items()
    own = {f"PLANTWIRE_{name.upper()}" for name, field in fields if SecretStr in get_args(field.annotation)}
    assert {"PLANTWIRE_INFLUX_TOKEN", "PLANTWIRE_INFLUX_PASSWORD"} <= own <= SECRET_VARIABLES


def test_the_sink_is_off_by_default() -> None:
    assert InfluxSettings().influx_url is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"influx_url": "influx:8086", **ONE}, "no http"),
        ({"influx_url": "ftp://influx", **ONE}, "no http"),
        ({"influx_url": "http://", **ONE}, "no http"),
        ({"influx_url": "http://influx/?db=x", **ONE}, "no http"),
        ({"influx_url": "http://anna:hunter2@influx:8086", **ONE}, "names a user"),
        ({}, "either"),
        ({**ONE, **TWO}, "either"),
        ({"influx_bucket": "plant"}, "influx_org"),
        ({"influx_database": "plant", "influx_user": "anna"}, "belong together"),
        ({"influx_database": "plant", "influx_password": "hunter2"}, "belong together"),
        ({**ONE, "influx_measurement": "a b"}, "influx_measurement"),
    ],
)
def test_settings_that_lead_nowhere_are_refused_without_their_secrets(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason) as caught:
        InfluxSettings(**({"influx_url": "http://influx.example:8086"} | changes))
    assert "hunter2" not in str(caught.value)
    assert "s3cret" not in str(caught.value)

"""HTTP telemetry through a real gateway into a real Kafka."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from plantwire.platform.tokens import Role
from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import Metric
from tests.integration.gateway.gateway_rig import (
    AUTHORITY,
    GOOD,
    GatewayProcess,
    Topic,
    frame_of,
    frames_of,
    path,
    token,
)

DAY_MS = 86_400_000


def test_a_frame_arrives_as_the_contract_says(gateway: GatewayProcess, raw: Topic) -> None:
    event_time_ms = int(time.time() * 1000) - 250
    body = {
        "timestamp": event_time_ms,
        "metrics": {"temperature": 101.2, "running": True, "mode": "auto"},
        "sequence": 7,
        "site": "north",
    }
    with gateway.client() as client:
        before_us = time.time_ns() // 1000
        response = client.post(path("http-one"), json=body)
        after_us = time.time_ns() // 1000
    assert (response.status_code, response.json()) == (202, {"accepted": 1})
    raw.read_until(lambda messages: bool(frames_of(messages, "http-one")))
    (message,) = [m for m in raw.messages if m.key() == b"http-one"]
    assert message.timestamp()[1] == event_time_ms
    assert dict(message.headers() or []) == {topics.HEADER_FINGERPRINT: FRAME_CODEC.fingerprint.encode()}
    frame = frame_of(message)
    assert (frame.device_id, frame.site, frame.sequence, frame.protocol) == ("http-one", "north", 7, "http")
    assert (frame.event_time_ms, frame.historical) == (event_time_ms, False)
    assert frame.metrics == (
        Metric("temperature", 101.2),
        Metric("running", 1.0),
        Metric("mode", None, "auto"),
    )
    assert before_us <= frame.gateway_in_us <= frame.gateway_out_us <= after_us


def test_a_202_is_in_kafka_already(gateway: GatewayProcess, raw: Topic) -> None:
    """What the end offsets hold at the moment of the answer contains every frame."""
    with gateway.client() as client:
        body = [{"sequence": n, "metrics": {"t": n}} for n in range(500)]
        assert client.post(path("http-many"), json=body).json() == {"accepted": 500}
    frames = frames_of(raw.read_to_end(), "http-many")
    assert [frame.sequence for frame in frames] == list(range(500))


def unsigned_token() -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"sub": "x", "role": "admin", "devices": ["*"], "exp": int(time.time()) + 60}
    return f"{part({'alg': 'none'})}.{part({**claims, 'iss': 'plantwire', 'aud': 'plantwire'})}."


def chunked(total_bytes: int) -> Iterator[bytes]:
    for _ in range(total_bytes // 65536):
        yield b" " * 65536


def test_bad_input_is_named_counted_and_disturbs_nothing(gateway: GatewayProcess, raw: Topic) -> None:
    """Every bad input of the acceptance list, and a good frame after each."""
    now_ms = int(time.time() * 1000)
    device = path("http-bad")
    wrong = {
        "expired": AUTHORITY.issue("x", Role.DEVICE, ["*"], int(time.time()) - 100, 50),
        "unsigned": unsigned_token(),
        "other": token(devices=["another"]),
        "viewer": token(Role.VIEWER),
    }
    cases: list[tuple[str, object, dict[str, str], int, str]] = [
        (device, b"not json", {}, 400, "not-json"),
        (device, b"\xff\xfe\x00", {}, 400, "not-json"),
        (device, b'{"metrics": {"t": NaN}}', {}, 400, "not-a-number"),
        (device, b'{"metrics": {"t": -Infinity}}', {}, 400, "not-a-number"),
        (device, b'{"metrics": {"t": 1e999}}', {}, 400, "not-a-number"),
        (device, b'{"metrics": {"t": 1' + b"0" * 1000 + b"}}", {}, 400, "not-a-number"),
        (device, b"[" * 1_000_000, {}, 400, "bad-shape"),
        (device, b'{"metrics": {"t": 1, "t": 2}}', {}, 422, "duplicate-key"),
        (device, b" " * 10_000_000, {}, 413, "body-too-large"),
        (device, chunked(10_000_000), {}, 413, "body-too-large"),
        (path("a%2Fb"), GOOD, {}, 422, "invalid-device-id"),
        (path("a/b"), GOOD, {}, 422, "invalid-device-id"),
        (path("a+b"), GOOD, {}, 422, "invalid-device-id"),
        (path("a%23"), GOOD, {}, 422, "invalid-device-id"),
        (path("a%00"), GOOD, {}, 422, "invalid-device-id"),
        (device, b'{"timestamp": %d, "metrics": {"t": 1}}' % (now_ms + DAY_MS), {}, 422, "timestamp-ahead"),
        (device, GOOD, {"authorization": f"Bearer {wrong['expired']}"}, 401, "token-expired"),
        (device, GOOD, {"authorization": f"Bearer {wrong['unsigned']}"}, 401, "token-invalid"),
        (device, GOOD, {"authorization": ""}, 401, "token-missing"),
        (device, GOOD, {"authorization": f"Bearer {wrong['other']}"}, 403, "other-device"),
        (device, GOOD, {"authorization": f"Bearer {wrong['viewer']}"}, 403, "role-too-low"),
        (device, GOOD, {"content-type": "text/csv"}, 415, "unsupported-media-type"),
    ]
    counted = {case[4]: gateway.counted("rejected_total", reason=case[4], transport="http") for case in cases}
    with gateway.client() as client:
        for number, (target, content, headers, status, reason) in enumerate(cases):
            response = client.post(target, content=content, headers=headers)  # type: ignore[arg-type]
            assert (response.status_code, response.json()["reason"]) == (status, reason), response.text
            assert response.headers["content-type"] == "application/problem+json"
            body = {"sequence": number, "metrics": {"t": 1}}
            assert client.post(path("http-good"), json=body).status_code == 202
    frames = frames_of(raw.read_to_end(), "http-good")
    assert [frame.sequence for frame in frames] == list(range(len(cases)))
    assert not frames_of(raw.messages, "http-bad")
    for reason in {case[4] for case in cases}:
        expected = counted[reason] + sum(case[4] == reason for case in cases)
        assert gateway.counted("rejected_total", reason=reason, transport="http") == expected


def test_a_large_body_is_not_held_in_memory(gateway: GatewayProcess) -> None:
    """Twenty bodies of 10 MB at once leave the process about as large as it was."""
    status = Path(f"/proc/{gateway.pid}/status")
    if not status.exists():
        pytest.skip("needs /proc to see the process's memory")

    def peak_kb() -> int:
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])  # type: ignore[index]

    before_kb = peak_kb()
    with gateway.client() as client:
        for _ in range(20):
            assert client.post(path("large"), content=chunked(10_000_000)).status_code == 413
    assert peak_kb() - before_kb < 16_000


def test_what_is_no_http_does_not_disturb(gateway: GatewayProcess) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw_socket:  # type: ignore[arg-type]
        raw_socket.sendall(b"\x16\x03\x01\x00" + b"\xff" * 500)
        assert raw_socket.recv(1000).startswith(b"HTTP/1.1 400")
    with gateway.client() as client:
        assert client.post(path("http-after"), content=GOOD).status_code == 202


def test_unknown_paths_and_the_description(gateway: GatewayProcess) -> None:
    response = httpx.get(f"{gateway.url}/api/v1/nothing")
    assert (response.status_code, response.json()["reason"]) == (404, "unknown-path")
    assert "/api/v1/devices/{id}/telemetry" in httpx.get(f"{gateway.url}/openapi.json").json()["paths"]
    assert httpx.get(f"{gateway.url}/docs").status_code == 200


def test_a_port_in_use_gives_one_clear_line(gateway: GatewayProcess) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "plantwire.gateway"],
        env={**dict(gateway.environment()), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{gateway.port}" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1

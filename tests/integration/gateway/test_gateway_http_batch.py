"""Batches, gzip, Avro and rate limits through a real gateway into a real Kafka."""

from __future__ import annotations

import gzip
import json
import re
import time
from io import BytesIO
from pathlib import Path

import fastavro
import httpx
import msgspec
import pytest

from plantwire.platform.tokens import Role
from plantwire.schemas.codec import FRAME_CODEC, AvroCodec, load_schema
from plantwire.schemas.records import Metric, TelemetryFrame
from tests.integration.gateway.gateway_rig import (
    AUTHORITY,
    GOOD,
    GatewayProcess,
    Topic,
    frames_of,
    path,
    token,
)

BATCH = "/api/v1/telemetry"
GZIP = {"content-encoding": "gzip"}


def avro_frame(device_id: str, sequence: int) -> TelemetryFrame:
    now_ms = int(time.time() * 1000)
    metrics = (Metric("t", 1.5), Metric("mode", None, "auto", 0, now_ms - 5))
    return TelemetryFrame(device_id, "hall", sequence, now_ms, 1, "x", False, metrics, 1, 2, b"forged")


def test_a_batch_reaches_each_device_in_order(gateway: GatewayProcess, raw: Topic) -> None:
    devices = [f"batch-{n}" for n in range(5)]
    frames = [{"deviceId": devices[n % 5], "sequence": n, "metrics": {"t": n}} for n in range(500)]
    body = gzip.compress(json.dumps({"frames": frames}).encode())
    with gateway.client(token(devices=devices)) as client:
        response = client.post(BATCH, content=body, headers=GZIP)
        assert (response.status_code, response.json()) == (202, {"accepted": 500})
        refused = client.post(BATCH, json=[*frames[:2], {"deviceId": "not-mine", "metrics": {"t": 1}}])
        assert (refused.status_code, refused.json()["reason"]) == (403, "other-device")
        assert "not-mine" in refused.json()["detail"]
    messages = raw.read_to_end()
    for n, device_id in enumerate(devices):
        sequences = [frame.sequence for frame in frames_of(messages, device_id)]
        assert sequences == list(range(n, 500, 5))


def test_avro_arrives_as_sent_but_for_what_is_the_gateway_s(gateway: GatewayProcess, raw: Topic) -> None:
    sent = [avro_frame("avro-1", n) for n in range(3)]
    former = AvroCodec(TelemetryFrame, load_schema("released/TelemetryFrame.1"))
    out = BytesIO()
    fastavro.writer(
        out,
        load_schema("TelemetryFrame"),
        [msgspec.to_builtins(sent[2], builtin_types=(bytes,))],
        codec="deflate",
    )
    one = {"content-type": "application/vnd.plantwire.frame+avro"}
    with gateway.client() as client:
        for target, content, headers in (
            (path("avro-1"), FRAME_CODEC.encode(sent[0]), one),
            (BATCH, former.encode(sent[1]), {**one, "plantwire-fingerprint": former.fingerprint}),
            (BATCH, gzip.compress(out.getvalue()), {**GZIP, "content-type": "application/avro"}),
        ):
            response = client.post(target, content=content, headers=headers)
            assert response.status_code == 202, response.text
    frames = frames_of(raw.read_to_end(), "avro-1")
    assert [frame.sequence for frame in frames] == [0, 1, 2]
    for frame, origin in zip(frames, sent, strict=True):
        assert (frame.metrics, frame.site, frame.event_time_ms) == (
            origin.metrics,
            origin.site,
            origin.event_time_ms,
        )
        assert (frame.protocol, frame.edge_state) == ("http", b"")
        assert frame.received_time_ms >= frame.event_time_ms
        assert frame.gateway_in_us // 1000 == frame.received_time_ms


def test_bombs_are_refused_without_being_held(gateway: GatewayProcess) -> None:
    status = Path(f"/proc/{gateway.pid}/status")
    if not status.exists():
        pytest.skip("needs /proc to see the process's memory")

    def peak_kb() -> int:
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])  # type: ignore[index]

    bomb = gzip.compress(bytes(500_000_000))
    assert len(bomb) < 1024 * 1024
    with gateway.client() as client:
        assert client.post(path("bomb"), content=gzip.compress(GOOD), headers=GZIP).status_code == 202
        before_kb = peak_kb()
        for _ in range(10):
            started_s = time.monotonic()
            response = client.post(path("bomb"), content=bomb, headers=GZIP)
            assert (response.status_code, response.json()["reason"]) == (413, "body-too-large")
            assert time.monotonic() - started_s < 2
        assert client.post(path("bomb"), content=GOOD).status_code == 202
    assert peak_kb() - before_kb < 16_000


def test_rates_are_held_per_client_and_address(kafka: str, mqtt_url: str, tmp_path: Path) -> None:
    gateway = GatewayProcess(
        kafka,
        mqtt_url,
        tmp_path / "gateway.log",
        PLANTWIRE_GATEWAY_RATE_LIMIT_FRAMES_PER_S="1",
        PLANTWIRE_GATEWAY_RATE_LIMIT_BURST_FRAMES="10",
        PLANTWIRE_GATEWAY_AUTH_FAILURES_PER_MIN="5",
    )
    gateway.start()
    try:
        gateway.wait_ready(30)
        other = AUTHORITY.issue("other", Role.DEVICE, ["*"], int(time.time()), 3600)
        with gateway.client() as client:
            statuses = [client.post(path("rate"), content=GOOD).status_code for _ in range(60)]
            assert statuses[:10] == [202] * 10
            assert set(statuses) == {202, 429}
            assert statuses.count(429) >= 20
            refused = next(
                r
                for r in (client.post(path("rate"), content=GOOD) for _ in range(60))
                if r.status_code == 429
            )
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["ratelimit"] == '"frames";r=0;t=1'
            again = {"authorization": f"Bearer {other}"}
            assert client.post(path("rate"), content=GOOD, headers=again).status_code == 202
            guesses = [
                client.post(path("rate"), content=GOOD, headers={"authorization": f"Bearer {n}"}).status_code
                for n in range(8)
            ]
            assert guesses == [401] * 5 + [429] * 3
            assert client.post(path("rate"), content=GOOD, headers=again).status_code == 202
        assert gateway.counted("rejected_total", reason="rate-limited", transport="http") >= 20
        assert gateway.counted("rejected_total", reason="auth-rate-limited", transport="http") == 3
    finally:
        gateway.stop()


def test_the_description_names_both_paths(gateway: GatewayProcess) -> None:
    paths = httpx.get(f"{gateway.url}/openapi.json").json()["paths"]
    assert {"/api/v1/devices/{id}/telemetry", "/api/v1/telemetry"} <= set(paths)

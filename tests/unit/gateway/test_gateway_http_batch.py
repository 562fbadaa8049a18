"""Batches, content codings, media types and their description over ASGI, with a forwarder that records."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import fastavro
import httpx
import jsonschema
import msgspec
import pytest

from plantwire.gateway.http_openapi import TELEMETRY_COMPONENTS
from plantwire.gateway.http_transport import STATUS_OF_REASON
from plantwire.schemas.codec import FRAME_CODEC, load_schema
from plantwire.schemas.records import Metric, TelemetryFrame
from tests.unit.gateway.http_rig import (
    BODY_LIMIT,
    GOOD,
    NOW_S,
    PATH,
    Rig,
    assert_problem,
    bearer,
    token,
)

BATCH = "/api/v1/telemetry"
GZIP = {"content-encoding": "gzip"}
AVRO_FRAME = {"content-type": "application/vnd.plantwire.frame+avro"}
FRAME = TelemetryFrame("press-1", "", 7, NOW_S * 1000, 0, "", False, (Metric("t", 1.0),))


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with rig.client() as client:
        yield client


def both() -> dict[str, str]:
    return bearer(token(devices=["press-1", "press-2"]))


def of(device_id: str, **fields: Any) -> dict[str, Any]:
    return {"deviceId": device_id, "metrics": {"t": 1}, **fields}


def avro_file(*frames: TelemetryFrame, codec: str = "null") -> bytes:
    out = BytesIO()
    records = [msgspec.to_builtins(frame, builtin_types=(bytes,)) for frame in frames]
    fastavro.writer(out, load_schema("TelemetryFrame"), records, codec=codec)
    return out.getvalue()


@pytest.mark.parametrize("wrapped", [True, False])
async def test_a_batch_of_several_devices_is_taken_in_order(
    rig: Rig, client: httpx.AsyncClient, wrapped: bool
) -> None:
    frames = [of("press-1", sequence=1), of("press-2", sequence=2), of("press-1", sequence=3)]
    response = await client.post(BATCH, json={"frames": frames} if wrapped else frames, headers=both())
    assert (response.status_code, response.json()) == (202, {"accepted": 3})
    assert [(frame.device_id, frame.sequence) for frame in rig.forwarder.frames] == [
        ("press-1", 1), ("press-2", 2), ("press-1", 3),
    ]  # fmt: skip
    assert rig.counted("frames_accepted", transport="http") == 3


async def test_a_batch_that_the_token_does_not_cover_is_refused_whole(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    frames = [of("press-1"), of("press-3"), of("press-4")]
    response = await client.post(BATCH, json=frames, headers=both())
    assert_problem(response, 403, "other-device")
    assert "'press-3' of frame 2" in response.json()["detail"]
    assert not rig.forwarder.frames
    assert (await client.post(BATCH, json=frames, headers=bearer(token(devices=["*"])))).status_code == 202


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "not-json"),
        (b"[]", 400, "bad-shape"),
        (b"{}", 400, "bad-shape"),
        (b'{"frames": {}}', 400, "bad-shape"),
        (b'{"frames": [], "more": 1}', 400, "bad-shape"),
        (b'{"deviceId": "press-1", "metrics": {"t": 1}}', 400, "bad-shape"),
        (b'[{"metrics": {"t": 1}}]', 400, "bad-shape"),
        (b'[{"deviceId": 7, "metrics": {"t": 1}}]', 400, "bad-shape"),
        (b'[{"deviceId": "press-1", "x": 1, "metrics": {"t": 1}}]', 400, "bad-shape"),
        (b'[{"deviceId": "a/b", "metrics": {"t": 1}}]', 422, "invalid-device-id"),
        (b'[{"deviceId": "press-1", "metrics": {"t": 1, "t": 2}}]', 422, "duplicate-key"),
        (b'[{"deviceId": "press-1", "deviceId": "press-2", "metrics": {"t": 1}}]', 422, "duplicate-key"),
        (b'[{"deviceId": "a\\u003ab", "metrics": {"t": 1, "t": 2}}]', 422, "duplicate-key"),
        (b'[{"deviceId": "a:b", "metrics": {"t": 1, "t": 2}}]', 422, "duplicate-key"),
        (b'{"frames": [], "frames": [{"deviceId": "a", "metrics": {"t": 1}}]}', 422, "duplicate-key"),
    ],
)
async def test_a_bad_batch_is_named(
    rig: Rig, client: httpx.AsyncClient, body: bytes, status: int, reason: str
) -> None:
    response = await client.post(BATCH, content=body, headers=bearer(token(devices=["*"])))
    assert_problem(response, status, reason)
    assert not rig.forwarder.frames


async def test_a_device_id_of_another_frame_is_no_field_of_a_single_one(client: httpx.AsyncClient) -> None:
    assert_problem(await client.post(PATH, json=of("press-1"), headers=bearer()), 400, "bad-shape")


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", " GZIP "])
async def test_a_gzip_body_is_unpacked(rig: Rig, client: httpx.AsyncClient, coding: str) -> None:
    headers = {**bearer(), "content-encoding": coding}
    response = await client.post(PATH, content=gzip.compress(GOOD), headers=headers)
    assert response.status_code == 202
    assert rig.forwarder.frames[0].metrics == (Metric("t", 1.0),)


async def test_a_gzip_body_in_single_bytes_is_unpacked(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in gzip.compress(GOOD):
            yield bytes([byte])

    assert (await client.post(PATH, content=chunks(), headers={**bearer(), **GZIP})).status_code == 202


PACKED = gzip.compress(GOOD)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "gzip-incomplete"),
        (PACKED[:5], "gzip-incomplete"),
        (PACKED[:-1], "gzip-incomplete"),
        (GOOD, "gzip-corrupt"),
        (PACKED[:-8] + bytes(8), "gzip-corrupt"),
        (PACKED[:12] + b"\xff\xff" + PACKED[14:], "gzip-corrupt"),
        (PACKED + b"x", "gzip-trailing"),
        (PACKED + PACKED, "gzip-trailing"),
    ],
)
async def test_a_damaged_gzip_body_is_named(client: httpx.AsyncClient, body: bytes, reason: str) -> None:
    assert_problem(await client.post(PATH, content=body, headers={**bearer(), **GZIP}), 400, reason)


async def test_what_follows_in_a_chunk_of_its_own_is_named_too(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield PACKED
        yield b"x"

    response = await client.post(PATH, content=chunks(), headers={**bearer(), **GZIP})
    assert_problem(response, 400, "gzip-trailing")


async def test_the_limit_holds_for_what_is_unpacked(client: httpx.AsyncClient) -> None:
    headers = {**bearer(), **GZIP}
    exact, beyond = gzip.compress(GOOD.ljust(BODY_LIMIT)), gzip.compress(GOOD.ljust(BODY_LIMIT + 1))
    assert (await client.post(PATH, content=exact, headers=headers)).status_code == 202
    assert_problem(await client.post(PATH, content=beyond, headers=headers), 413, "body-too-large")
    assert (await client.post(PATH, content=exact, headers=headers)).status_code == 202


async def test_a_bomb_costs_no_more_than_the_limit(client: httpx.AsyncClient) -> None:
    bomb = gzip.compress(bytes(100_000_000))[:BODY_LIMIT]
    await client.post(PATH, content=PACKED, headers={**bearer(), **GZIP})
    tracemalloc.start()
    try:
        response = await client.post(PATH, content=bomb, headers={**bearer(), **GZIP})
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_problem(response, 413, "body-too-large")
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, gzip", "gzip, identity"])
async def test_another_coding_is_refused_with_those_that_are_taken(
    client: httpx.AsyncClient, coding: str
) -> None:
    response = await client.post(PATH, content=GOOD, headers={**bearer(), "content-encoding": coding})
    assert_problem(response, 415, "unsupported-media-type")
    assert response.headers["accept-encoding"] == "gzip, identity"


async def test_another_media_type_is_refused_with_those_that_are_taken(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, content=GOOD, headers={**bearer(), "content-type": "text/csv"})
    assert_problem(response, 415, "unsupported-media-type")
    assert response.headers["accept"] == (
        "application/json, application/vnd.plantwire.frame+avro, application/avro, avro/binary"
    )


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json;q=0", "text/html", "application/avro", ";;q=,", "*/*;q=0"]
)
async def test_no_telemetry_is_lost_over_accept(client: httpx.AsyncClient, accept: str) -> None:
    response = await client.post(PATH, content=GOOD, headers={**bearer(), "accept": accept})
    assert (response.status_code, response.headers["content-type"]) == (202, "application/json")


async def test_an_avro_frame_is_taken(rig: Rig, client: httpx.AsyncClient) -> None:
    headers = {**bearer(), **AVRO_FRAME, "plantwire-fingerprint": FRAME_CODEC.fingerprint}
    response = await client.post(PATH, content=FRAME_CODEC.encode(FRAME), headers=headers)
    assert (response.status_code, response.json()) == (202, {"accepted": 1})
    (frame,) = rig.forwarder.frames
    assert (frame.device_id, frame.sequence, frame.protocol) == ("press-1", 7, "http")
    assert frame.received_time_ms >= FRAME.event_time_ms


@pytest.mark.parametrize("media", ["application/avro", "avro/binary"])
@pytest.mark.parametrize("codec", ["null", "deflate"])
async def test_an_avro_file_is_taken(rig: Rig, client: httpx.AsyncClient, media: str, codec: str) -> None:
    other = msgspec.structs.replace(FRAME, device_id="press-2")
    headers = {**both(), **GZIP, "content-type": media}
    body = gzip.compress(avro_file(FRAME, other, codec=codec))
    response = await client.post(BATCH, content=body, headers=headers)
    assert (response.status_code, response.json()) == (202, {"accepted": 2})
    assert [frame.device_id for frame in rig.forwarder.frames] == ["press-1", "press-2"]


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "reason"),
    [
        (PATH, AVRO_FRAME, b"", 400, "not-avro"),
        (PATH, {**AVRO_FRAME, "plantwire-fingerprint": "0" * 16}, b"", 422, "unknown-schema"),
        (PATH, {"content-type": "application/avro"}, GOOD, 400, "not-avro"),
        (BATCH, {"content-type": "application/avro"}, GOOD, 400, "not-avro"),
        (PATH, AVRO_FRAME, FRAME_CODEC.encode(msgspec.structs.replace(FRAME, device_id="press-2")), 422,
         "device-mismatch"),
        (BATCH, AVRO_FRAME, FRAME_CODEC.encode(msgspec.structs.replace(FRAME, device_id="press-2")), 403,
         "other-device"),
    ],
)  # fmt: skip
async def test_bad_avro_is_named(
    rig: Rig,
    client: httpx.AsyncClient,
    path: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    reason: str,
) -> None:
    assert_problem(await client.post(path, content=body, headers={**bearer(), **headers}), status, reason)
    assert not rig.forwarder.frames


def resolve(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/")]
    return found


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in references(item)]
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for item in node.values() for found in references(item)]
    return []


async def test_the_description_is_whole(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    for reference in references(document):
        resolve(document, reference)
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    operations = [entry for path in document["paths"].values() for entry in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    given = {str(status) for status in STATUS_OF_REASON.values()} | {"202", "503"}
    for path in ("/api/v1/devices/{id}/telemetry", "/api/v1/telemetry"):
        operation = document["paths"][path]["post"]
        assert set(operation["responses"]) == given
        assert {"application/json", "application/avro"} <= set(operation["requestBody"]["content"])
        named = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert named == ({"id"} if "{id}" in path else set())
    reasons = document["components"]["schemas"]["Problem"]["properties"]["reason"]["description"]
    for reason in STATUS_OF_REASON:
        assert reason.value in reasons


SCHEMAS = {"components": {"schemas": TELEMETRY_COMPONENTS["schemas"]}}


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("Frames", PATH, {"metrics": {"t": 1, "b": True, "s": "x"}, "quality": 0, "sequence": 1}),
        ("Frames", PATH, [{"metrics": {"t": 1}, "site": "a", "historical": False}]),
        ("Frames", PATH, {"metrics": {}}),
        ("Frames", PATH, {"metrics": {"t": None}}),
        ("Frames", PATH, {"metrics": {"": 1}}),
        ("Frames", PATH, {"metrics": {"t": 1}, "timestamp": 0}),
        ("Frames", PATH, {"metrics": {"t": 1}, "quality": 65_536}),
        ("Frames", PATH, {"metrics": {"t": 1}, "more": 1}),
        ("Frames", PATH, []),
        ("Batch", BATCH, {"frames": [of("press-1")]}),
        ("Batch", BATCH, [of("press-1")]),
        ("Batch", BATCH, [of("a b")]),
        ("Batch", BATCH, [{"metrics": {"t": 1}}]),
        ("Batch", BATCH, {"frames": []}),
    ],
)
async def test_the_description_and_the_gateway_agree(
    client: httpx.AsyncClient, name: str, path: str, body: Any
) -> None:
    schema = {**SCHEMAS, "$ref": f"#/components/schemas/{name}"}
    described = jsonschema.Draft202012Validator(schema).is_valid(body)
    response = await client.post(path, content=json.dumps(body), headers=bearer())
    assert (response.status_code == 202) == described, response.text


def test_the_examples_are_what_they_exemplify() -> None:
    for name in ("Frame", "DeviceFrame"):
        for example in TELEMETRY_COMPONENTS["schemas"][name]["examples"]:
            schema = {**SCHEMAS, "$ref": f"#/components/schemas/{name}"}
            jsonschema.Draft202012Validator(schema).validate(example)

"""How long the largest requests and messages hold the event loop, and with it every alarm, up.

Measured in processor time of the loop's thread, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import fastavro
import pytest
from paho.mqtt.client import MQTTMessage

from plantwire.gateway import mqtt_transport
from plantwire.gateway.decode_json import decode_telemetry
from plantwire.gateway.forwarder import DeadLetter, Obstacle, UnavailableError
from plantwire.gateway.http_transport import TelemetryEndpoint
from plantwire.gateway.kafka_record import frame_entry
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.mqtt_json import JsonSource
from plantwire.gateway.mqtt_transport import MqttTransport
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.sparkplug.payload import parse_payload
from plantwire.gateway.token_cache import TokenCache
from plantwire.schemas.codec import load_schema
from plantwire.schemas.records import TelemetryFrame
from tests.unit.gateway.http_rig import AUTHORITY, token

HELD_MAX_S = 0.02
SHAPES = [(20, 1000), (1000, 20), (1000, 1)]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What is loaded is not walked again, as in the gateway's process."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Encoding:
    """A forwarder that does the work of one: every frame is encoded."""

    def __init__(self) -> None:
        self.puts: list[list[str]] = []
        self.refuses_after = 10**9

    @property
    def frames(self) -> int:
        return sum(len(put) for put in self.puts)

    def put(self, frames: Sequence[TelemetryFrame]) -> asyncio.Future[None]:
        if len(self.puts) >= self.refuses_after:
            raise UnavailableError(Obstacle.IN_FLIGHT_FULL, "full")
        for frame in frames:
            frame_entry(frame, 1)
        self.puts.append([frame.device_id for frame in frames])
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    def put_dead_letter(self, letter: DeadLetter) -> asyncio.Future[None]:
        raise AssertionError(letter.rejected)

    async def ready(self) -> str | None:
        return None


class Watch:
    """The longest turn of the event loop while it is entered."""

    longest_s = 0.0

    async def __aenter__(self) -> Watch:
        self._task = asyncio.create_task(self._run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)
        self._task.cancel()

    async def _run(self) -> None:
        before_s = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now_s = time.thread_time()
            self.longest_s = max(self.longest_s, now_s - before_s)
            before_s = now_s


def json_body(frames: int, metrics: int) -> bytes:
    values = {f"{number:x}": 1.5 for number in range(metrics)}
    return json.dumps([{"metrics": values}] * frames).encode()


def avro_body(frames: int, metrics: int) -> bytes:
    metric = {"number": 1.5, "text": None, "quality": 192, "event_time_ms": None}
    record = {
        "device_id": "press-1",
        "site": "",
        "sequence": None,
        "event_time_ms": int(time.time() * 1000),
        "received_time_ms": 0,
        "protocol": "",
        "historical": False,
        "metrics": [{"name": f"{number:x}", **metric} for number in range(metrics)],
        "gateway_in_us": 0,
        "gateway_out_us": 0,
        "edge_state": b"",
    }
    out = BytesIO()
    fastavro.writer(out, load_schema("TelemetryFrame"), [record] * frames, codec="deflate")
    return out.getvalue()


class Http:
    """The endpoint without a server."""

    def __init__(self, **settings: Any) -> None:
        self.forwarder = Encoding()
        made = GatewaySettings(**settings)
        self.endpoint = TelemetryEndpoint(made, TokenCache(AUTHORITY), self.forwarder, GatewayMetrics())

    async def post(self, body: bytes, media: str) -> tuple[int, bytes]:
        messages = [{"type": "http.request", "body": body}]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "raw_path": b"/api/v1/devices/press-1/telemetry",
            "headers": [
                (b"authorization", f"Bearer {token()}".encode()),
                (b"content-type", media.encode()),
            ],
            "client": ("10.0.0.1", 1),
        }
        await self.endpoint(scope, receive, send)
        return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize(("frames", "metrics"), SHAPES)
@pytest.mark.parametrize("media", ["application/json", "application/avro"])
async def test_the_largest_requests_do_not_hold_the_loop_up(media: str, frames: int, metrics: int) -> None:
    http = Http(gateway_body_limit_bytes=4 * 1024 * 1024)
    body = (json_body if media == "application/json" else avro_body)(frames, metrics)
    await http.post(body, media)  # what is made at first use
    async with Watch() as watch:
        status, answer = await http.post(body, media)
    assert (status, json.loads(answer)) == (202, {"accepted": frames})
    assert http.forwarder.frames == 2 * frames
    assert watch.longest_s < HELD_MAX_S


@pytest.mark.parametrize("media", ["application/json", "application/avro"])
async def test_more_metrics_than_may_be_in_one_request_are_refused(media: str) -> None:
    http = Http(gateway_body_limit_bytes=4 * 1024 * 1024)
    body = (json_body if media == "application/json" else avro_body)(21, 1000)
    async with Watch() as watch:
        status, answer = await http.post(body, media)
    assert (status, json.loads(answer)["reason"]) == (422, "too-many-metrics")
    assert http.forwarder.puts == []
    assert watch.longest_s < HELD_MAX_S


async def test_a_slice_that_finds_no_room_refuses_the_request() -> None:
    http = Http()
    http.forwarder.refuses_after = 2
    status, answer = await http.post(json_body(1000, 10), "application/json")
    assert (status, json.loads(answer)["reason"]) == (503, "in-flight-full")
    assert len(http.forwarder.puts) == 2


@pytest.mark.parametrize(("frames", "metrics", "requests"), [(10, 100, 3), (1, 1, 60), (100, 1, 1)])
async def test_metrics_count_in_the_rate_limit(frames: int, metrics: int, requests: int) -> None:
    http = Http(gateway_rate_limit_frames_per_s=0.001, gateway_rate_limit_burst_frames=60)
    body = json_body(frames, metrics)
    for _ in range(requests):
        assert (await http.post(body, "application/json"))[0] == 202
    assert (await http.post(body, "application/json"))[0] == 429


async def test_a_large_body_counts_whatever_is_in_it() -> None:
    http = Http(gateway_rate_limit_frames_per_s=0.001, gateway_rate_limit_burst_frames=60)
    body = b" " * 600_000
    assert (await http.post(body, "application/json"))[0] == 400
    assert (await http.post(body, "application/json"))[0] == 429


class Connection:
    """A broker's side without a broker."""

    current: Connection

    def __init__(self, _address: object, on_message: Any) -> None:
        self.on_message = on_message
        self.acknowledged: list[int] = []
        Connection.current = self

    async def open(self, _filters: object) -> None: ...

    async def lost(self) -> str:
        await asyncio.Event().wait()
        return ""

    def acknowledge(self, message: MQTTMessage) -> None:
        self.acknowledged.append(message.mid)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def deliver(self, mid: int, device_id: str, body: bytes) -> None:
        message = MQTTMessage(mid, f"devices/{device_id}/telemetry".encode())
        message.payload = body
        message.qos = 1
        self.on_message(message)


class Mqtt:
    """The transport, connected."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mqtt_transport, "MqttConnection", Connection)
        monkeypatch.setattr(mqtt_transport, "_RETRY_FIRST_S", 0.001)
        settings = GatewaySettings()
        self.forwarder = Encoding()
        source = JsonSource(settings.decode_limits())
        self.transport = MqttTransport(settings, self.forwarder, GatewayMetrics(), [source])

    async def __aenter__(self) -> Mqtt:
        self._task = asyncio.create_task(self.transport.run())
        while await self.transport.ready() is not None:  # noqa: ASYNC110 - it tells nobody of itself
            await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def acknowledged(self, count: int) -> list[int]:
        async with asyncio.timeout(10):
            while len(Connection.current.acknowledged) < count:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        return Connection.current.acknowledged


async def test_the_largest_message_goes_on_in_turns_and_later_ones_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = json_body(20, 1000)
    async with Mqtt(monkeypatch) as mqtt:
        Connection.current.deliver(1, "large", body)
        Connection.current.deliver(2, "later", b'{"metrics": {"t": 1}}')
        assert mqtt.forwarder.frames == 1, "the rest goes in later turns"
        async with Watch() as watch:
            assert sorted(await mqtt.acknowledged(2)) == [1, 2]
        assert [device for put in mqtt.forwarder.puts for device in put] == ["large"] * 20 + ["later"]
        assert watch.longest_s < HELD_MAX_S


async def test_a_message_whose_later_slice_finds_no_room_is_sent_again_before_those_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Mqtt(monkeypatch) as mqtt:
        mqtt.forwarder.refuses_after = 2
        Connection.current.deliver(1, "large", json_body(3, 1000))
        Connection.current.deliver(2, "later", b'{"metrics": {"t": 1}}')
        await asyncio.sleep(0.01)
        assert Connection.current.acknowledged == []
        mqtt.forwarder.refuses_after = 10**9
        assert sorted(await mqtt.acknowledged(2)) == [1, 2]
        assert [device for put in mqtt.forwarder.puts for device in put] == ["large"] * 5 + ["later"]


def held_s(work: Any) -> float:
    started_s = time.thread_time()
    work()
    return time.thread_time() - started_s


def test_decoding_the_largest_message_takes_no_longer() -> None:
    limits = GatewaySettings().decode_limits()
    body = json_body(20, 1000)
    now_us = int(time.time() * 1e6)
    decode_telemetry(body, "d", "mqtt-json", now_us, limits)
    assert held_s(lambda: decode_telemetry(body, "d", "mqtt-json", now_us, limits)) < HELD_MAX_S


@pytest.mark.parametrize("metric", [b"\x12\x00", b"\x92\x00\x00", b"\x12\x02\x0a\x00"])
def test_half_a_million_empty_sparkplug_metrics_are_counted_and_not_built(metric: bytes) -> None:
    data = metric * (1024 * 1024 // len(metric))
    refused: list[Any] = []
    assert held_s(lambda: refused.append(parse_payload(data, len(data), 5000))) < HELD_MAX_S
    assert refused == [Rejected(Reason.TOO_MANY_METRICS, "More than 5000 metrics in one message.")]

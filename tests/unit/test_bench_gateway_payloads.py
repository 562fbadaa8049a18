"""What the gateway's bench sends is what the gateway reads, and its time stamps are found again."""

from __future__ import annotations

import pytest

from bench.gateway_payloads import (
    CHIRPSTACK,
    METRICS,
    PROTOCOLS,
    SPARKPLUG,
    Plant,
    sent_us_of_copy,
    sent_us_of_frame,
)
from plantwire.gateway.chirpstack.codec_choice import CodecChoice
from plantwire.gateway.chirpstack.codecs import Codecs
from plantwire.gateway.chirpstack.decode import ChirpstackDecoder
from plantwire.gateway.decode_json import DecodeLimits, decode_telemetry
from plantwire.gateway.rejected import Rejected
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import TelemetryFrame

SENT_US = 1_795_000_000_123_456
LIMITS = DecodeLimits(metrics_per_frame_max=1000, frames_max=1000, time_ahead_max_ms=60_000)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_copy_tells_when_it_was_sent(protocol: str) -> None:
    assert sent_us_of_copy(protocol, Plant(protocol, "0000beef", 2).payload(1, SENT_US)) == SENT_US


def test_births_tell_nothing() -> None:
    births = Plant(SPARKPLUG, "0000beef", 2).births(SENT_US // 1000)
    assert [topic.split("/")[2] for topic, _ in births] == ["NBIRTH", "DBIRTH", "DBIRTH"]
    assert [sent_us_of_copy(SPARKPLUG, payload) for _, payload in births] == [None, None, None]


@pytest.mark.parametrize("protocol", [p for p in PROTOCOLS if p not in (SPARKPLUG, CHIRPSTACK)])
def test_json_frames_tell_when_they_were_sent(protocol: str) -> None:
    plant = Plant(protocol, "0000beef", 2)
    frames = decode_telemetry(plant.payload(0, SENT_US), "0000beef-0", protocol, SENT_US, LIMITS)
    _check(protocol, frames)


def test_uplinks_tell_when_they_were_sent() -> None:
    plant = Plant(CHIRPSTACK, "0000beef", 2)
    decoder = ChirpstackDecoder("", LIMITS, Codecs({}), CodecChoice())
    decoded = decoder.decode(plant.topic(1), plant.payload(1, SENT_US), SENT_US)
    assert not isinstance(decoded, Rejected)
    _check(CHIRPSTACK, decoded.frames)


def _check(protocol: str, frames: tuple[TelemetryFrame, ...] | Rejected) -> None:
    assert not isinstance(frames, Rejected)
    (frame,) = frames
    assert len(frame.metrics) >= METRICS[protocol]
    assert sent_us_of_frame(FRAME_CODEC.encode(frame), None)[0] == SENT_US

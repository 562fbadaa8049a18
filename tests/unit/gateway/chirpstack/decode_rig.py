"""ChirpStack's events decoded, for the tests of what becomes of them."""

from __future__ import annotations

from typing import Any

from plantwire.gateway.chirpstack.codec_choice import CodecChoice, ProfileCodec
from plantwire.gateway.chirpstack.codecs import Codecs
from plantwire.gateway.chirpstack.decode import ChirpstackDecoder
from plantwire.gateway.decode_json import DecodeLimits
from plantwire.gateway.mqtt_source import Decoded, Outcome
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.records import TelemetryFrame
from tests.unit.gateway.chirpstack.chirpstack_events import (
    payload_of,
    topic_of,
)

RECEIVED_US = 1_658_138_400_000_000  # 2022-07-18T10:00:00Z
RECEIVED_MS = RECEIVED_US // 1000
LIMITS = DecodeLimits(metrics_per_frame_max=40, frames_max=10, time_ahead_max_ms=60_000)


def crashing_codec(payload: bytes, f_port: int) -> dict[str, object]:
    raise RuntimeError("cannot read this")


DECODER = ChirpstackDecoder(
    topic_prefix="",
    limits=LIMITS,
    codecs=Codecs({"port": lambda payload, f_port: {"port": f_port}, "crash": crashing_codec}),
    choice=CodecChoice([ProfileCodec("Cayenne*", "cayenne-lpp")]),
)


def decode(event: str, topic: str | None = None, received_us: int = RECEIVED_US, **changes: Any) -> Outcome:
    return DECODER.decode(topic or topic_of(event), payload_of(event, **changes), received_us)


def decoded(event: str, **changes: Any) -> Decoded:
    outcome = decode(event, **changes)
    assert isinstance(outcome, Decoded), outcome
    return outcome


def frame_of(event: str, **changes: Any) -> TelemetryFrame:
    (frame,) = decoded(event, **changes).frames
    return frame


def values_of(event: str, **changes: Any) -> dict[str, float | str | None]:
    frame = frame_of(event, **changes)
    return {m.name: m.text if m.number is None else m.number for m in frame.metrics}


def reason_of(outcome: Outcome) -> Reason:
    assert isinstance(outcome, Rejected), outcome
    return outcome.reason

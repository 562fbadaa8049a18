"""What a plain JSON message becomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.decode_json import DecodeLimits
from plantwire.gateway.mqtt_json import JsonSource
from plantwire.gateway.mqtt_source import Decoded
from plantwire.gateway.rejected import Reason, Rejected

NOW_US = 1_767_225_600_000_000
SOURCE = JsonSource(DecodeLimits(metrics_per_frame_max=10, frames_max=10, time_ahead_max_ms=60_000))
GOOD = b'{"metrics": {"t": 1}}'


def test_the_device_is_the_topic_s_middle() -> None:
    outcome = SOURCE.decode("devices/press-1/telemetry", GOOD, NOW_US)
    assert isinstance(outcome, Decoded)
    assert (outcome.frames[0].device_id, outcome.frames[0].protocol) == ("press-1", "mqtt-json")
    assert (outcome.key, outcome.remarks) == (None, ())


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("devices/press-1/telemetry", b"", Reason.NOT_JSON),
        ("devices//telemetry", GOOD, Reason.INVALID_DEVICE_ID),
        ("devices/a b/telemetry", GOOD, Reason.INVALID_DEVICE_ID),
        ("devices/a/b/telemetry", GOOD, Reason.INVALID_DEVICE_ID),
    ],
)
def test_a_bad_message_is_refused_by_name(topic: str, payload: bytes, reason: Reason) -> None:
    outcome = SOURCE.decode(topic, payload, NOW_US)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == reason


@given(st.text(max_size=40), st.binary(max_size=60))
def test_nothing_raises(topic: str, payload: bytes) -> None:
    for name in (topic, f"devices/{topic}/telemetry"):
        assert isinstance(SOURCE.decode(name, payload, NOW_US), Decoded | Rejected)

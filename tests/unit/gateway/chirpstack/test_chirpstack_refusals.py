"""What of ChirpStack's events is refused, by name; and that nothing raises."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantwire.gateway.chirpstack.codec_choice import CodecChoice
from plantwire.gateway.chirpstack.codecs import Codecs
from plantwire.gateway.chirpstack.decode import ChirpstackDecoder
from plantwire.gateway.chirpstack.source import ChirpstackSource
from plantwire.gateway.decode_json import DecodeLimits
from plantwire.gateway.mqtt_source import Decoded, Unneeded
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.codec import FRAME_CODEC
from tests.unit.gateway.chirpstack.chirpstack_events import (
    APPLICATION,
    DEV_EUI,
    EVENTS,
    info_with,
    payload_of,
    topic_of,
)
from tests.unit.gateway.chirpstack.decode_rig import (
    DECODER,
    LIMITS,
    RECEIVED_MS,
    RECEIVED_US,
    decode,
    decoded,
    frame_of,
    reason_of,
)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.NOT_JSON),
        (b"{", Reason.NOT_JSON),
        (b"\xff", Reason.NOT_JSON),
        (b"\x0a\x10protobuf", Reason.NOT_JSON),
        (b"[]", Reason.BAD_SHAPE),
        (b"{}", Reason.BAD_SHAPE),
        (b'{"deviceInfo": null}', Reason.BAD_SHAPE),
        (b'{"deviceInfo": {}}', Reason.BAD_SHAPE),
        (payload_of("up", fCnt="1"), Reason.BAD_SHAPE),
        (payload_of("up", fCnt=-1), Reason.BAD_SHAPE),
        (payload_of("up", fCnt=2**32), Reason.BAD_SHAPE),
        (payload_of("up", fCnt=1.5), Reason.BAD_SHAPE),
        (payload_of("up", fPort=256), Reason.BAD_SHAPE),
        (payload_of("up", time="yesterday"), Reason.BAD_SHAPE),
        (payload_of("up", time="2022-07-18T09:34:15"), Reason.BAD_SHAPE),
        (payload_of("up", time=1658136855), Reason.BAD_SHAPE),
        (payload_of("up", object=[1]), Reason.BAD_SHAPE),
        (payload_of("up", rxInfo={"rssi": -3}), Reason.BAD_SHAPE),
        (payload_of("up", rxInfo=[{"rssi": "loud"}]), Reason.BAD_SHAPE),
        (payload_of("up", deviceInfo=info_with(tags={"a": 1})), Reason.BAD_SHAPE),
        (payload_of("up", deviceInfo=info_with(tags={"site": "a\nb"})), Reason.BAD_SHAPE),
        (payload_of("up", data="not base64"), Reason.BAD_SHAPE),
        (payload_of("up", data="qg"), Reason.BAD_SHAPE),
        (payload_of("up", data="ÿ"), Reason.BAD_SHAPE),
        (payload_of("up", data=base64.b64encode(bytes(256)).decode()), Reason.BAD_SHAPE),
        (payload_of("up", deviceInfo=info_with(devEui="02" * 8)), Reason.TOPIC_MISMATCH),
        (payload_of("up", deviceInfo=info_with(devEui="")), Reason.TOPIC_MISMATCH),
        (payload_of("up", deviceInfo=info_with(applicationId="other")), Reason.TOPIC_MISMATCH),
        (payload_of("up", object={"": 1}), Reason.INVALID_METRIC_NAME),
        (payload_of("up", object={"a\n": 1}), Reason.INVALID_METRIC_NAME),
        (payload_of("up", object={"lorawan": {"rssi": 1}}), Reason.INVALID_METRIC_NAME),
        (payload_of("up", object={"a/b": 1, "a": {"b": 2}}), Reason.DUPLICATE_KEY),
        (payload_of("up", object={"a": "\0"}), Reason.INVALID_TEXT),
        (payload_of("up", object={"a": "x" * 8193}), Reason.INVALID_TEXT),
        (payload_of("up", object={"a": list(range(41))}), Reason.TOO_MANY_METRICS),
        (payload_of("up", object={"a": list(range(39))}), Reason.TOO_MANY_METRICS),  # with the radio's
        (payload_of("up").replace(b'"dr": 1', b'"object": {"a": 1e999}'), Reason.NOT_A_NUMBER),
        (payload_of("up").replace(b'"dr": 1', b'"object": {"a": ' + b"9" * 400 + b"}"), Reason.NOT_A_NUMBER),
        (b'{"deviceInfo": ' + b'{"a": ' * 5000 + b"1" + b"}" * 5001, Reason.BAD_SHAPE),
        (payload_of("up").replace(b'"dr": 1', b'"x": ' + b"[" * 5000 + b"]" * 5000), Reason.BAD_SHAPE),
    ],
)
def test_bad_payloads_are_refused_by_name(payload: bytes, reason: Reason) -> None:
    assert reason_of(DECODER.decode(topic_of("up"), payload, RECEIVED_US)) is reason


def test_deep_objects_are_refused() -> None:
    nested: object = 1
    for _ in range(9):
        nested = {"a": nested}
    assert reason_of(decode("up", object=nested)) is Reason.BAD_SHAPE


def test_a_frame_that_fits_no_record_is_refused() -> None:
    long = {"a": {str(n): "ü" * 8000 for n in range(30)}, "b": {str(n): "ü" * 8000 for n in range(3)}}
    limits = DecodeLimits(metrics_per_frame_max=1000, frames_max=1, time_ahead_max_ms=60_000)
    decoder = ChirpstackDecoder("", limits, Codecs({}), CodecChoice())
    fits = decoder.decode(topic_of("up"), payload_of("up", object=long), RECEIVED_US)
    assert isinstance(fits, Decoded)
    long["b"] = {str(n): "ü" * 8000 for n in range(30)}
    outcome = decoder.decode(topic_of("up"), payload_of("up", object=long), RECEIVED_US)
    assert reason_of(outcome) is Reason.FRAME_TOO_LARGE


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        (topic_of("up", "01" * 7), Reason.INVALID_DEVICE_ID),
        (topic_of("up", "0g" * 8), Reason.INVALID_DEVICE_ID),
        ("application/a/device/" + DEV_EUI, Reason.INVALID_DEVICE_ID),
        ("other/a/device/" + DEV_EUI + "/event/up", Reason.INVALID_DEVICE_ID),
        (topic_of("down"), Reason.UNKNOWN_EVENT),
        (topic_of(""), Reason.UNKNOWN_EVENT),
    ],
)
def test_bad_topics_are_refused_by_name(topic: str, reason: Reason) -> None:
    assert reason_of(DECODER.decode(topic, payload_of("up"), RECEIVED_US)) is reason


def test_hex_of_either_case_is_one_device() -> None:
    topic = topic_of("up", "A1B2C3D4E5F60708")
    outcome = decoded("up", topic=topic, deviceInfo=info_with(devEui="a1b2c3d4e5f60708"))
    assert outcome.frames[0].device_id == "a1b2c3d4e5f60708"


def test_defaults_mean_the_same_written_out_and_left_out() -> None:
    # ChirpStack left them out before 4.1.
    defaults = {"adr": False, "fCnt": 0, "confirmed": False, "relayRxInfo": None, "regionConfigId": ""}
    fields_ = {**EVENTS["up"], **defaults, "object": None, "joinServerContext": None}
    outcome = DECODER.decode(topic_of("up"), json.dumps(fields_).encode(), RECEIVED_US)
    assert outcome == decoded("up")
    written = {"externalPowerSource": False, "batteryLevelUnavailable": False}
    assert frame_of("status", **written) == frame_of("status")


def test_unknown_fields_are_skipped() -> None:
    assert frame_of("up", regionConfigId="eu868", somethingNew={"a": [1]}) == frame_of("up")


def test_a_prefix_goes_before_the_topic() -> None:
    source = ChirpstackSource(ChirpstackDecoder("eu868/", LIMITS, Codecs({}), CodecChoice()))
    assert source.filters == ("eu868/application/+/device/+/event/+",)
    assert isinstance(source.decode("eu868/" + topic_of("up"), payload_of("up"), RECEIVED_US), Decoded)
    assert isinstance(source.decode(topic_of("up"), payload_of("up"), RECEIVED_US), Rejected)


# Whatever comes.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(sorted({key for event in EVENTS.values() for key in event} | {"object"}))


@given(st.sampled_from(sorted(EVENTS)), st.binary(max_size=200))
def test_no_bytes_raise(event: str, payload: bytes) -> None:
    outcome = DECODER.decode(topic_of(event), payload, RECEIVED_US)
    assert isinstance(outcome, Decoded | Rejected)


@settings(max_examples=300)
@given(st.sampled_from(sorted(EVENTS)), st.dictionaries(fields, json_values, max_size=3))
def test_no_json_raises_and_every_frame_encodes(event: str, changes: dict[str, Any]) -> None:
    fields_ = {**EVENTS[event], "deviceInfo": info_with(tags={"plantwire_codec": "cayenne-lpp"}), **changes}
    outcome = DECODER.decode(topic_of(event), json.dumps(fields_).encode(), RECEIVED_US)
    if isinstance(outcome, Decoded):
        (frame,) = outcome.frames
        assert FRAME_CODEC.decode(FRAME_CODEC.encode(frame), FRAME_CODEC.fingerprint) == frame
        assert 0 < frame.event_time_ms <= RECEIVED_MS + LIMITS.time_ahead_max_ms
        assert len({m.name for m in frame.metrics}) == len(frame.metrics) <= LIMITS.metrics_per_frame_max
    else:
        assert isinstance(outcome, Rejected)


@given(st.text(max_size=60), st.sampled_from(sorted(EVENTS)))
def test_no_topic_raises(topic: str, event: str) -> None:
    for name in (topic, f"application/{topic}/device/{DEV_EUI}/event/{event}", topic_of(topic)):
        assert isinstance(DECODER.decode(name, payload_of(event), RECEIVED_US), Decoded | Unneeded | Rejected)


@given(st.binary(max_size=80))
def test_no_data_raises(data: bytes) -> None:
    info = info_with(tags={"plantwire_codec": "cayenne-lpp"})
    encoded = base64.b64encode(data).decode()
    outcome = decode("up", deviceInfo=info, data=encoded)
    assert isinstance(outcome, Decoded) or reason_of(outcome) in (
        Reason.CODEC_FAILED,
        Reason.TOO_MANY_METRICS,
    )


def test_the_application_of_topic_and_payload_agree() -> None:
    assert frame_of("up", deviceInfo=info_with(applicationId=APPLICATION)) == frame_of("up")
    assert isinstance(decode("up", deviceInfo=info_with(applicationId="")), Decoded)

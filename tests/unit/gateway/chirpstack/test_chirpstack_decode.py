"""What ChirpStack's events become."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantwire.gateway.chirpstack.codec_choice import CodecChoice, ProfileCodec
from plantwire.gateway.chirpstack.codecs import Codecs
from plantwire.gateway.chirpstack.decode import ChirpstackDecoder
from plantwire.gateway.chirpstack.source import ChirpstackSource
from plantwire.gateway.decode_json import DecodeLimits
from plantwire.gateway.mqtt_source import Decoded, Outcome, Remark, Unneeded
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import QUALITY_BAD, QUALITY_GOOD, Metric, TelemetryFrame
from tests.unit.gateway.chirpstack.chirpstack_events import (
    APPLICATION,
    DEV_EUI,
    EVENTS,
    info_with,
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


def test_an_uplink_of_the_documentation() -> None:
    outcome = decoded("up")
    assert outcome.frames == (
        TelemetryFrame(
            device_id=DEV_EUI,
            site="Test application",
            sequence=0,  # a default, so left out by ChirpStack
            event_time_ms=1_658_136_855_775,
            received_time_ms=RECEIVED_MS,
            protocol="chirpstack",
            historical=False,
            metrics=(
                Metric("lorawan/data", None, "aa"),
                Metric("lorawan/dr", 1.0),
                Metric("lorawan/f_cnt", 0.0),
                Metric("lorawan/f_port", 1.0),
                Metric("lorawan/gateways", 1.0),
                Metric("lorawan/rssi", -36.0),
                Metric("lorawan/snr", 10.5),
            ),
            gateway_in_us=RECEIVED_US,
        ),
    )
    assert outcome.remarks == (Remark.NO_CODEC,)


def test_an_object_becomes_metrics_before_those_of_the_radio() -> None:
    decoded_object = {
        "temperature": 21.5,
        "door": True,
        "mode": "eco",
        "count": 12,
        "error": None,
        "gps": {"lat": 52.1, "fix": {"sats": 7}},
        "t": [20.0, [21.0]],
        "empty": {},
        "none": [],
    }
    frame = frame_of("up", object=decoded_object, fCnt=4711, dr=None, fPort=None)
    assert frame.sequence == 4711
    assert frame.metrics[:9] == (
        Metric("temperature", 21.5),
        Metric("door", 1.0),
        Metric("mode", None, "eco"),
        Metric("count", 12.0),
        Metric("error", None, None, QUALITY_BAD),
        Metric("gps/lat", 52.1),
        Metric("gps/fix/sats", 7.0),
        Metric("t/0", 20.0),
        Metric("t/1/0", 21.0),
    )
    assert [m.name for m in frame.metrics[9:]] == [
        f"lorawan/{name}" for name in ("dr", "f_cnt", "f_port", "gateways", "rssi", "snr")
    ]
    assert frame.metrics[9].number == frame.metrics[11].number == 0  # dr and fPort were left out


def test_the_best_gateway_s_reception_counts() -> None:
    receptions = [
        {"rssi": -120, "snr": -7.5},
        {"rssi": -90, "snr": 9.25},
        {"rssi": -40},  # FSK, or an SNR of 0 that was left out
    ]
    values = values_of("up", rxInfo=receptions)
    assert (values["lorawan/gateways"], values["lorawan/rssi"], values["lorawan/snr"]) == (3, -90, 9.25)
    fsk = values_of("up", rxInfo=[{"rssi": -90}, {"rssi": -40}])
    assert fsk["lorawan/rssi"] == -40


def test_without_receptions_there_is_no_signal() -> None:
    values = values_of("up", rxInfo=None)
    assert values["lorawan/gateways"] == 0
    assert "lorawan/rssi" not in values


def test_a_sign_of_life_without_payload_is_a_frame_without_remark() -> None:
    outcome = decoded("up", data=None, fPort=None)
    assert outcome.remarks == ()
    assert "lorawan/data" not in {m.name for m in outcome.frames[0].metrics}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batteryLevel": 88.3}, {"lorawan/battery": 88.3, "lorawan/external_power": 0.0}),
        ({"batteryLevel": None}, {"lorawan/battery": 0.0}),  # nearly empty: 0 is left out
        ({"batteryLevel": None, "batteryLevelUnavailable": True}, {"lorawan/battery": None}),
        (
            {"batteryLevel": None, "externalPowerSource": True},
            {"lorawan/battery": None, "lorawan/external_power": 1.0},
        ),
        ({"margin": -20}, {"lorawan/margin": -20.0}),
        ({"margin": None}, {"lorawan/margin": 0.0}),
    ],
)
def test_battery_and_margin(changes: dict[str, Any], expected: dict[str, float | None]) -> None:
    values = values_of("status", **changes)
    assert values.items() >= expected.items()
    qualities = {m.name: m.quality for m in frame_of("status", **changes).metrics}
    good = values["lorawan/battery"] is not None
    assert qualities["lorawan/battery"] == (QUALITY_GOOD if good else QUALITY_BAD)


@pytest.mark.parametrize(
    ("event", "changes", "expected"),
    [
        ("join", {}, {"lorawan/dev_addr": "00189440"}),
        (
            "ack",
            {},
            {
                "lorawan/ack/queue_item_id": "1bbcab1d-6ec6-4136-b3f5-d63be1dc08de",
                "lorawan/ack/acknowledged": 1.0,
                "lorawan/ack/f_cnt_down": 3.0,
            },
        ),
        (
            "ack",  # timed out: false is left out
            {"acknowledged": None, "fCntDown": None},
            {
                "lorawan/ack/queue_item_id": "1bbcab1d-6ec6-4136-b3f5-d63be1dc08de",
                "lorawan/ack/acknowledged": 0.0,
                "lorawan/ack/f_cnt_down": 0.0,
            },
        ),
        (
            "txack",
            {},
            {
                "lorawan/txack/queue_item_id": "42cb6459-a640-46ec-9623-bdff39dc4736",
                "lorawan/txack/f_cnt_down": 2.0,
                "lorawan/txack/gateway_id": "0016c001f153a14c",
            },
        ),
        (
            "log",
            {},
            {
                "lorawan/log/level": "ERROR",
                "lorawan/log/code": "UPLINK_MIC",
                "lorawan/log/description": "MIC of join-request is invalid, make sure keys are correct",
            },
        ),
        (
            "log",  # INFO and UNKNOWN are left out
            {"level": None, "code": None, "description": None},
            {
                "lorawan/log/level": "INFO",
                "lorawan/log/code": "UNKNOWN",
                "lorawan/log/description": "",
            },
        ),
        (
            "location",
            {},
            {
                "lorawan/latitude": 37.344214,
                "lorawan/longitude": -8.839375,
                "lorawan/altitude": 2.0,
                "lorawan/location_source": "UNKNOWN",
            },
        ),
        (
            "location",
            {"location": {"longitude": 1.5, "source": "GEO_RESOLVER_TDOA", "accuracy": 30}},
            {
                "lorawan/latitude": 0.0,
                "lorawan/longitude": 1.5,
                "lorawan/altitude": 0.0,
                "lorawan/location_source": "GEO_RESOLVER_TDOA",
                "lorawan/accuracy": 30.0,
            },
        ),
    ],
)
def test_the_other_events(event: str, changes: dict[str, Any], expected: dict[str, object]) -> None:
    assert values_of(event, **changes) == expected
    assert frame_of(event, **changes).sequence is None


@pytest.mark.parametrize(
    ("level", "remark"),
    [
        ("ERROR", Remark.LOG_ERROR),
        ("WARNING", Remark.LOG_WARNING),
        (None, Remark.LOG_INFO),
        (7, Remark.LOG_INFO),
    ],
)
def test_logs_are_remarked_by_level(level: object, remark: Remark) -> None:
    assert decoded("log", level=level).remarks == (remark,)


def test_integration_events_carry_nothing_to_forward() -> None:
    outcome = DECODER.decode(topic_of("integration"), payload_of("up"), RECEIVED_US)
    assert outcome is Unneeded.NOTHING_TO_FORWARD


def test_the_key_tells_the_events_of_one_reception_apart() -> None:
    same = {"deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d"}
    keys = {decoded(event, **same).key for event in ("up", "status", "join", "ack")}
    assert len(keys) == 4
    assert None not in keys
    assert decoded("up").key == decoded("up").key
    other = decoded("up", topic=topic_of("up", "02" * 8), deviceInfo=info_with(devEui="02" * 8))
    assert other.key != decoded("up").key


@pytest.mark.parametrize(("event", "changes"), [("txack", {}), ("log", {}), ("up", {"deduplicationId": ""})])
def test_what_has_no_deduplication_id_has_no_key(event: str, changes: dict[str, Any]) -> None:
    assert decoded(event, **changes).key is None


def test_a_tag_names_the_site() -> None:
    assert frame_of("up", deviceInfo=info_with(tags={"site": "hall-2"})).site == "hall-2"
    assert frame_of("up", deviceInfo=info_with(tags={"site": ""})).site == "Test application"
    assert frame_of("up", deviceInfo=info_with(tags={}, applicationName="")).site == ""


# Which bytes are decoded, and by what.

TEMPERATURE = base64.b64encode(bytes.fromhex("036701100567 00ff".replace(" ", ""))).decode()


def test_a_device_profile_names_the_codec() -> None:
    info = info_with(deviceProfileName="Cayenne sensor")
    outcome = decoded("up", deviceInfo=info, data=TEMPERATURE)
    assert outcome.frames[0].metrics[:2] == (Metric("temperature_3", 27.2), Metric("temperature_5", 25.5))
    assert outcome.remarks == ()


def test_a_tag_goes_before_the_profile() -> None:
    tags = {"plantwire_codec": "port"}
    info = info_with(deviceProfileName="Cayenne sensor", tags=tags)
    assert frame_of("up", deviceInfo=info, fPort=85).metrics[0] == Metric("port", 85.0)
    info = info_with(deviceProfileName="Cayenne sensor", tags={"plantwire_codec": "none"})
    assert decoded("up", deviceInfo=info).remarks == (Remark.NO_CODEC,)


def test_chirpstack_s_own_object_goes_before_a_codec() -> None:
    info = info_with(tags={"plantwire_codec": "crash"})
    assert frame_of("up", deviceInfo=info, object={"t": 1}).metrics[0] == Metric("t", 1.0)


def test_bytes_that_are_encrypted_are_not_decoded() -> None:
    info = info_with(tags={"plantwire_codec": "crash"})
    outcome = decoded("up", deviceInfo=info, joinServerContext={"sessionKeyId": "AQ=="})
    assert outcome.remarks == (Remark.ENCRYPTED,)
    assert outcome.frames[0].metrics[0] == Metric("lorawan/data", None, "aa")


@pytest.mark.parametrize(
    ("codec", "reason"), [("crash", Reason.CODEC_FAILED), ("no such codec", Reason.UNKNOWN_CODEC)]
)
def test_a_codec_that_fails_refuses_its_own_uplink(codec: str, reason: Reason) -> None:
    info = info_with(tags={"plantwire_codec": codec})
    assert reason_of(decode("up", deviceInfo=info)) is reason


# Times.


def test_an_event_without_time_has_the_network_server_s_else_ours() -> None:
    outcome = decoded("up", time=None, rxInfo=[{"nsTime": "2022-07-18T09:34:16+00:00"}, {"rssi": -3}])
    assert outcome.frames[0].event_time_ms == 1_658_136_856_000
    assert Remark.TIME_REPLACED not in outcome.remarks
    assert frame_of("up", time=None).event_time_ms == RECEIVED_MS


def test_a_gateway_s_impossible_clock_is_replaced_and_remarked() -> None:
    for time in ("1980-01-06T00:00:10Z", "2002-12-02T09:34:15Z", "2042-01-01T00:00:00Z"):
        outcome = decoded("up", time=time, rxInfo=[{"nsTime": "2022-07-18T09:34:16.5Z"}])
        assert outcome.frames[0].event_time_ms == 1_658_136_856_500
        assert Remark.TIME_REPLACED in outcome.remarks


# What is refused.


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

"""What ChirpStack's events become."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from plantwire.gateway.mqtt_source import Remark, Unneeded
from plantwire.gateway.rejected import Reason
from plantwire.schemas.records import QUALITY_BAD, QUALITY_GOOD, Metric, TelemetryFrame
from tests.unit.gateway.chirpstack.chirpstack_events import (
    DEV_EUI,
    info_with,
    payload_of,
    topic_of,
)
from tests.unit.gateway.chirpstack.decode_rig import (
    DECODER,
    RECEIVED_MS,
    RECEIVED_US,
    decode,
    decoded,
    frame_of,
    reason_of,
    values_of,
)


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

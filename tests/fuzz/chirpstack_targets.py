"""ChirpStack events and Cayenne LPP."""

from __future__ import annotations

import base64
import json
import math

from plantwire.gateway.chirpstack.cayenne_lpp import decode_cayenne_lpp
from plantwire.gateway.chirpstack.codec_choice import CODEC_TAG, CodecChoice, ProfileCodec
from plantwire.gateway.chirpstack.codecs import Codecs
from plantwire.gateway.chirpstack.decode import PROTOCOL, ChirpstackDecoder
from plantwire.gateway.mqtt_source import Decoded, Remark, Unneeded
from plantwire.gateway.rejected import Rejected
from plantwire.schemas.identifiers import is_metric_name
from plantwire.simulator.frame import Frame
from plantwire.simulator.lorawan.chirpstack import DeviceRecord
from plantwire.simulator.lorawan.sensors import build_sensors
from tests.fuzz.cursor import Cursor
from tests.fuzz.frame_checks import LIMITS, RECEIVED_MS, RECEIVED_US, check_frames, check_rejected
from tests.fuzz.json_building import BUILT_FROM, build_json
from tests.fuzz.target import Check

PROTOCOLS = frozenset({PROTOCOL})
EUI = "0102030405060708"
APPLICATION = "7d1f3c52-3a5e-4c0b-9b0f-6f2a5d1c8e10"
EVENTS = ("up", "join", "status", "ack", "txack", "log", "location", "integration", "other", "")
PREFIX = f"application/{APPLICATION}/device/{EUI}/event/"


def chirpstack_check() -> Check:
    """Events: the first byte chooses which, the rest is the payload, or what it is built from."""
    choice = CodecChoice((ProfileCodec("lpp*", "cayenne-lpp"),))
    decoder = ChirpstackDecoder("", LIMITS, Codecs({}), choice)

    def check(data: bytes) -> None:
        cursor = Cursor(data)
        event = cursor.byte()
        payload = _built(cursor) if event >= BUILT_FROM else cursor.rest()
        outcome = decoder.decode(PREFIX + EVENTS[event % len(EVENTS)], payload, RECEIVED_US)
        if isinstance(outcome, Rejected):
            check_rejected(outcome)
        elif isinstance(outcome, Decoded):
            check_frames(outcome.frames, PROTOCOLS)
            assert {frame.device_id for frame in outcome.frames} == {EUI}
            assert outcome.key is None or 0 < len(outcome.key) < 200
            assert all(isinstance(remark, Remark) for remark in outcome.remarks)
        else:
            assert isinstance(outcome, Unneeded)

    return check


_KEYS = (
    *(b"object", b"data", b"time", b"rxInfo", b"txInfo", b"fCnt", b"fPort", b"dr", b"deduplicationId"),
    *(b"gwTime", b"nsTime", b"rssi", b"snr", b"margin", b"batteryLevel", b"batteryLevelUnavailable"),
    *(b"externalPowerSource", b"acknowledged", b"queueItemId", b"level", b"description", b"location"),
    *(b"latitude", b"joinServerContext", b"a", b"b", b"lorawan/x", b"", b"\\u0000", b"deviceInfo"),
)


def _built(cursor: Cursor) -> bytes:
    """An event of the right device with fields by chance."""
    tags = cursor.choose((b'{"plantwire_codec":"cayenne-lpp"}', b'{"plantwire_codec":"x"}', b"{}"))
    head = f'{{"deviceInfo":{{"devEui":"{EUI}","applicationId":"{APPLICATION}","tags":'.encode()
    fields = b"".join(
        b',"' + cursor.choose(_KEYS) + b'":' + build_json(cursor, _KEYS, 1) for _ in range(cursor.byte() % 6)
    )
    return head + tags + b"}" + fields + b"}"


def chirpstack_seeds() -> list[bytes]:
    """What a simulated server publishes, and the events that it does not know."""
    seeds = []
    for sensor in build_sensors(2, 1, 10.0, 1.0):
        record = DeviceRecord(sensor, lambda: "3b2f0f2e-5a52-4f0e-9a5a-0c2b2d6f8f11")
        for message in record.messages(
            Frame(sensor.device_id, sensor.site, 0, RECEIVED_MS, sensor.values_at(0.0, 0))
        ):
            kind = EVENTS.index(message.topic.rsplit("/", 1)[1])
            seeds.append(bytes((kind,)) + message.body.replace(sensor.device_id.encode(), EUI.encode()))
    info = {"deviceInfo": {"devEui": EUI, "applicationId": APPLICATION, "tags": {CODEC_TAG: "cayenne-lpp"}}}
    bodies = [
        (0, {"object": {"a": {"b": [1, None, True, "x", [{"c": -1.5}]]}, "n": 1e308, "t": "é" * 9}}),
        (0, {"object": {"lorawan/x": 1}}),
        (0, {"object": {"": 2, "a/b": 1, "a": {"b": 2}, "\x00": "\x00"}}),
        (0, {"object": {}, "rxInfo": [{"rssi": -1}, {"snr": 1e3, "gwTime": "2023-11-14T22:13:20Z"}]}),
        (0, {"data": base64.b64encode(b"\x01\x67\xff\xff\x02\x88" + bytes(9)).decode(), "fPort": 3}),
        (0, {"data": "!", "joinServerContext": {"sessionKeyId": "a"}, "time": "2024-01-01T00:00:00Z"}),
        (3, {"queueItemId": "a", "acknowledged": True, "fCntDown": 3}),
        (4, {"downlinkId": 1, "gatewayId": "0016c001f153a14c", "txInfo": {}}),
        (5, {"level": "ERROR", "code": "UPLINK_CODEC", "description": "x", "context": {"a": "b"}}),
        (6, {"location": {"latitude": 1.5, "longitude": -2, "altitude": 3e40}}),
        (2, {"margin": -5, "batteryLevel": 98.5, "externalPowerSource": True}),
    ]
    seeds += [
        bytes((BUILT_FROM + kind, 0, 3, kind, 0, 2, 18, 0x80, kind, 19, 0xB0, kind)) for kind in range(20)
    ]
    return [*seeds, *(bytes((kind,)) + json.dumps({**info, **body}).encode() for kind, body in bodies)]


def chirpstack_topic_check() -> Check:
    """Topics of any text, with a good payload."""
    decoder = ChirpstackDecoder("", LIMITS, Codecs({}), CodecChoice())
    payload = json.dumps({"deviceInfo": {"devEui": EUI, "applicationId": APPLICATION}}).encode()

    def check(data: bytes) -> None:
        outcome = decoder.decode(data.decode("utf-8", "replace"), payload, RECEIVED_US)
        if isinstance(outcome, Decoded):
            check_frames(outcome.frames, PROTOCOLS)
        elif isinstance(outcome, Rejected):
            check_rejected(outcome)

    return check


def chirpstack_topic_seeds() -> list[bytes]:
    """Right ones, and near misses."""
    return [
        (PREFIX + "up").encode(),
        (PREFIX.upper() + "up").encode(),
        b"application//device//event/",
        b"application/a/device/0102030405060708/command/down",
    ]


def cayenne_check() -> Check:
    """Cayenne LPP: values, or ValueError, and nothing else."""

    def check(data: bytes) -> None:
        try:
            values = decode_cayenne_lpp(data, 2)
        except ValueError:
            return
        assert len(values) <= len(data)
        for name, value in values.items():
            assert is_metric_name(name)
            for number in value.values() if isinstance(value, dict) else (value,):
                assert isinstance(number, int | float)
                assert math.isfinite(number)

    return check


def cayenne_seeds() -> list[bytes]:
    """One value of each type."""
    kinds = (0, 1, 2, 3, 100, 101, 102, 103, 104, 113, 115, 116, 117, 118, 120, 121, 125, 128, 130, 131)
    seeds = [
        bytes((3, kind)) + b"\x80\x01\x7f\xff\x00\x10" * 2 for kind in (*kinds, 132, 133, 134, 135, 136, 142)
    ]
    return [*seeds, b"", b"\x01\x67\x01\x10\x02\x68\x50\x03\x00\x01", b"\x01"]

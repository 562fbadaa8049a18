from __future__ import annotations

import json

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio.packet import EVENT
from socketio.packet import Packet as LibraryPacket

from plantwire.distribution.messages import TelemetryUpdate, parse_alarm, parse_telemetry, published_ms
from plantwire.distribution.packets import NAMESPACE, Packet, telemetry_packet, with_emitted
from plantwire.schemas.wire import alarm_to_wire
from tests.builders import alarm_event


def _wire(**changes: object) -> bytes:
    return orjson.dumps(alarm_to_wire(alarm_event(**changes)))


@pytest.mark.parametrize("size", [0, 100, 200, 70_000])
def test_an_event_has_the_text_that_the_library_encodes(size: int) -> None:
    data = {"seq": 1, "text": "x" * size, "number": 1.5}
    packet = Packet("telemetry", json.dumps(data, separators=(",", ":")).encode())
    library = LibraryPacket(EVENT, namespace=NAMESPACE, data=["telemetry", data]).encode()
    assert packet.text.decode() == "4" + library
    assert packet.frame.endswith(packet.text)
    assert packet.frame[0] == 0x81


def test_telemetry_passes_values_on_byte_for_byte() -> None:
    update = TelemetryUpdate("press-1", 7, 1700000000000, msgspec.Raw(b'{"t":1.50,"n":"\xc3\xa4"}'))
    assert telemetry_packet(update).text == (
        b'42/telemetry,["telemetry",{"seq":7,"deviceId":"press-1","timestamp":1700000000000,'
        b'"data":{"t":1.50,"n":"\xc3\xa4"}}]'
    )


def test_emitted_is_spliced_into_what_plantwire_writes_and_nothing_else_changes() -> None:
    body = _wire()
    out = with_emitted(parse_alarm(body).header, body, 1700000000123.4567)
    assert out == body[:-2] + b',"emitted":1700000000123.457}}'


@given(st.text(max_size=40), st.permutations(["alarmId", "hops", "message", "severity"]), st.booleans())
def test_emitted_is_added_whatever_the_order_and_the_text(
    message: str, order: list[str], spaced: bool
) -> None:
    alarm = alarm_to_wire(alarm_event(message=message.encode("utf-8", "ignore").decode()))
    alarm = {name: alarm[name] for name in order} | alarm
    alarm = {name: alarm[name] for name in [*(n for n in alarm if n not in order), *order]}
    body = json.dumps(alarm, separators=None if spaced else (",", ":")).encode()
    out = json.loads(with_emitted(parse_alarm(body).header, body, 5.5))
    assert out.pop("hops") == {**alarm.pop("hops"), "emitted": 5.5}
    assert out == alarm


def test_emitted_replaces_one_that_is_there_and_fills_empty_hops() -> None:
    for hops in ({}, {"emitted": 1.0}):
        body = orjson.dumps({**alarm_to_wire(alarm_event()), "hops": hops})
        out = orjson.loads(with_emitted(parse_alarm(body).header, body, 2.0))
        assert out["hops"] == {"emitted": 2.0}


def test_the_published_hop_is_read() -> None:
    assert published_ms(parse_alarm(_wire(published_us=1_500)).header) == 1.5


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b"\xff\xfe",
        orjson.dumps({**alarm_to_wire(alarm_event()), "severity": "DREADFUL"}),
        orjson.dumps({**alarm_to_wire(alarm_event()), "deviceId": "a/b"}),
        orjson.dumps({**alarm_to_wire(alarm_event()), "revision": -1}),
        orjson.dumps({**alarm_to_wire(alarm_event()), "hops": 3}),
    ],
)
def test_a_malformed_alarm_is_named(body: bytes) -> None:
    with pytest.raises(ValueError, match="alarm: "):
        parse_alarm(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'[{"deviceId":"a"}]',
        b'[{"deviceId":"a\\"b","seq":1,"timestamp":1,"metrics":{}}]',
        b'[{"deviceId":"a","seq":0,"timestamp":1,"metrics":{}}]',
        b'[{"deviceId":"a","seq":9007199254740992,"timestamp":1,"metrics":{}}]',
        b'[{"deviceId":"a","seq":1,"timestamp":1,"metrics":[]}]',
        b'[{"deviceId":"a","seq":1,"timestamp":1,"metrics":{"x":}}]',
    ],
)
def test_malformed_telemetry_is_named(body: bytes) -> None:
    with pytest.raises(ValueError, match="telemetry: "):
        parse_telemetry(body)

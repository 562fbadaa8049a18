"""The simulated network server publishes what ChirpStack v4 does."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.schemas.records import AlarmKind
from plantwire.schemas.severity import Severity
from plantwire.simulator.frame import Frame
from plantwire.simulator.lorawan import cayenne
from plantwire.simulator.lorawan.chirpstack import STATUS_EVERY, DeviceRecord, Message
from plantwire.simulator.lorawan.sensors import Sensor, build_sensors
from tests.unit.simulator.simulated_detection import Watch, rules_in

NOW_MS = 1_700_000_000_250
COLD_STORE, ROOM = build_sensors(2, seed=1, period_s=10.0, speed=1.0)


def record_of(sensor: Sensor) -> DeviceRecord:
    numbers = count()
    return DeviceRecord(sensor, lambda: f"id-{next(numbers)}")


def uplinks(sensor: Sensor, number: int) -> Iterator[list[Message]]:
    record = record_of(sensor)
    for index in range(number):
        values = sensor.values_at(10.0 * index, index)
        yield record.messages(Frame(sensor.device_id, sensor.site, index, NOW_MS + 10_000 * index, values))
        record.sent(is_published=True)


def events_of(messages: list[Message]) -> list[str]:
    return [message.topic.rsplit("/", 1)[1] for message in messages]


def first_uplink(sensor: Sensor) -> dict[str, Any]:
    messages = next(uplinks(sensor, 1))
    (body,) = (json.loads(m.body) for m in messages if m.topic.endswith("/up"))
    return dict(body)


def test_topics_name_application_device_and_event() -> None:
    for message in next(uplinks(ROOM, 1)):
        assert re.fullmatch(
            r"application/[0-9a-f-]{36}/device/025057000a120001/event/(join|up|status)", message.topic
        )


def test_one_join_then_uplinks_and_a_status_now_and_then() -> None:
    events = [events_of(messages) for messages in uplinks(ROOM, 2 * STATUS_EVERY + 1)]
    assert events[0] == ["join", "up", "status"]
    assert [index for index, names in enumerate(events) if "status" in names] == [
        0,
        STATUS_EVERY,
        2 * STATUS_EVERY,
    ]
    assert all("join" not in names and "up" in names for names in events[1:])


def test_a_join_that_was_not_published_comes_again_and_the_counter_shows_the_gap() -> None:
    record = record_of(ROOM)
    frame = Frame(ROOM.device_id, ROOM.site, 0, NOW_MS, ROOM.values_at(0.0, 0))
    record.messages(frame)
    record.sent(is_published=False)
    again = record.messages(frame)
    assert events_of(again)[:2] == ["join", "up"]
    assert json.loads(again[1].body)["fCnt"] == 1


def test_an_uplink_of_a_sensor_with_a_codec_has_an_object_and_every_default() -> None:
    body = first_uplink(ROOM)
    assert body["fCnt"] == 0
    assert body["confirmed"] is False
    assert body["object"] == ROOM.values_at(0.0, 0)
    assert body["deviceInfo"]["devEui"] == ROOM.device_id
    assert body["deviceInfo"]["deviceClassEnabled"] == "CLASS_A"
    assert body["deviceInfo"]["tags"] == {"site": "utilities"}
    assert datetime.fromisoformat(body["time"]).timestamp() == NOW_MS / 1000
    assert body["txInfo"]["modulation"]["lora"]["spreadingFactor"] == 12 - body["dr"]
    for reception in body["rxInfo"]:
        assert re.fullmatch("[0-9a-f]{16}", reception["gatewayId"])
        assert -130 < reception["rssi"] < -40
        assert "rfChain" not in reception  # a default
        assert 0 <= reception["uplinkId"] < 2**32


def test_an_uplink_of_a_sensor_without_a_codec_has_cayenne_lpp_and_no_defaults() -> None:
    body = first_uplink(COLD_STORE)
    assert body.keys().isdisjoint({"object", "fCnt", "confirmed"})
    assert "deviceClassEnabled" not in body["deviceInfo"]
    assert body["deviceInfo"]["tags"]["plantwire_codec"] == "cayenne-lpp"
    values = COLD_STORE.values_at(0.0, 0)
    data = base64.b64decode(body["data"])
    channel, kind, tenths = struct.unpack(">BBh", data[:4])
    assert (channel, kind, tenths / 10) == (1, 103, values["temperature"])
    assert data[4:6] == b"\x02\x68"
    assert data[6] / 2 == pytest.approx(float(values["humidity"]), abs=0.25)
    assert data[7:] == b"\x03\x00\x00"


def test_every_event_has_an_id_of_its_own_and_status_tells_of_the_battery() -> None:
    bodies = [json.loads(m.body) for messages in uplinks(ROOM, 3) for m in messages]
    ids = [body["deduplicationId"] for body in bodies]
    assert len(set(ids)) == len(ids)
    (status,) = (body for body in bodies if "margin" in body)
    assert 80 < status["batteryLevel"] <= 100
    assert (status["externalPowerSource"], status["batteryLevelUnavailable"]) == (False, False)
    assert -32 <= status["margin"] <= 31


@given(st.floats(-5000, 5000), st.floats(-10, 300))
def test_cayenne_values_are_cut_to_the_formats_range(temperature: float, humidity: float) -> None:
    payload = cayenne.encode({"temperature": temperature, "humidity": humidity})
    assert len(payload) == 7
    assert struct.unpack(">h", payload[2:4])[0] / 10 == pytest.approx(
        min(3276.7, max(-3276.8, temperature)), abs=0.051
    )
    assert payload[6] / 2 == pytest.approx(min(127.5, max(0.0, humidity)), abs=0.251)


def test_ids_are_device_euis_and_differ() -> None:
    sensors = build_sensors(300, seed=1, period_s=10.0, speed=1.0)
    assert len({sensor.device_id for sensor in sensors}) == 300
    assert all(re.fullmatch("[0-9a-f]{16}", sensor.device_id) for sensor in sensors)


def test_the_open_door_passes_high_then_critical_and_clears_and_nothing_else_alarms() -> None:
    rules = rules_in("plant.yaml")
    # By the names that the gateway gives to what it decodes.
    names = {"temperature": "temperature_1", "humidity": "humidity_2", "door": "digital_input_3"}
    for index, sensor in enumerate(build_sensors(4, seed=1, period_s=10.0, speed=1.0)):
        watch = Watch(sensor.device_id, rules)
        is_cold_store = index % 2 == 0
        events = [
            event
            for t_s in range(0, 900, 10)
            for event in watch.see(
                t_s,
                {
                    names[name] if is_cold_store else name: float(value)
                    for name, value in sensor.values_at(t_s, 0).items()
                },
            )
        ]
        if index:
            assert events == []
        else:
            assert [(event.kind, Severity(event.severity).name) for event in events] == [
                (AlarmKind.RAISED, "HIGH"),
                (AlarmKind.SEVERITY_CHANGED, "CRITICAL"),
                (AlarmKind.SEVERITY_CHANGED, "HIGH"),
                (AlarmKind.CLEARED, "HIGH"),
            ]

from __future__ import annotations

import msgspec
import orjson
import pytest

from plantwire.distribution.messages import Alarm, MalformedError, TelemetryUpdate, parse_alarm
from plantwire.distribution.picture import DeviceState, LivePicture, Snapshot
from plantwire.platform.tokens import Claims, Role
from plantwire.schemas.records import AlarmKind
from plantwire.schemas.wire import alarm_to_wire
from tests.builders import alarm_event

EVERYTHING = Claims("anna", Role.VIEWER, True, frozenset(), 0)
PRESS_1 = Claims("bert", Role.VIEWER, False, frozenset({"press-1", "absent"}), 0)


def alarm(**changes: object) -> Alarm:
    return parse_alarm(orjson.dumps(alarm_to_wire(alarm_event(**changes))))


def update(device_id: str, seq: int, **values: object) -> TelemetryUpdate:
    return TelemetryUpdate(device_id, seq, seq * 1000, msgspec.Raw(orjson.dumps(values)))


def loaded(*alarms: Alarm, epoch: str = "e1", complete: bool = True, **devices: DeviceState) -> Snapshot:
    return Snapshot(epoch, complete, list(alarms), {k.replace("_", "-"): v for k, v in devices.items()})


def test_an_alarm_event_is_news_once_and_revisions_only_go_up() -> None:
    picture = LivePicture()
    assert picture.apply_alarm(alarm(revision=1))
    assert not picture.apply_alarm(alarm(revision=1))
    assert picture.apply_alarm(alarm(revision=3, kind=AlarmKind.CLEARED))
    assert not picture.apply_alarm(alarm(revision=2))
    assert picture.alarm_count == 0
    assert picture.apply_alarm(alarm(revision=4))
    assert picture.alarm_count == 1


def test_what_is_remembered_of_cleared_alarms_is_bounded_and_active_ones_are_never_forgotten() -> None:
    picture = LivePicture(revisions_max=10)
    assert picture.apply_alarm(alarm(alarm_id="active", revision=5))
    for number in range(100):
        picture.apply_alarm(alarm(alarm_id=f"a{number}", kind=AlarmKind.CLEARED))
    assert len(picture._revisions) == 10
    assert not picture.apply_alarm(alarm(alarm_id="active", revision=5))


def test_telemetry_merges_into_the_latest_values() -> None:
    picture = LivePicture()
    picture.apply_telemetry(update("press-1", 1, a=1, b=2))
    picture.apply_telemetry(update("press-1", 2, b=3))
    assert picture.latest(EVERYTHING) == [
        {"deviceId": "press-1", "seq": 2, "timestamp": 2000, "data": {"a": 1, "b": 3}}
    ]
    assert picture.is_behind(update("press-1", 2))
    assert not picture.is_behind(update("press-1", 3))


def test_values_that_are_no_object_change_nothing() -> None:
    picture = LivePicture()
    with pytest.raises(MalformedError):
        picture.apply_telemetry(TelemetryUpdate("press-1", 1, 1, msgspec.Raw(b"{broken")))
    assert picture.device_count == 0


def test_a_token_sees_its_own_devices_only() -> None:
    picture = LivePicture()
    for device_id in ("press-1", "press-2"):
        picture.apply_telemetry(update(device_id, 1, a=1))
        picture.apply_alarm(alarm(alarm_id=device_id, device_id=device_id))
    state = orjson.loads(picture.initial_state(PRESS_1, 5, True))
    assert [device["deviceId"] for device in state["devices"]] == ["press-1"]
    assert [a["deviceId"] for a in state["alarms"]] == ["press-1"]
    assert (state["epoch"], state["serverTime"], state["live"]) == (None, 5, True)
    assert len(orjson.loads(picture.initial_state(EVERYTHING, 5, True))["devices"]) == 2


def test_alarms_are_sorted_most_severe_first_then_newest() -> None:
    picture = LivePicture()
    for alarm_id, severity, time_ms in [("a", 1, 9), ("b", 0, 1), ("c", 0, 2), ("d", 4, 10)]:
        picture.apply_alarm(alarm(alarm_id=alarm_id, severity=severity, event_time_ms=time_ms))
    assert [a.header.alarm_id for a in picture.active_alarms(EVERYTHING)] == ["c", "b", "a", "d"]


def test_a_snapshot_tells_what_was_raised_and_cleared_meanwhile() -> None:
    picture = LivePicture()
    picture.apply_snapshot(loaded(alarm(alarm_id="stays"), alarm(alarm_id="goes", revision=2)))
    picture.begin_snapshot()
    difference = picture.apply_snapshot(loaded(alarm(alarm_id="stays"), alarm(alarm_id="comes")))
    told = {a.header.alarm_id: a for a in difference.alarms}
    assert told.keys() == {"comes", "goes"}
    assert told["goes"].header.kind == AlarmKind.CLEARED
    body = orjson.loads(told["goes"].body)
    assert (body["kind"], body["revision"], body["state"]) == ("CLEARED", 3, "CLEARED_UNACKNOWLEDGED")
    assert not picture.apply_alarm(alarm(alarm_id="goes", revision=3, kind=AlarmKind.CLEARED))
    assert not difference.state_changed


def test_an_alarm_raised_while_the_snapshot_is_read_is_not_taken_for_cleared() -> None:
    picture = LivePicture()
    picture.apply_snapshot(loaded())
    picture.begin_snapshot()
    picture.apply_alarm(alarm(alarm_id="new"))
    assert picture.apply_snapshot(loaded()).alarms == []
    assert picture.knows_active("new")


def test_a_redis_without_its_alarms_clears_nothing() -> None:
    picture = LivePicture()
    picture.apply_snapshot(loaded(alarm(alarm_id="a")))
    difference = picture.apply_snapshot(loaded(epoch="e2", complete=False))
    assert difference.alarms == []
    assert difference.state_changed
    assert picture.knows_active("a")
    assert [a.header.kind for a in picture.apply_snapshot(loaded(epoch="e2")).alarms] == ["CLEARED"]


@pytest.mark.parametrize(("complete", "live"), [(False, True), (True, False), (True, True)])
def test_the_state_says_whether_its_alarms_are_all_that_are_active(complete: bool, live: bool) -> None:
    picture = LivePicture()
    picture.apply_snapshot(loaded(complete=complete))
    state = orjson.loads(picture.initial_state(EVERYTHING, 5, live))
    assert state["alarmsComplete"] is (complete and live)


def test_telemetry_that_was_missed_makes_the_state_changed() -> None:
    picture = LivePicture()
    assert not picture.apply_snapshot(loaded(press_1=DeviceState(1, 1, {"a": 1}, {}))).state_changed
    assert not picture.apply_snapshot(loaded(press_1=DeviceState(1, 1, {"a": 1}, {}))).state_changed
    assert picture.apply_snapshot(loaded(press_1=DeviceState(2, 1, {"a": 1}, {}))).state_changed


def test_qualities_that_are_not_good_are_in_the_state_until_a_good_value_comes() -> None:
    picture = LivePicture()
    picture.apply_snapshot(loaded(press_1=DeviceState(1, 1, {"a": 1, "b": 2}, {"a": 500})))

    def quality() -> object:
        [device] = picture.latest(EVERYTHING)
        return device.get("quality")

    def apply(seq: int, metrics: bytes, quality: bytes = b"{}") -> None:
        picture.apply_telemetry(
            TelemetryUpdate("press-1", seq, seq, msgspec.Raw(metrics), msgspec.Raw(quality))
        )

    assert quality() == {"a": 500}
    apply(2, b'{"b":3}', b'{"b":0}')
    assert quality() == {"a": 500, "b": 0}
    apply(3, b"{}", b'{"a":0}')
    assert quality() == {"a": 0, "b": 0}
    apply(4, b'{"a":1,"b":3}')
    assert quality() is None

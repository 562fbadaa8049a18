from __future__ import annotations

import orjson
import pytest

from plantwire.distribution.fanout import Fanout, Recipient
from plantwire.distribution.hub import Hub
from plantwire.distribution.messages import parse_alarm
from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.packets import Packet
from plantwire.distribution.picture import DeviceState, LivePicture, Snapshot
from plantwire.platform.tokens import Claims, Role
from plantwire.schemas.records import AlarmKind
from plantwire.schemas.severity import Severity
from plantwire.schemas.wire import alarm_to_wire
from tests.builders import alarm_event

EVERYTHING = Claims("anna", Role.VIEWER, True, frozenset(), 0)


class World:
    """A hub with one client that sees everything and is in already."""

    def __init__(self) -> None:
        self.metrics = DistributionMetrics()
        self.picture = LivePicture()
        self.fanout = Fanout(self.metrics, self._state, 0.0, 1000)
        self.hub = Hub(self.picture, self.fanout, self.metrics, lambda: 1_700_000_000_000.25)
        self.events: list[tuple[str, dict[str, object]]] = []

    def _state(self, claims: Claims) -> bytes:
        return self.picture.initial_state(claims, 0, self.hub.live)

    def write_state(self, packet: Packet) -> bool:
        return self.write([packet], packet.frame)

    def write(self, packets: list[Packet], frames: bytes) -> bool:
        for packet in packets:
            event, body = orjson.loads(packet.text[packet.text.index(b"[") :])
            self.events.append((event, body))
        return True

    async def begin(self, snapshot: Snapshot | None = None) -> None:
        self.snapshot(snapshot or Snapshot("e1", True, [], {}))
        self.fanout.join(Recipient("a", EVERYTHING, self))
        await self.fanout.flush()
        self.events.clear()

    def snapshot(self, snapshot: Snapshot) -> None:
        self.hub.begin_snapshot()
        self.hub.finish_snapshot(snapshot)

    def told(self) -> list[str]:
        return [event for event, _ in self.events]

    def dropped(self, reason: str) -> float:
        sample = {"reason": reason}
        return self.metrics.registry.get_sample_value("plantwire_distribution_dropped_total", sample) or 0.0


@pytest.fixture
async def world() -> World:
    world = World()
    await world.begin()
    return world


def wire(**changes: object) -> bytes:
    return orjson.dumps(alarm_to_wire(alarm_event(**changes)))


def telemetry(seq: int, device_id: str = "press-1") -> bytes:
    return orjson.dumps([{"deviceId": device_id, "seq": seq, "timestamp": seq, "metrics": {"n": seq}}])


async def test_an_alarm_on_two_channels_is_told_once_with_its_emission_time(world: World) -> None:
    world.hub.receive_alarm(wire())
    world.hub.receive_alarm(wire())
    ((event, body),) = world.events
    assert event == "alarm"
    assert body["hops"]["emitted"] == 1_700_000_000_000.25  # type: ignore[index]
    assert world.dropped("alarm-known") == 1


async def test_each_kind_has_its_event(world: World) -> None:
    world.hub.receive_alarm(wire(severity=Severity.HIGH.value))
    world.hub.receive_alarm(wire(revision=2, kind=AlarmKind.SEVERITY_CHANGED))
    world.hub.receive_alarm(wire(revision=3, kind=AlarmKind.CLEARED))
    world.hub.receive_alarm(wire(revision=4, count=2))
    assert world.told() == ["alarm", "alarm-updated", "alarm-cleared", "alarm"]


async def test_a_change_of_an_alarm_that_was_never_told_is_told_as_an_alarm(world: World) -> None:
    world.hub.receive_alarm(wire(revision=2, kind=AlarmKind.SEVERITY_CHANGED))
    assert world.told() == ["alarm"]


async def test_what_a_snapshot_shows_is_told_by_kind(world: World) -> None:
    world.hub.receive_alarm(wire(alarm_id="gone"))
    world.hub.receive_alarm(wire(alarm_id="changed"))
    world.events.clear()
    changed = parse_alarm(wire(alarm_id="changed", revision=2, kind=AlarmKind.SEVERITY_CHANGED))
    world.hub.begin_snapshot()
    world.hub.finish_snapshot(Snapshot("e1", True, [changed, parse_alarm(wire(alarm_id="new"))], {}))
    assert [(event, body["alarmId"]) for event, body in world.events] == [
        ("alarm-updated", "changed"),
        ("alarm", "new"),
        ("alarm-cleared", "gone"),
    ]


async def test_a_sequence_that_goes_back_asks_for_a_snapshot_and_loses_nothing(world: World) -> None:
    assert world.hub.receive_telemetry(telemetry(7))
    await world.fanout.flush()
    assert not world.hub.receive_telemetry(telemetry(1))
    assert world.hub.receive_telemetry(telemetry(2))
    world.hub.begin_snapshot()
    world.hub.receive_telemetry(telemetry(3))
    world.hub.finish_snapshot(Snapshot("e2", True, [], {"press-1": DeviceState(2, 2, {"n": 2}, {})}))
    await world.fanout.flush()
    assert world.told() == ["telemetry", "initial-state"]
    state = world.events[-1][1]
    assert state["epoch"] == "e2"
    assert [d["seq"] for d in state["devices"]] == [3]  # type: ignore[attr-defined]
    world.hub.receive_telemetry(telemetry(4))
    await world.fanout.flush()
    assert (world.events[-1][0], world.events[-1][1]["seq"]) == ("telemetry", 4)


async def test_telemetry_of_the_time_before_the_snapshot_is_not_told_again(world: World) -> None:
    world.hub.begin_snapshot()
    world.hub.receive_telemetry(telemetry(1))
    world.hub.receive_telemetry(telemetry(2))
    world.hub.finish_snapshot(Snapshot("e1", True, [], {"press-1": DeviceState(1, 1, {"n": 1}, {})}))
    await world.fanout.flush()
    assert world.dropped("telemetry-in-snapshot") == 1
    assert world.told() == ["initial-state"]


async def test_malformed_input_is_counted_and_disturbs_nothing(world: World) -> None:
    world.hub.receive_alarm(b"\x00")
    world.hub.receive_telemetry(b"[1]")
    world.hub.receive_telemetry(b'[{"deviceId":"a","seq":1,"timestamp":1,"metrics":{"n":1e999}}]')
    world.hub.receive_telemetry(telemetry(1))
    await world.fanout.flush()
    assert world.dropped("malformed-source") == 3
    assert world.told() == ["telemetry"]


async def test_clients_are_told_when_the_source_is_lost_and_back(world: World) -> None:
    for live in (True, True, False):
        world.hub.set_live(live)
    assert world.events == [
        ("source-status", {"live": True, "since": 1_700_000_000_000}),
        ("source-status", {"live": False, "since": 1_700_000_000_000}),
    ]


async def test_a_start_before_all_alarms_are_known_tells_so_and_gives_the_state_anew_once_they_are() -> None:
    world = World()
    world.hub.set_live(True)
    await world.begin(Snapshot("e1", False, [], {}))
    assert not world.hub.alarms_complete
    assert orjson.loads(world.picture.initial_state(EVERYTHING, 0, world.hub.live))["alarmsComplete"] is False
    world.hub.receive_telemetry(telemetry(1))
    world.hub.receive_alarm(wire(alarm_id="raised-meanwhile"))
    await world.fanout.flush()
    assert world.told() == ["alarm", "telemetry"]
    world.events.clear()
    known = [parse_alarm(wire(alarm_id=alarm_id)) for alarm_id in ("held", "raised-meanwhile")]
    world.snapshot(Snapshot("e1", True, known, {"press-1": DeviceState(1, 1, {"n": 1}, {})}))
    await world.fanout.flush()
    assert world.told() == ["alarm", "initial-state"]
    state = world.events[-1][1]
    assert state["alarmsComplete"] is True
    assert {a["alarmId"] for a in state["alarms"]} == {"held", "raised-meanwhile"}  # type: ignore[attr-defined]
    world.events.clear()
    world.snapshot(Snapshot("e1", True, known, {"press-1": DeviceState(1, 1, {"n": 1}, {})}))
    await world.fanout.flush()
    assert world.told() == []


async def test_a_client_of_a_picture_that_was_cut_off_gets_it_anew_when_redis_is_back(world: World) -> None:
    world.hub.set_live(True)
    await world.fanout.flush()
    world.hub.set_live(False)
    assert not world.hub.alarms_complete
    world.events.clear()
    world.snapshot(Snapshot("e1", True, [], {}))
    world.hub.set_live(True)
    await world.fanout.flush()
    assert world.told() == ["source-status", "initial-state"]
    assert world.events[-1][1]["alarmsComplete"] is True

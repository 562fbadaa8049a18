from __future__ import annotations

import asyncio
import contextlib

import orjson

from plantwire.distribution.fanout import ADMISSIONS_PER_FLUSH, Fanout, Recipient
from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.packets import Packet
from plantwire.platform.tokens import Claims, Role


class Screen:
    """A client's side of the channel: what was written, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []
        self.frames = b""

    def write_state(self, packet: Packet) -> bool:
        return self.write([packet], packet.frame)

    def write(self, packets: list[Packet], frames: bytes) -> bool:
        self.frames += frames
        for packet in packets:
            event, body = orjson.loads(packet.text[packet.text.index(b"[") :])
            self.events.append((event, body))
        return True


class World:
    """A fan-out over a state that is the list of what was published so far."""

    def __init__(self, pending_max: int = 1000, has_state: bool = True) -> None:
        self.published: list[int] = []
        self.has_state = has_state
        self.metrics = DistributionMetrics()
        self.fanout = Fanout(self.metrics, self._state, 0.0, pending_max)

    def _state(self, claims: Claims) -> bytes | None:
        return orjson.dumps(self.published) if self.has_state else None

    def publish(self, device_id: str, number: int) -> None:
        self.published.append(number)
        self.fanout.queue_telemetry(device_id, Packet("telemetry", orjson.dumps(number)))

    def join(self, sid: str, *devices: str) -> Screen:
        screen = Screen()
        claims = Claims(sid, Role.VIEWER, not devices, frozenset(devices), 0)
        self.fanout.join(Recipient(sid, claims, screen))
        return screen

    def dropped(self, reason: str) -> float:
        return (
            self.metrics.registry.get_sample_value("plantwire_distribution_dropped_total", {"reason": reason})
            or 0.0
        )


async def test_only_who_may_see_the_device_receives() -> None:
    world = World()
    everything, first, other = world.join("a"), world.join("b", "press-1"), world.join("c", "press-2")
    await world.fanout.flush()
    world.publish("press-1", 1)
    await world.fanout.flush()
    assert world.fanout.send_to_device("press-1", Packet("alarm", b"7")) == 2
    assert everything.events[1:] == first.events[1:] == [("telemetry", 1), ("alarm", 7)]
    assert [event for event, _ in other.events] == ["initial-state"]


async def test_a_message_is_in_the_state_or_comes_after_it_and_not_both() -> None:
    world = World()
    screens = []
    for number in range(50):
        world.publish("press-1", number)
        if number % 5 == 0:
            screens.append(world.join(f"all{number}"))
            screens.append(world.join(f"one{number}", "press-1"))
        if number % 7 == 0:
            await world.fanout.flush()
    await world.fanout.flush()
    for screen in screens:
        (event, state), *later = screen.events
        assert event == "initial-state"
        assert [*state, *(number for _, number in later)] == list(range(50))


async def test_a_renewed_state_is_not_followed_by_what_is_in_it() -> None:
    world = World()
    screen = world.join("a")
    await world.fanout.flush()
    world.publish("press-1", 1)
    world.fanout.renew_all()
    await world.fanout.flush()
    assert screen.events == [("initial-state", []), ("initial-state", [1])]


async def test_an_alarm_does_not_wait_for_telemetry() -> None:
    world = World()
    screen = world.join("a")
    await world.fanout.flush()
    world.publish("press-1", 1)
    world.fanout.send_to_device("press-1", Packet("alarm", b"7"))
    assert screen.events[1:] == [("alarm", 7)]


async def test_frames_are_those_of_the_packets() -> None:
    world = World()
    screen = world.join("a", "press-1")
    await world.fanout.flush()
    screen.frames = b""
    for number in (1, 2):
        world.publish("press-1", number)
    await world.fanout.flush()
    assert screen.frames == b"".join(Packet("telemetry", b"%d" % n).frame for n in (1, 2))


async def test_the_oldest_telemetry_is_dropped_and_counted_when_too_much_waits() -> None:
    world = World(pending_max=3)
    screen = world.join("a")
    await world.fanout.flush()
    for number in range(5):
        world.publish("press-1", number)
    await world.fanout.flush()
    assert screen.events[1:] == [("telemetry", 2), ("telemetry", 3), ("telemetry", 4)]
    assert world.dropped("telemetry-backlog") == 2


async def test_clients_wait_for_the_first_state() -> None:
    world = World(has_state=False)
    screen = world.join("a")
    await world.fanout.flush()
    assert screen.events == []
    world.has_state = True
    world.fanout.admit_waiting()
    await world.fanout.flush()
    assert [event for event, _ in screen.events] == ["initial-state"]


async def test_who_left_receives_nothing_and_leaves_no_room_behind() -> None:
    world = World()
    screens = [world.join("a", "press-1"), world.join("b")]
    await world.fanout.flush()
    waiting = world.join("c")
    for sid in ("a", "b", "c", "never-there"):
        world.fanout.leave(sid)
    world.publish("press-1", 1)
    await world.fanout.flush()
    assert world.fanout.send_to_device("press-1", Packet("alarm", b"7")) == 0
    assert [len(screen.events) for screen in (*screens, waiting)] == [1, 1, 0]
    assert world.fanout.size == 0
    assert not world.fanout._rooms


async def test_a_crowd_is_let_in_over_several_flushes() -> None:
    world = World()
    screens = [world.join(f"c{n}") for n in range(ADMISSIONS_PER_FLUSH * 2 + 1)]
    task = asyncio.create_task(world.fanout.run())
    async with asyncio.timeout(5):
        while not all(screen.events for screen in screens):  # noqa: ASYNC110
            await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert all(len(screen.events) == 1 for screen in screens)

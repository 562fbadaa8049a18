"""Timers of the light engine: in their order, each once, and no memory of what was dropped."""

from __future__ import annotations

from plantwire.light.timers import Timers


def test_timers_come_in_their_order_each_once() -> None:
    timers = Timers()
    for device_id, at_ms in (("b", 20), ("a", 10), ("b", 20), ("c", 30)):
        timers.set(device_id, at_ms)
    assert timers.next_ms() == 10
    assert list(timers.due(20)) == [("a", 10), ("b", 20)]
    assert list(timers.due(20)) == []
    assert (timers.next_ms(), len(timers)) == (30, 1)


def test_what_is_dropped_does_not_come_and_what_is_set_meanwhile_does() -> None:
    timers = Timers()
    timers.set("a", 10)
    timers.set("a", 20)
    timers.drop("a", 10)
    timers.drop("unknown", 10)
    seen = []
    for timer in timers.due(20):
        seen.append(timer)
        if len(seen) < 3:
            timers.set("again", 15)
    assert seen == [("a", 20), ("again", 15), ("again", 15)]


def test_dropped_timers_take_no_memory() -> None:
    timers = Timers()
    for n in range(100_000):
        timers.set("a", n)
        timers.drop("a", n)
    timers.set("a", 7)
    assert len(timers._heap) < 2_000
    assert list(timers.due(100_000)) == [("a", 7)]

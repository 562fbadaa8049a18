"""The independent count of `bench.outage`."""

from __future__ import annotations

from bench.outage_arrivals import Arrival, Phase, account, live_ms


def arrival(sequence: int, *, historical: bool = False, due_ms: int = 0, at_ms: float = 0.0) -> Arrival:
    return Arrival("press", sequence, historical, due_ms, at_ms)


def test_everything_once_and_in_order() -> None:
    counted = account([arrival(0), arrival(1), arrival(2)], {"press": 3})
    assert (counted.missing, counted.out_of_order, counted.distinct, counted.records) == (0, 0, 3, 3)


def test_what_is_missing_is_counted_also_of_a_device_that_never_arrived() -> None:
    counted = account([arrival(0), arrival(2)], {"press": 3, "pump": 2})
    assert counted.missing == 3


def test_a_repeat_is_no_disorder_but_an_overtaken_frame_is() -> None:
    again = [arrival(0), arrival(1), arrival(0), arrival(2)]
    assert account(again, {"press": 3}).out_of_order == 0
    assert account([arrival(1), arrival(0)], {"press": 2}).out_of_order == 1


def test_live_and_historical_frames_have_each_their_order() -> None:
    mixed = [arrival(2), arrival(0, historical=True), arrival(3), arrival(1, historical=True)]
    counted = account(mixed, {"press": 4})
    assert (counted.out_of_order, counted.live, counted.historical) == (0, 2, 2)


def test_latency_is_of_live_frames_that_were_due_in_the_phase() -> None:
    arrivals = [
        arrival(0, due_ms=5, at_ms=50.0),
        arrival(1, due_ms=10, at_ms=12.0),
        arrival(2, due_ms=15, at_ms=99.0, historical=True),
        arrival(3, due_ms=20, at_ms=30.0),
    ]
    spread = live_ms(arrivals, Phase("calm", 10, 20))
    assert spread is not None
    assert (spread.count, spread.max) == (1, 2.0)

"""Live windows frame by frame: what ends when, what is left out and why, whatever the clocks say."""

from __future__ import annotations

import random
from collections import Counter
from math import isclose
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantwire.domain import live_windows
from plantwire.domain.admission import MAX_AHEAD_MS
from plantwire.domain.live_windows import IDLE_MS, Ended, WindowMaker, pack_open, unpack_open
from plantwire.schemas.records import QUALITY_BAD, QUALITY_GOOD
from plantwire.schemas.windows import GRACE_MS, WindowValues

BASE_MS = 1_795_000_020_000
"""A whole minute."""
SECOND_MS, MINUTE_MS, HOUR_MS = 1000, 60_000, 3_600_000


class Counts(Counter[str]):
    """Counters by name."""

    def __call__(self, name: str) -> Any:
        counts = self

        class One:
            def inc(self, number: int = 1) -> None:
                counts[name] += number

        return One()


class Plant:
    """A window maker with its partitions, and the time."""

    def __init__(self, partitions: int = 1) -> None:
        self.counts = Counts()
        self.maker = WindowMaker(self.counts)
        self.partitions = partitions
        self.now_ms = BASE_MS
        self.ended: list[Ended] = []
        for partition in range(partitions):
            self.maker.add_partition(partition)
            self.maker.read_up(partition)

    def send(
        self,
        device_id: str = "a",
        at_ms: int | None = None,
        *,
        partition: int = 0,
        received_ms: int | None = None,
        key: str | None = None,
        historical: bool = False,
        metrics: list[dict[str, Any]] | None = None,
        read_up: bool = True,
        **values: float | None,
    ) -> None:
        at_ms = self.now_ms if at_ms is None else at_ms
        received_ms = self.now_ms if received_ms is None else received_ms
        found = [metric(name, number) for name, number in values.items()] if metrics is None else metrics
        frame = {
            "device_id": device_id,
            "event_time_ms": at_ms,
            "received_time_ms": received_ms,
            "gateway_out_us": received_ms * 1000,
            "historical": historical,
            "metrics": found,
        }
        self.maker.take(frame, device_id if key is None else key, partition, self.now_ms)
        if read_up:
            self.maker.read_up(partition)
        self.advance(0)

    def advance(self, ms: int) -> None:
        """Let time pass, as an engine does: it looks several times a second."""
        end_ms = self.now_ms + ms
        while True:
            self.now_ms = min(self.now_ms + 100, end_ms)
            self.ended += self.maker.advance(self.now_ms)
            if self.now_ms == end_ms:
                return

    def told(self, window: str = "1s") -> dict[tuple[str, str, int], WindowValues]:
        """(device, metric, start after BASE_MS) → values; a window that is told twice fails."""
        found: dict[tuple[str, str, int], WindowValues] = {}
        for ended in self.ended:
            for device_id, metrics in ended.devices.items() if ended.window.name == window else ():
                for name, values in metrics.items():
                    key = device_id, name, ended.end_ms - ended.window.size_ms - BASE_MS
                    assert key not in found
                    found[key] = values
        return found


def metric(
    name: str, number: float | None, quality: int = QUALITY_GOOD, time_ms: int | None = None
) -> dict[str, Any]:
    return {"name": name, "number": number, "quality": quality, "event_time_ms": time_ms}


def test_a_window_has_the_numbers_of_its_second_and_ends_with_the_grace() -> None:
    plant = Plant()
    for at_ms, number in ((0, 5.0), (999, 3.0), (400, 9.0)):
        plant.send(at_ms=BASE_MS + at_ms, x=number)
    plant.now_ms = BASE_MS + SECOND_MS + GRACE_MS - 2
    plant.send(x=100.0)
    assert plant.told() == {}
    plant.advance(1)
    plant.send(y=1.0)
    assert plant.told() == {("a", "x", 0): WindowValues(17.0, 3.0, 9.0, 3)}
    assert plant.counts["samples_live"] == 5


def test_what_is_left_out_is_counted_with_its_reason() -> None:
    plant = Plant()
    plant.send(key="b", x=1.0)
    plant.send(x=None)
    plant.send(historical=True, x=1.0)
    plant.send(metrics=[metric("x", 1.0, QUALITY_BAD), metric("x", float("nan")), metric("x", float("inf"))])
    plant.send(at_ms=plant.now_ms + MAX_AHEAD_MS + 1, x=1.0)
    plant.advance(5000)
    plant.send(x=1.0)
    plant.send(at_ms=plant.now_ms - 4000, x=1.0)
    assert plant.counts == {
        "samples_of_another_device": 1,
        "samples_without_number": 1,
        "samples_historical": 1,
        "samples_not_good": 1,
        "samples_not_finite": 2,
        "samples_ahead": 1,
        "samples_live": 1,
        "samples_late": 1,
    }


def test_a_metrics_own_time_counts_before_its_frames() -> None:
    plant = Plant()
    plant.send(at_ms=BASE_MS + 1500, metrics=[metric("x", 1.0), metric("y", 2.0, time_ms=BASE_MS + 400)])
    plant.advance(5000)
    plant.send(z=0.0)
    assert plant.told() == {
        ("a", "y", 0): WindowValues(2.0, 2.0, 2.0, 1),
        ("a", "x", 1000): WindowValues(1.0, 1.0, 1.0, 1),
    }


def test_clocks_that_are_wrong_move_nobody() -> None:
    plant = Plant()
    plant.send("ahead", plant.now_ms + MINUTE_MS, x=1.0)
    plant.send("both", plant.now_ms + HOUR_MS, received_ms=plant.now_ms + HOUR_MS, x=1.0)
    plant.send("behind", plant.now_ms - HOUR_MS, x=1.0)
    plant.send("a", x=1.0)
    assert plant.counts["samples_late"] == 1
    plant.advance(SECOND_MS + GRACE_MS)
    # One that is behind holds nobody back for more than it may.
    plant.send("behind", plant.now_ms - HOUR_MS, x=1.0)
    plant.advance(300)
    plant.send("behind", plant.now_ms - HOUR_MS, x=1.0)
    assert ("a", "x", 0) in plant.told()


def test_a_partition_that_has_more_to_read_is_waited_for() -> None:
    plant = Plant(partitions=2)
    plant.send("a", partition=0, x=1.0)
    plant.send("b", partition=1, x=1.0, read_up=False)
    plant.advance(10 * IDLE_MS)
    plant.send("a", partition=0, x=2.0)
    assert plant.told() == {}
    # What waited there was in time.
    plant.send("b", BASE_MS + 1, received_ms=BASE_MS + 1, partition=1, x=2.0)
    plant.advance(IDLE_MS)
    plant.send("a", partition=0, x=3.0)
    assert plant.told()["b", "x", 0] == WindowValues(3.0, 1.0, 2.0, 2)
    assert plant.counts["samples_late"] == 0


def test_a_backlog_of_live_frames_goes_into_its_windows() -> None:
    """As after an outage: an hour old, partition after partition."""
    plant = Plant(partitions=2)
    maker = WindowMaker(plant.counts)
    plant.maker = maker
    for partition in range(2):
        maker.add_partition(partition)
    plant.now_ms += HOUR_MS
    for partition, device_id in enumerate("ab"):
        for n in range(30):
            at_ms = BASE_MS + 100 * n
            plant.send(device_id, at_ms, received_ms=at_ms, partition=partition, read_up=False, x=1.0)
        maker.read_up(partition)
    plant.advance(IDLE_MS)
    plant.send("a", x=1.0)
    assert plant.counts["samples_late"] == 0
    assert {key: values.samples for key, values in plant.told().items()} == {
        (device_id, "x", start_ms): 10 for device_id in "ab" for start_ms in (0, 1000, 2000)
    }


def test_the_last_window_of_a_plant_that_falls_silent_is_told_by_the_clock() -> None:
    plant = Plant(partitions=2)
    plant.send("a", x=1.0)
    plant.send("b", partition=1, x=1.0)
    plant.advance(SECOND_MS + IDLE_MS)
    assert plant.told() == {}
    plant.advance(GRACE_MS)
    assert plant.told().keys() == {("a", "x", 0), ("b", "x", 0)}


def test_a_process_that_stood_still_takes_nobody_for_silent() -> None:
    plant = Plant(partitions=2)
    plant.send("a", x=1.0)
    plant.send("b", partition=1, x=1.0)
    plant.now_ms += MINUTE_MS
    # What came meanwhile is read a partition after the other.
    plant.send("a", x=2.0)
    plant.send("b", BASE_MS + 10, received_ms=BASE_MS + 10, partition=1, x=2.0)
    assert plant.counts["samples_late"] == 0


def test_five_minutes_every_minute_of_the_same_samples() -> None:
    plant = Plant()
    for n in range(8 * 60):
        plant.send(x=float(n), **({"rare": 1.0} if n == 90 else {}))
        plant.advance(SECOND_MS)
    told = plant.told("5m")
    # A second's windows are told with the frames after it, so the last minute is not over yet.
    assert sorted(start_ms for _, name, start_ms in told if name == "x") == [
        n * MINUTE_MS for n in range(-4, 3)
    ]
    first, full = told["a", "x", -4 * MINUTE_MS], told["a", "x", 2 * MINUTE_MS]
    assert first == WindowValues(sum(range(60)), 0.0, 59.0, 60)
    assert full == WindowValues(sum(range(120, 420)), 120.0, 419.0, 300)
    assert sorted(start_ms for _, name, start_ms in told if name == "rare") == [
        n * MINUTE_MS for n in range(-3, 2)
    ]


def test_windows_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_windows, "OPEN_MAX", 3)
    plant = Plant()
    plant.send(a=1.0, b=1.0, c=1.0, d=1.0)
    plant.send(a=1.0, e=1.0)
    assert plant.counts["samples_without_room"] == 2
    plant.advance(SECOND_MS + GRACE_MS)
    plant.send(text=None)
    plant.send(a=1.0, d=1.0)
    plant.advance(SECOND_MS + GRACE_MS)
    plant.send(text=None)
    # The windows of a second are over and have made room; the minute is full, and does not grow.
    assert set(plant.told()) == {("a", name, 0) for name in "abc"} | {("a", name, 1000) for name in "ad"}
    assert plant.counts["samples_without_room"] == 3
    plant.advance(10 * MINUTE_MS)
    plant.send(text=None)
    plant.send(a=1.0, b=1.0, e=1.0)
    plant.advance(SECOND_MS + GRACE_MS)
    plant.send(text=None)
    assert plant.counts["samples_without_room"] == 3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 600))
def test_any_live_order_gives_what_a_plain_computation_gives_also_over_a_restart(
    seed: int, restart: int
) -> None:
    chance = random.Random(seed)
    plant = Plant(partitions=3)
    expected: dict[tuple[str, str, int], list[float]] = {}
    for n in range(600):
        plant.advance(chance.choice((0, 50, 200, 700)))
        device_id = chance.choice("abcdef")
        # Late by less than the grace, so nothing is left out.
        at_ms = plant.now_ms - chance.randrange(GRACE_MS)
        number = chance.uniform(-100, 100)
        plant.send(device_id, at_ms, partition="abcdef".index(device_id) % 3, x=number)
        start_ms = (at_ms - BASE_MS) // SECOND_MS * SECOND_MS
        expected.setdefault((device_id, "x", start_ms), []).append(number)
        if n == restart:
            plant.maker = WindowMaker(plant.counts, unpack_open(pack_open(plant.maker.saved())))
            for partition in range(3):
                plant.maker.add_partition(partition)
                plant.maker.read_up(partition)
    plant.advance(10 * MINUTE_MS)
    plant.send("end", x=0.0)
    plant.advance(0)
    told = plant.told()
    assert plant.counts["samples_late"] == 0
    assert told.keys() == expected.keys()
    for key, numbers in expected.items():
        total, *others = told[key]
        assert isclose(total, sum(numbers), abs_tol=1e-9)
        assert others == [min(numbers), max(numbers), len(numbers)]
    in_minutes = Counter[str]()
    for (device_id, _, _), values in plant.told("5m").items():
        in_minutes[device_id] += values.samples
    for device_id in "abcdef":
        # Each sample is in five windows.
        assert in_minutes[device_id] == 5 * sum(
            len(numbers) for (d, _, _), numbers in expected.items() if d == device_id
        )

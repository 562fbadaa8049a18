"""How samples of one device reach Kafka: late, out of order, twice, in backlogs, with a wrong clock.

In: the true moments of a device's samples. Out: deliveries: which moment arrives when, and what time it says.
Guarantees: the same seed gives the same deliveries. Each kind of device also has the ordinary small delays.
Not here: what is in the frames (`generated_plant`), records that no device should send (`odd_records`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
AHEAD_ACCEPTED_MS = 120_000
"""The furthest that a time stamp may be ahead of the gateway (docs/storage.md, `from-the-future`)."""
WALL_CLOCK = ZoneInfo("Europe/Vienna")


class Stretch(NamedTuple):
    """How much of a plant's time is generated, and how densely: a frame every `slow_ms`, and bursts."""

    start_ms: int
    length_ms: int
    devices: int
    slow_ms: int
    bursts: int
    burst_frames: int

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.length_ms

    def at(self, share: float) -> int:
        """A moment in it, on the grid of slow frames."""
        return self.start_ms + int(self.length_ms * share) // self.slow_ms * self.slow_ms

    def within(self, at_ms: int, begin: float, end: float) -> bool:
        return self.at(begin) <= at_ms < self.at(end)


class Delivery(NamedTuple):
    """The sample of `true_ms` comes to Kafka at `at_ms`, and says that it is of `claimed_ms`.

    `changed`: with other values than at its first delivery.
    """

    at_ms: int
    true_ms: int
    claimed_ms: int
    received_ms: int
    historical: bool = False
    changed: bool = False


Deliver = Callable[[list[int], Stretch, random.Random], list[Delivery]]


def moments(stretch: Stretch, rng: random.Random) -> list[int]:
    """When a device measures: on a grid, in bursts, and around each edge of an hour."""
    found = set(range(stretch.start_ms, stretch.end_ms, stretch.slow_ms))
    for _ in range(stretch.bursts):
        at_ms = rng.randrange(stretch.start_ms, stretch.end_ms)
        for _ in range(stretch.burst_frames):
            found.add(at_ms)
            at_ms += rng.choice((1, 10, 50, 50, 100, 100, 200, 500, 999))
    for edge_ms in range(stretch.start_ms, stretch.end_ms + 1, HOUR_MS // 2):
        found |= {edge_ms - 1, edge_ms, edge_ms + 1}
    return sorted(at_ms for at_ms in found if stretch.start_ms <= at_ms < stretch.end_ms)


def _soon(true_ms: int, rng: random.Random, claimed_ms: int | None = None) -> Delivery:
    at_ms = true_ms + rng.randrange(2, 60)
    return Delivery(at_ms, true_ms, true_ms if claimed_ms is None else claimed_ms, at_ms)


def steady(true: list[int], stretch: Stretch, rng: random.Random) -> list[Delivery]:
    """As it should be."""
    return [_soon(at_ms, rng) for at_ms in true]


def disordered(true: list[int], stretch: Stretch, rng: random.Random) -> list[Delivery]:
    """Delays of milliseconds to minutes, so that frames overtake each other."""
    found = []
    for true_ms in true:
        reach_ms = rng.choices((80, 5 * SECOND_MS, 5 * MINUTE_MS, stretch.length_ms // 10), (70, 20, 9, 1))[0]
        at_ms = true_ms + rng.randrange(1, reach_ms)
        found.append(Delivery(at_ms, true_ms, true_ms, at_ms))
    return found


def doubled(true: list[int], stretch: Stretch, rng: random.Random) -> list[Delivery]:
    """Frames come again, at once or hours later, the same or with other values; the first one counts."""
    found = [_soon(at_ms, rng) for at_ms in true]
    for first in rng.sample(found, len(found) // 4):
        later_ms = first.at_ms + rng.choice((1, 500, 30 * SECOND_MS, stretch.length_ms // 5))
        changed = rng.random() < 0.5
        found.append(first._replace(at_ms=later_ms, received_ms=later_ms, changed=changed))
    return found


def with_gaps(true: list[int], stretch: Stretch, rng: random.Random) -> list[Delivery]:
    """Silent for a twelfth of the time, twice, and now and then for a frame."""
    silent = ((0.25, 1 / 3), (0.75, 5 / 6))
    kept = [at for at in true if not any(stretch.within(at, *gap) for gap in silent)]
    return [_soon(at_ms, rng) for at_ms in kept if rng.random() < 0.9]


def cut_off(true: list[int], stretch: Stretch, rng: random.Random) -> list[Delivery]:
    """A gateway without its line: what it kept is drained as historical among what is live again.

    Of some frames it does not know that they had arrived, so these come twice.
    """
    begin, end = 0.3 + rng.random() / 10, 0.65 + rng.random() / 10
    found, drain_ms = [], stretch.at(end)
    for true_ms in true:
        soon = _soon(true_ms, rng)
        away = stretch.within(true_ms, begin, end)
        doubtful = stretch.within(true_ms, begin - 0.02, begin)
        if not away:
            found.append(soon)
        if away or doubtful:
            drain_ms += rng.randrange(1, 10)
            found.append(soon._replace(at_ms=drain_ms, historical=True))
    return found


def late_without_saying(true: list[int], stretch: Stretch, rng: random.Random) -> list[Delivery]:
    """A device that keeps frames itself and sends them hours later, newest first, as if they were live."""
    found = []
    back_ms = stretch.at(0.8)
    for true_ms in reversed(true):
        if stretch.within(true_ms, 0.45, 0.8):
            back_ms += rng.randrange(1, 10)
            found.append(Delivery(back_ms, true_ms, true_ms, back_ms))
        else:
            found.append(_soon(true_ms, rng))
    return found


def clock_ahead(true: list[int], stretch: Stretch, rng: random.Random) -> list[Delivery]:
    """Ahead by what is still taken, by an hour, by more than a year, by the last millisecond that may be."""
    found = []
    for true_ms in true:
        soon = _soon(true_ms, rng)
        if stretch.within(true_ms, 0.2, 0.3):
            soon = soon._replace(claimed_ms=true_ms + 90 * SECOND_MS)
        elif stretch.within(true_ms, 0.3, 0.4):
            soon = soon._replace(claimed_ms=true_ms + HOUR_MS)
        elif stretch.within(true_ms, 0.6, 0.65):
            soon = soon._replace(claimed_ms=true_ms + 400 * DAY_MS)
        elif stretch.within(true_ms, 0.65, 0.7):
            soon = soon._replace(claimed_ms=soon.received_ms + AHEAD_ACCEPTED_MS + rng.randrange(2))
        found.append(soon)
    return found


def clock_behind(true: list[int], stretch: Stretch, rng: random.Random) -> list[Delivery]:
    """Back by a quarter of the stretch, onto time stamps that it gave before; by 200 days; to before 1970."""
    back_ms = stretch.at(0.25) - stretch.start_ms
    found = []
    for true_ms in true:
        claimed_ms = true_ms
        if stretch.within(true_ms, 0.35, 0.5):
            claimed_ms = true_ms - back_ms
        elif stretch.within(true_ms, 0.6, 0.65):
            claimed_ms = true_ms - 200 * DAY_MS
        elif stretch.within(true_ms, 0.7, 0.75):
            claimed_ms = true_ms - stretch.at(0.7) - 4 * stretch.slow_ms
        found.append(_soon(true_ms, rng, claimed_ms)._replace(changed=claimed_ms != true_ms))
    return found


def wall_clock(true: list[int], stretch: Stretch, rng: random.Random) -> list[Delivery]:
    """It sends the time of the wall as if clocks never changed; a quarter of the stretch later it is mended.

    In spring it is an hour ahead then, and its samples are refused. In autumn it gives an hour's time stamps
    twice.
    """
    usual_ms = _wall_ms(stretch.start_ms)
    changed = next((at for at in true if _wall_ms(at) != usual_ms), stretch.end_ms)
    mended = changed + stretch.length_ms // 4
    found = []
    for true_ms in true:
        wrong_ms = _wall_ms(true_ms) - usual_ms if true_ms < mended else 0
        found.append(_soon(true_ms, rng, true_ms + wrong_ms)._replace(changed=wrong_ms != 0))
    return found


def _wall_ms(at_ms: int) -> int:
    """How far the wall's clock is ahead of UTC."""
    offset = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(WALL_CLOCK).utcoffset()
    assert offset is not None
    return int(offset.total_seconds() * 1000)


KINDS: tuple[Deliver, ...] = (
    steady,
    disordered,
    doubled,
    with_gaps,
    cut_off,
    late_without_saying,
    clock_ahead,
    clock_behind,
    wall_clock,
)

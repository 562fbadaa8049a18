"""The schedule of a run: on time, one frame in flight per device, everything counted."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from plantwire.simulator.frame import Frame, encode_json
from plantwire.simulator.nab import Replay, Sample
from plantwire.simulator.outlet import Accepted, Dropped, Outcome, Rejected, Tally
from plantwire.simulator.plant import build_plant
from plantwire.simulator.run import (
    ReplayedMachine,
    Sender,
    SimulatedMachine,
    run_senders,
)


class Recorder:
    """An outlet that keeps what it gets, answers as told, and ends the run after so many frames."""

    name = "recorder"

    def __init__(self, frames: int, stop: asyncio.Event, outcome: Outcome | None = None) -> None:
        self.sent: list[Frame] = []
        self._frames = frames
        self._stop = stop
        self._outcome = outcome or Accepted()

    async def send(self, frame: Frame) -> Outcome:
        self.sent.append(frame)
        if len(self.sent) >= self._frames:
            self._stop.set()
        return self._outcome


def test_a_frame_is_the_json_that_the_gateway_takes() -> None:
    frame = Frame("press-01", "hall-a", sequence=3, timestamp_ms=12, metrics={"temperature": 1.5})
    assert json.loads(encode_json(frame)) == {
        "timestamp": 12,
        "sequence": 3,
        "site": "hall-a",
        "metrics": {"temperature": 1.5},
    }


async def test_every_device_sends_its_frames_in_order_at_its_rate() -> None:
    stop, tally = asyncio.Event(), Tally()
    outlet = Recorder(30, stop)
    plant = build_plant(3, seed=1)
    senders = [Sender(SimulatedMachine(machine, 0.02, speed=1.0), outlet) for machine in plant]
    started_s = time.monotonic()
    await run_senders(senders, tally, stop)
    assert time.monotonic() - started_s >= 0.02 * 8
    for machine in plant:
        frames = [frame for frame in outlet.sent if frame.device_id == machine.device_id]
        assert [frame.sequence for frame in frames] == list(range(len(frames)))
        times = [frame.timestamp_ms for frame in frames]
        assert times == sorted(times)
        assert all(abs(moment - time.time() * 1000) < 10_000 for moment in times)
        assert all(frame.site == machine.site for frame in frames)
    assert tally.accepted["recorder"] == tally.made == len(outlet.sent)


async def test_the_replay_sends_the_samples_one_by_one() -> None:
    stop = asyncio.Event()
    outlet = Recorder(5, stop)
    replay = Replay([Sample(str(n), float(n)) for n in range(3)], start_index=1)
    tally = Tally()
    await run_senders([Sender(ReplayedMachine(replay, samples_per_s=100.0), outlet)], tally, stop)
    values = [float(frame.metrics["temperature"]) for frame in outlet.sent]
    steps = [(after - before) % 3 for before, after in pairwise(values)]
    assert values[0] == 1.0
    assert steps == [1.0] * len(steps) or tally.skipped > 0
    assert [frame.device_id for frame in outlet.sent[:5]] == ["nab-machine-01"] * 5


async def test_a_slow_outlet_makes_frames_be_skipped_and_never_pile_up() -> None:
    stop, tally = asyncio.Event(), Tally()

    class Slow(Recorder):
        in_flight = 0
        most = 0

        async def send(self, frame: Frame) -> Outcome:
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            await asyncio.sleep(0.05)  # the slowness under test
            self.in_flight -= 1
            return await super().send(frame)

    outlet = Slow(4, stop)
    (machine,) = build_plant(1, seed=1)
    await run_senders([Sender(SimulatedMachine(machine, 0.01, speed=1.0), outlet)], tally, stop)
    assert outlet.most == 1
    assert tally.made == 4
    assert tally.skipped >= 3 * 3
    # What was sent is numbered without a gap, so that a gap tells of a loss on the way.
    assert [frame.sequence for frame in outlet.sent] == [0, 1, 2, 3]


@pytest.mark.parametrize("outcome", [Rejected("bad-shape", "why"), Dropped("gateway-away")])
async def test_a_failure_is_counted_and_told_once(outcome: Outcome) -> None:
    stop, tally = asyncio.Event(), Tally()
    outlet = Recorder(5, stop, outcome)
    (machine,) = build_plant(1, seed=1)
    with capture_logs() as logged:
        await run_senders([Sender(SimulatedMachine(machine, 0.005, speed=1.0), outlet)], tally, stop)
    assert tally.rejected.total() + tally.dropped.total() == 5
    assert [entry["event"] for entry in logged] == ["frame-not-accepted"]

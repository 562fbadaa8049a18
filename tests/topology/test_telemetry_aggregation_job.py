"""The telemetry-aggregation job as it is submitted, on a real cluster.

Frames may be sent ahead of their time: the watermark does not follow them.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import fastavro
import msgspec
import pytest

from plantwire.jobs import live_state, telemetry_aggregation
from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC, load_schema
from plantwire.schemas.records import QUALITY_BAD, Metric
from tests.topology.cluster import Cluster, now_ms
from tests.topology.window_watch import (
    Plant,
    Windows,
    counted,
    frame,
    next_second_ms,
    send,
    take_checkpoint,
    values_of,
    wait_for_count,
    wait_for_windows,
)

pytestmark = pytest.mark.long

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def job(cluster: Cluster) -> Iterator[Cluster]:
    worker = cluster.add_task_manager()
    cluster.submit(telemetry_aggregation.NAME)
    yield cluster
    cluster.jobs.stop(telemetry_aggregation.NAME, 60)
    worker.stop()


@pytest.fixture
def windows(job: Cluster) -> Iterator[Windows]:
    with job.redis.pubsub() as channel:
        channel.subscribe(topics.CHANNEL_WINDOWS)
        windows = Windows(job, channel)
        # It reads from the end of the topic when it first starts, which nothing tells from outside.
        windows.until(lambda: windows.told, "the first window", 60)
        yield windows


def test_a_window_has_the_good_numbers_of_its_second_in_whatever_order(
    job: Cluster, windows: Windows
) -> None:
    start_ms = next_second_ms()
    numbers = [float(n) for n in (5, 3, 9, -2, 7)]
    for offset, number in zip((800, 0, 999, 300, 500), numbers, strict=True):
        send(job, frame("line-1", start_ms + offset, flow=number, head=2 * number))
    # None of these is of that window: the neighbours' time, what is not good, what has no number.
    send(job, frame("line-1", start_ms + 1000, flow=1000))
    send(job, frame("line-1", start_ms - 1, flow=2000))
    others = (
        Metric("flow", 3000.0, quality=QUALITY_BAD),
        Metric("flow", None, "text"),
        Metric("flow", float("nan")),
        Metric("flow", float("inf")),
        Metric("own", 1.0, event_time_ms=start_ms - 500),
    )
    send(job, msgspec.structs.replace(frame("line-1", start_ms + 400), metrics=others))
    metrics = windows.wait_for("line-1", start_ms)
    assert metrics == {"flow": values_of(numbers), "head": values_of([2 * n for n in numbers])}
    assert windows.wait_for("line-1", start_ms + 1000) == {"flow": values_of([1000.0])}
    # A metric's own time counts before its frame's.
    assert windows.told["line-1", start_ms - 1000]["own"] == values_of([1.0])
    assert windows.told["line-1", start_ms - 1000]["flow"] == values_of([2000.0])
    assert windows.doubled == []
    wait_for_count(job, "samples_not_good", 1)
    wait_for_count(job, "samples_without_number", 1)
    wait_for_count(job, "samples_not_finite", 2)


def test_bodies_of_both_schemas_are_read_and_garbage_stops_nothing(job: Cluster, windows: Windows) -> None:
    rejected = counted(job, "frames_rejected")
    start_ms = next_second_ms()
    former = fastavro.parse_schema(load_schema("released/TelemetryFrame.1"))
    with_state = msgspec.structs.replace(frame("line-2", start_ms, flow=1), edge_state=b"state" * 100)
    send(job, with_state)
    out = BytesIO()
    fastavro.schemaless_writer(out, former, msgspec.to_builtins(frame("line-2", start_ms + 1, flow=2)))
    job.send_bytes("line-2", out.getvalue())
    job.send_bytes("line-2", b"garbage")
    job.send_bytes("line-2", None)
    job.send_bytes(None, b"")
    # Of another device than its key says.
    job.send_bytes("line-2", FRAME_CODEC.encode(frame("line-3", start_ms, flow=3)))
    assert windows.wait_for("line-2", start_ms) == {"flow": values_of([1.0, 2.0])}
    assert ("line-3", start_ms) not in windows.told
    wait_for_count(job, "frames_rejected", rejected + 3)
    wait_for_count(job, "samples_of_another_device", 1)


def test_time_stamps_far_ahead_move_nobody(job: Cluster, windows: Windows) -> None:
    start_ms = next_second_ms()
    send(job, frame("line-4", start_ms, flow=1))
    # A clock a minute ahead, one that is an hour ahead, and one whose gateway's is too.
    send(job, frame("line-5", now_ms() + 60_000, now_ms(), flow=1))
    send(job, frame("line-5", now_ms() + HOUR_MS, now_ms(), flow=1))
    send(job, frame("line-5", now_ms() + HOUR_MS, flow=1))
    windows.until(lambda: now_ms() > start_ms, "the second has begun")
    send(job, frame("line-4", now_ms(), flow=2))
    assert windows.wait_for("line-4", start_ms) == {"flow": values_of([1.0, 2.0])}
    wait_for_count(job, "samples_ahead", 2)


def test_what_is_late_or_historical_is_counted_and_left_to_the_database(
    job: Cluster, windows: Windows
) -> None:
    late, historical = counted(job, "samples_late"), counted(job, "samples_historical")
    start_ms = next_second_ms()
    send(job, frame("line-6", start_ms, flow=1))
    past = msgspec.structs.replace(frame("line-6", start_ms + 1, flow=10), historical=True)
    send(job, past)
    windows.wait_for("line-6", start_ms)
    send(job, frame("line-6", start_ms + 2, now_ms(), flow=100))
    send(job, msgspec.structs.replace(past, event_time_ms=start_ms - HOUR_MS))
    later_ms = next_second_ms()
    send(job, frame("line-6", later_ms, flow=1000))
    assert windows.wait_for("line-6", later_ms) == {"flow": values_of([1000.0])}
    assert windows.told["line-6", start_ms] == {"flow": values_of([1.0])}
    assert windows.doubled == []
    wait_for_count(job, "samples_late", late + 1)
    wait_for_count(job, "samples_historical", historical + 2)


def test_a_clock_that_is_behind_and_a_backlog_hold_nobody_back(job: Cluster, windows: Windows) -> None:
    """Eight devices of each kind: there is no partition without them."""

    def disturbed() -> bool:
        for n in range(8):
            at_ms = now_ms()
            send(job, frame(f"slow-{n}", at_ms - HOUR_MS, at_ms, flow=1))
            drained = frame(f"drained-{n}", at_ms - 2 * HOUR_MS, flow=1)
            drained = msgspec.structs.replace(drained, historical=True, gateway_out_us=at_ms * 1000)
            send(job, drained)
        return ("line-7", start_ms) in windows.told

    start_ms = next_second_ms()
    send(job, frame("line-7", start_ms, flow=1))
    windows.until(disturbed, "the window is told", 5)


def test_windows_are_shown_within_a_second_of_their_end(job: Cluster, windows: Windows) -> None:
    start_ms = next_second_ms()
    starts = [start_ms + 1000 * n for n in range(5)]
    for second_ms in starts:
        # One device, so one partition: the others have no frames but the pulses'.
        send(job, frame("line-8", second_ms, flow=1))
    windows.wait_for("line-8", starts[-1])
    delays_ms = sorted(windows.delays_ms["line-8", second_ms] for second_ms in starts)
    assert delays_ms[len(delays_ms) // 2] < 1000, delays_ms


def test_the_last_window_is_told_when_the_plant_falls_silent(job: Cluster, windows: Windows) -> None:
    start_ms = next_second_ms(0)
    windows.until(lambda: now_ms() > start_ms + 1000, "the second has begun")
    at_ms = now_ms()
    send(job, frame("line-12", at_ms, flow=1))
    key = "line-12", at_ms // 1000 * 1000
    # Nothing else is sent.
    job.until(lambda: windows.listen() or key in windows.told, 5, "the last window")
    assert windows.told[key] == {"flow": values_of([1.0])}
    assert windows.delays_ms[key] < 1500, windows.delays_ms[key]


def test_open_windows_survive_a_savepoint(job: Cluster, windows: Windows) -> None:
    read = counted(job, "samples_without_number")
    # Time enough for the counter that tells that the frame was read.
    start_ms = next_second_ms(30)
    first = frame("line-9", start_ms, flow=1)
    send(job, msgspec.structs.replace(first, metrics=(*first.metrics, Metric("note", None, "text"))))
    wait_for_count(job, "samples_without_number", read + 1)
    assert job.jobs.stop(telemetry_aggregation.NAME, 60) is not None
    send(job, frame("line-9", start_ms + 1, flow=2))
    job.submit(telemetry_aggregation.NAME)
    windows.until(lambda: ("line-9", start_ms) in windows.told, "the window is told", 60)
    assert windows.told["line-9", start_ms] == {"flow": values_of([1.0, 2.0])}


def test_after_a_changed_query_the_job_starts_with_no_window_open(job: Cluster, windows: Windows) -> None:
    """A savepoint of another job stands for one of a former query: nothing in it is this job's."""
    foreign = job.jobs.stop(live_state.NAME, 60)
    assert foreign is not None
    job.jobs.stop(telemetry_aggregation.NAME, 60)
    job.submit_from(foreign, telemetry_aggregation.NAME)
    job.submit(live_state.NAME)
    start_ms = next_second_ms()
    send(job, frame("line-10", start_ms, flow=1))
    assert windows.wait_for("line-10", start_ms) == {"flow": values_of([1.0])}


def test_windows_told_again_after_a_crash_are_not_announced_twice(job: Cluster, windows: Windows) -> None:
    take_checkpoint(job)
    start_ms = next_second_ms()
    send(job, frame("line-11", start_ms, flow=1))
    windows.wait_for("line-11", start_ms)
    worker = job.worker_of(telemetry_aggregation.NAME)
    worker.clear_away()  # kill -9
    worker.start()
    # Sent while nobody reads, and told once somebody does.
    later_ms = next_second_ms()
    send(job, frame("line-11", later_ms, flow=2))
    windows.until(lambda: ("line-11", later_ms) in windows.told, "the next window", 60)
    assert windows.told["line-11", later_ms] == {"flow": values_of([2.0])}
    wait_for_count(job, "windows_already_shown", 1)
    assert windows.doubled == []


def test_what_came_while_the_job_was_away_is_in_windows(job: Cluster, windows: Windows) -> None:
    plant = Plant(job, "away")
    start_ms = next_second_ms()
    send(job, frame("line-13", start_ms, flow=1))
    windows.wait_for("line-13", start_ms)
    plant.run_for(3_000)
    assert job.jobs.stop(telemetry_aggregation.NAME, 60) is not None
    plant.run_for(8_000)
    # Its window was told before the stop.
    send(job, frame("line-13", start_ms + 1, now_ms(), flow=2))
    job.submit(telemetry_aggregation.NAME)
    wait_for_windows(plant, windows)
    # Counted from the start of the job that came back.
    assert counted(job, "samples_late") == 1


def test_windows_are_right_over_the_death_of_a_task_manager(job: Cluster, windows: Windows) -> None:
    take_checkpoint(job)
    plant = Plant(job, "killed")
    plant.run_for(3_000)
    worker = job.worker_of(telemetry_aggregation.NAME)
    worker.clear_away()  # kill -9
    plant.run_for(4_000)
    worker.start()
    wait_for_windows(plant, windows)
    assert windows.doubled == []

"""The light engine and the Flink job, given the same frames as they come: the same live windows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from math import isclose
from typing import Any

import msgspec
import pytest

from plantwire.jobs import telemetry_aggregation
from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import QUALITY_BAD, Metric, TelemetryFrame
from tests.integration.light.light_rig import LightPlant, light_plant
from tests.topology.cluster import Cluster, now_ms

pytestmark = pytest.mark.long

DEVICES = 6
RUN_S = 75
"""More than a minute, so that windows of five minutes end as well."""
WAIT_S = 30.0
HOUR_MS = 3_600_000

Told = dict[tuple[str, str, int], dict[str, dict[str, float]]]
"""(device, window, start) → metric → values."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LightPlant]:
    with light_plant(tmp_path_factory.mktemp("twin-windows")) as site:
        site.start_engine()
        yield site


@pytest.fixture(scope="module")
def job(cluster: Cluster) -> Iterator[Cluster]:
    worker = cluster.add_task_manager()
    cluster.submit(telemetry_aggregation.NAME)
    yield cluster
    cluster.jobs.stop(telemetry_aggregation.NAME, 60)
    worker.stop()


class Listener:
    """What one plant announces of the devices that matter."""

    def __init__(self, plant: Cluster, channel: Any) -> None:
        self.plant = plant
        self.told: Told = {}
        self._channel = channel

    def listen(self) -> None:
        """Take up whatever was announced meanwhile."""
        while (message := self._channel.get_message(timeout=0.01)) is not None:
            for window in json.loads(message["data"]) if message["type"] == "message" else ():
                key = window["deviceId"], window["window"], window["start"]
                assert key not in self.told
                self.told[key] = window["metrics"]


def frames_of(chance: random.Random, at_ms: int) -> Iterator[TelemetryFrame]:
    """What the plant sends at one moment: numbers, some of no use, some of wrong clocks."""
    for n in range(DEVICES):
        numbers = [Metric(name, chance.uniform(-50, 50)) for name in "xy"]
        if chance.random() < 0.1:
            numbers.append(Metric("x", 1e6, quality=QUALITY_BAD))
            numbers.append(Metric("y", float("nan")))
            numbers.append(Metric("x", None, "text"))
        frame = TelemetryFrame(
            f"same-{n}", "hall", None, at_ms, at_ms, "http", False, tuple(numbers), at_ms * 1000, at_ms * 1000
        )
        yield frame
        if chance.random() < 0.1:
            yield msgspec.structs.replace(frame, historical=True, event_time_ms=at_ms - HOUR_MS)
        if chance.random() < 0.1:
            # Too far ahead, and too late: neither is in a window, neither moves anybody.
            yield msgspec.structs.replace(frame, event_time_ms=at_ms + HOUR_MS // 2)
            yield msgspec.structs.replace(frame, event_time_ms=at_ms - HOUR_MS)


def test_both_engines_make_the_same_windows_of_the_same_frames(job: Cluster, site: LightPlant) -> None:
    with job.redis.pubsub() as of_flink, site.redis.pubsub() as of_light:
        listeners = [Listener(job, of_flink), Listener(site, of_light)]
        for channel in (of_flink, of_light):
            channel.subscribe(topics.CHANNEL_WINDOWS)

        def both_run() -> bool:
            for listener in listeners:
                listener.plant.send(f"pulse-{now_ms() % 16}", beat=1)
                listener.listen()
            return all(listener.told for listener in listeners)

        job.until(both_run, 90, "both make windows")
        chance = random.Random(11)
        first_ms = now_ms() // 1000 * 1000 + 2000
        job.until(lambda: now_ms() >= first_ms, 5, "the run begins")
        next_ms = first_ms
        while next_ms < first_ms + RUN_S * 1000:
            sent = [(f.device_id, FRAME_CODEC.encode(f), next_ms) for f in frames_of(chance, next_ms)]
            for listener in listeners:
                listener.plant.produce_all(topics.TELEMETRY_RAW, sent)
                listener.listen()
            next_ms += 200
            job.until(lambda: now_ms() >= next_ms, 5, "the next moment")  # noqa: B023 - asked here only
        # Whole seconds, and minutes of which all frames are of this run.
        last_ms = next_ms // 1000 * 1000
        minutes = [end for end in range(0, last_ms + 1, 60_000) if first_ms + 1000 < end < last_ms - 5000]

        def is_ended() -> bool:
            both_run()
            return all(
                ("same-0", "1s", last_ms - 1000) in x.told
                and all(("same-0", "5m", end - 300_000) in x.told for end in minutes)
                for x in listeners
            )

        job.until(is_ended, WAIT_S, "the last windows are told")
    flink, light = (
        {
            key: metrics
            for key, metrics in listener.told.items()
            if key[0].startswith("same-")
            and first_ms <= key[2] + (1000 if key[1] == "1s" else 300_000) <= last_ms
        }
        for listener in listeners
    )
    assert {key for key in flink if key[1] == "5m"}
    assert sum(key[1] == "1s" for key in flink) == DEVICES * (last_ms - first_ms) // 1000
    assert flink.keys() == light.keys()
    for key, metrics in flink.items():
        assert metrics.keys() == light[key].keys() == {"x", "y"}
        for name, values in metrics.items():
            other = light[key][name]
            assert (values["min"], values["max"], values["count"]) == (
                other["min"],
                other["max"],
                other["count"],
            )
            assert isclose(values["sum"], other["sum"], rel_tol=1e-9, abs_tol=1e-9)
            assert isclose(values["avg"], other["avg"], rel_tol=1e-9, abs_tol=1e-9)

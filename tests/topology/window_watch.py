"""Live windows as tests see them: what a job announces, and a plant whose windows are known.

While it waits, `Windows` goes on sending frames of devices of its own (`pulse`), as a plant would.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import httpx

from plantwire.jobs import telemetry_aggregation
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import Metric, TelemetryFrame
from tests.topology.cluster import Cluster, now_ms

WAIT_S = 20.0


class Windows:
    """What is announced, by device and start of the window, and when it was."""

    def __init__(self, cluster: Cluster, channel: Any) -> None:
        self._cluster = cluster
        self._channel = channel
        self._pulses = 0
        self.told: dict[tuple[str, int], dict[str, Any]] = {}
        self.delays_ms: dict[tuple[str, int], int] = {}
        self.doubled: list[tuple[str, int]] = []

    def pulse(self) -> None:
        """A live frame of another device, and whatever was announced meanwhile."""
        self._pulses += 1
        self._cluster.send(f"pulse-{self._pulses % 16}", beat=1)
        self.listen()

    def wait_for(self, device_id: str, start_ms: int) -> dict[str, Any]:
        """The metrics of a device's window."""
        self.until(lambda: (device_id, start_ms) in self.told, f"{device_id} at {start_ms}")
        return self.told[device_id, start_ms]

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
        """Let time pass until `condition` holds."""

        def pulsed() -> object:
            self.pulse()
            return condition()

        self._cluster.until(pulsed, timeout_s, what)

    def listen(self) -> None:
        """Whatever was announced meanwhile."""
        while (message := self._channel.get_message(timeout=0.01)) is not None:
            for window in json.loads(message["data"]) if message["type"] == "message" else ():
                if window["window"] == "1s":
                    self._note(window)

    def _note(self, window: dict[str, Any]) -> None:
        key = window["deviceId"], window["start"]
        if key in self.told:
            self.doubled.append(key)
        self.told[key] = window["metrics"]
        self.delays_ms[key] = now_ms() - window["end"]


class Plant:
    """Devices in all partitions that measure four times a second, and what their windows have to be."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self._devices = [f"{name}-{n}" for n in range(12)]
        self._sent: defaultdict[int, list[float]] = defaultdict(list)
        """Second → what each device measured."""
        self._last_ms = now_ms()

    def step(self) -> None:
        """Measure, if it is time to; what was missed meanwhile was not measured."""
        at_ms = now_ms() // 250 * 250
        if at_ms <= self._last_ms:
            return
        self._last_ms = at_ms
        number = float(at_ms % 7000)
        for device_id in self._devices:
            send(self._cluster, frame(device_id, at_ms, now_ms(), flow=number))
        self._sent[at_ms // 1000 * 1000].append(number)

    def run_for(self, span_ms: int) -> None:
        """Let the plant run."""
        until_ms = now_ms() + span_ms

        def over() -> bool:
            self.step()
            return now_ms() >= until_ms

        self._cluster.until(over, span_ms / 1000 + WAIT_S, "the plant has run")

    def windows(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Those of all seconds but the last."""
        return {
            (device_id, start_ms): {"flow": values_of(numbers)}
            for start_ms, numbers in self._sent.items()
            for device_id in self._devices
            if start_ms < max(self._sent)
        }


def frame(device_id: str, at_ms: int, received_ms: int | None = None, **values: float) -> TelemetryFrame:
    received_ms = at_ms if received_ms is None else received_ms
    metrics = tuple(Metric(name, value) for name, value in values.items())
    return TelemetryFrame(
        device_id,
        "hall",
        7,
        at_ms,
        received_ms,
        "http",
        False,
        metrics,
        received_ms * 1000,
        received_ms * 1000,
    )


def send(cluster: Cluster, sent: TelemetryFrame) -> None:
    cluster.send_bytes(sent.device_id, FRAME_CODEC.encode(sent), min(sent.event_time_ms, now_ms()))


def next_second_ms(ahead: int = 2) -> int:
    return now_ms() // 1000 * 1000 + ahead * 1000


def values_of(numbers: list[float]) -> dict[str, float]:
    total = sum(numbers)
    return {
        "avg": total / len(numbers),
        "min": min(numbers),
        "max": max(numbers),
        "sum": total,
        "count": len(numbers),
    }


def counted(cluster: Cluster, name: str) -> int:
    """A counter of the job, summed over its operators."""
    rest = f"{cluster.job_manager.url}/jobs"
    job = cluster.jobs.find(telemetry_aggregation.NAME)
    assert isinstance(job, dict)
    total = 0
    for vertex in httpx.get(f"{rest}/{job['jid']}").json()["vertices"]:
        metrics = f"{rest}/{job['jid']}/vertices/{vertex['id']}/subtasks/0/metrics"
        found = [m["id"] for m in httpx.get(metrics).json() if m["id"].endswith(f".plantwire.{name}")]
        if found:
            total += sum(int(m["value"]) for m in httpx.get(metrics, params={"get": ",".join(found)}).json())
    return total


def wait_for_count(cluster: Cluster, name: str, least: int) -> None:
    cluster.until(lambda: counted(cluster, name) >= least, 40, f"{least} × {name}")


def wait_for_windows(plant: Plant, windows: Windows) -> None:
    """Until the plant's windows so far are told, while it runs on."""
    expected = plant.windows()

    def told() -> bool:
        plant.step()
        return windows.told.keys() >= expected.keys()

    windows.until(told, "every window", 60)
    assert {key: windows.told[key] for key in expected} == expected


def take_checkpoint(cluster: Cluster) -> None:
    """One now, instead of within a minute."""
    job = cluster.jobs.find(telemetry_aggregation.NAME)
    assert isinstance(job, dict)
    checkpoints = f"{cluster.job_manager.url}/jobs/{job['jid']}/checkpoints"
    trigger = httpx.post(checkpoints, json={"checkpointType": "FULL"}).json()["request-id"]
    cluster.until(
        lambda: httpx.get(f"{checkpoints}/{trigger}").json()["status"]["id"] == "COMPLETED",
        30,
        "a checkpoint",
    )

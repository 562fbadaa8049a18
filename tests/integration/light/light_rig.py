"""Kafka, Redis and the light engine's processes, for the integration and topology tests."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plantwire.light import detection, live_picture
from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC
from plantwire.schemas.records import AlarmEvent
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.process import ServerProcess
from tests.topology.cluster import Cluster

READY_S = 30
SAVE_MS = 200


class EngineProcess(ServerProcess):
    """`python -m plantwire.light NAME` on a free port."""

    stop_timeout_s = 15.0

    def __init__(self, name: str, variables: Mapping[str, str], log_file: Path) -> None:
        (port,) = free_ports(1)
        super().__init__(name, port, log_file)
        setting = "DETECTION" if name == detection.NAME else "LIVE"
        self._variables = {**variables, f"PLANTWIRE_LIGHT_{setting}_PORT": str(port)}
        self.url = f"http://127.0.0.1:{port}"

    def command(self) -> Sequence[str]:
        return [sys.executable, "-W", "error", "-m", "plantwire.light", self.name]

    def environment(self) -> Mapping[str, str]:
        return self._variables

    def probe(self) -> str | None:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:  # noqa: S310 - our own
                return None if answer.status == 200 else str(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return str(json.load(error)["reasons"])
        except OSError as error:
            return str(error)

    def kill(self) -> None:
        """kill -9, and gone."""
        self.clear_away()

    def count(self, name: str) -> int:
        """A counter's value."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=2) as answer:  # noqa: S310 - our own
            lines = answer.read().decode().splitlines()
        return int(sum(float(x.split()[-1]) for x in lines if x.startswith(f"plantwire_light_{name}_total ")))


class LightPlant(Cluster):
    """The servers of a small site, without Flink, and the engine's two processes."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        variables = {
            "PLANTWIRE_HOME": str(home),
            "PLANTWIRE_KAFKA": self.kafka.bootstrap,
            "PLANTWIRE_REDIS": self.redis_server.url,
            "PLANTWIRE_LIVE_INTERVAL_MS": "300",
            "PLANTWIRE_LIGHT_SAVE_MS": str(SAVE_MS),
        }
        self.home = home
        self.detection = EngineProcess(detection.NAME, variables, home / "detection.log")
        self.live = EngineProcess(live_picture.NAME, variables, home / "live.log")

    @property
    def servers(self) -> list[ServerProcess]:
        return [self.kafka, self.redis_server]

    def start_engine(self) -> None:
        """Both processes, ready."""
        for process in (self.detection, self.live):
            process.start()
        for process in (self.detection, self.live):
            process.wait_ready(READY_S)

    def stop(self) -> None:
        for process in (self.detection, self.live):
            process.stop()
        super().stop()

    def alarms_of_all(self) -> dict[str, list[AlarmEvent]]:
        """As `alarms`, of every device, in one reading."""
        found: dict[str, dict[tuple[str, int], AlarmEvent]] = {}
        for key, body, _ in self.read(topics.ALARMS_FIRE):
            event = ALARM_CODEC.decode(body)
            found.setdefault(str(key), {}).setdefault((event.alarm_id, event.revision), event)
        return {device_id: list(events.values()) for device_id, events in found.items()}

    @contextmanager
    def windows(self) -> Iterator[Callable[[], dict[tuple[str, str, int], Any]]]:
        """A function that answers (device, window, start) → metrics of all windows announced so far."""
        told: dict[tuple[str, str, int], Any] = {}
        with self.redis.pubsub() as channel:
            channel.subscribe(topics.CHANNEL_WINDOWS)

            def announced() -> dict[tuple[str, str, int], Any]:
                while (message := channel.get_message(timeout=0.01)) is not None:
                    for window in json.loads(message["data"]) if message["type"] == "message" else ():
                        key = window["deviceId"], window["window"], window["start"]
                        assert key not in told
                        told[key] = window["metrics"]
                return told

            yield announced


@contextmanager
def light_plant(home: Path) -> Iterator[LightPlant]:
    plant = LightPlant(home)
    try:
        plant.start()
        yield plant
    finally:
        plant.stop()

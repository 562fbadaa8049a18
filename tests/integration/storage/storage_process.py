"""The storage as a real process, and frames on Kafka for it, for the integration tests."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from confluent_kafka import Producer

from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import TelemetryFrame
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.process import ServerProcess
from tests.integration.storage.storage_rig import FOR_EVER

SETTLED_S = 20


class StorageProcess(ServerProcess):
    """`python -m plantwire.storage` on a free port, in a consumer group of its own."""

    def __init__(self, kafka: str, database: str, log_file: Path, group: str, **settings: str) -> None:
        (port,) = free_ports(1)
        super().__init__("storage", port, log_file)
        self.url = f"http://127.0.0.1:{port}"
        self._environment = {
            "PLANTWIRE_KAFKA": kafka,
            "PLANTWIRE_DATABASE": database,
            "PLANTWIRE_STORAGE_PORT": str(port),
            "PLANTWIRE_STORAGE_GROUP": group,
            "PLANTWIRE_STORAGE_RETRY_MAX_S": "0.5",
            **{f"PLANTWIRE_{name.upper()}": str(days) for name, days in FOR_EVER.items()},
            **settings,
        }

    def command(self) -> Sequence[str]:
        return [sys.executable, "-W", "error", "-m", "plantwire.storage"]

    def environment(self) -> Mapping[str, str]:
        return self._environment

    def probe(self) -> str | None:
        reasons = self.ask("/readyz")["reasons"]
        return None if reasons == [] else str(reasons)

    def ask(self, path: str) -> dict[str, object]:
        """The JSON that it answers, also when it is not ready."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=2) as answer:  # noqa: S310 - our own URL
                found: dict[str, object] = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                found = json.load(error)
        except OSError as error:
            found = {"reasons": [str(error)]}
        return found

    def metric(self, name: str) -> float:
        """A metric's value, named with its labels as Prometheus writes them."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=2) as answer:  # noqa: S310 - our own URL
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"plantwire_storage_{name} "))


def send(kafka: str, frames: Iterable[TelemetryFrame | bytes], key: str = "") -> None:
    """Put frames on the topic, acknowledged."""
    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"})
    for one in frames:
        body = one if isinstance(one, bytes) else FRAME_CODEC.encode(one)
        producer.produce(
            topics.TELEMETRY_RAW, value=body, key=key if isinstance(one, bytes) else one.device_id
        )
        producer.poll(0)
    assert producer.flush(20) == 0

"""The storage as a process, between a real Kafka and a real database: killed, cut off, started again."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Producer

from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import Metric, TelemetryFrame
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.postgres import Postgres
from plantwire.stack.servers.process import ServerProcess
from tests.conftest import READY_TIMEOUT_S, running
from tests.integration.gateway.gateway_rig import Topic, create_topics
from tests.integration.storage.storage_rig import (
    FOR_EVER,
    connect,
    count_rows,
    keeping_for_ever,
    read_raw,
    read_tiers,
    settle_tiers,
    wait_for,
)
from tests.telemetry_truth import frame, samples_of, tiers

SETTLED_S = 20


class StorageProcess(ServerProcess):
    """`python -m plantwire.storage` on a free port, in a consumer group of its own."""

    def __init__(self, kafka: str, database: str, log_file: Path, group: str) -> None:
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


@pytest.fixture(scope="session")
def kafka(kafka_bootstrap: str) -> str:
    """Kafka with the topics of telemetry."""
    create_topics(kafka_bootstrap)
    return kafka_bootstrap


@pytest.fixture
def plant_name() -> str:
    """Begins the id of every device of one test: all tests share the topic."""
    return f"plant{secrets.token_hex(4)}"


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


def frames_of(name: str, numbers: range) -> list[TelemetryFrame]:
    """Frames of five devices, ten a second each."""
    start_ms = 1_790_000_000_000
    return [
        frame(f"{name}-{n % 5}", start_ms + n * 20, Metric("a", n / 7), Metric("b", -float(n)))
        for n in numbers
    ]


def of_plant(rows: list[tuple[str, ...]], name: str) -> list[tuple[str, ...]]:
    return [row for row in rows if row[0].startswith(f"{name}-")]


def assert_truth(database: str, name: str, frames: list[TelemetryFrame]) -> None:
    """The tables hold these frames of this plant, once, and every tier follows from them."""
    settings = keeping_for_ever(database)
    with connect(settings) as connection:
        assert len(of_plant(read_raw(connection), name)) == len(samples_of(frames))
        settle_tiers(connection, settings)
        found = read_tiers(connection)
    expected = tiers(samples_of(frames))
    for tier, rows in found.items():
        assert {key: row for key, row in rows.items() if key[0].startswith(f"{name}-")} == expected[tier]


def test_killed_at_any_moment_it_loses_nothing_and_stores_nothing_twice(
    kafka: str, telemetry_database: str, servers_home: Path, plant_name: str
) -> None:
    frames = frames_of(plant_name, range(6000))
    group = f"storage-{plant_name}"
    process = StorageProcess(kafka, telemetry_database, servers_home / f"{group}.log", group)
    with running(process):
        for part in range(3):
            send(kafka, frames[part * 2000 : (part + 1) * 2000])
            before = count_rows(telemetry_database)
            wait_for(lambda before=before: count_rows(telemetry_database) > before, SETTLED_S, "it goes on")
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.clear_away()
            process.start()
        wanted = len(samples_of(frames))
        wait_for(lambda: _stored(telemetry_database, plant_name) == wanted, SETTLED_S, "all of it is stored")
    assert_truth(telemetry_database, plant_name, frames)

    # A new group reads the topic from its beginning: a replay.
    replay = StorageProcess(kafka, telemetry_database, servers_home / f"{group}-2.log", f"{group}-2")
    with connect(keeping_for_ever(telemetry_database)) as connection:
        before_raw, before_tiers = read_raw(connection), read_tiers(connection)
        with running(replay):
            wait_for(lambda: replay.metric("frames_total") >= len(frames), SETTLED_S, "the replay is through")
            assert replay.metric('samples_total{outcome="duplicate"}') >= wanted
        settle_tiers(connection, keeping_for_ever(telemetry_database))
        assert of_plant(read_raw(connection), plant_name) == of_plant(before_raw, plant_name)
        assert read_tiers(connection)["telemetry_1d"].items() >= before_tiers["telemetry_1d"].items()
    assert_truth(telemetry_database, plant_name, frames)


def test_a_database_that_goes_and_comes_back_is_caught_up_with(
    kafka: str, servers_home: Path, plant_name: str
) -> None:
    home = servers_home / plant_name
    postgres = Postgres(home / "postgres", *free_ports(1), home / "postgres.log", secrets.token_urlsafe(32))
    frames = frames_of(plant_name, range(3000))
    process = StorageProcess(kafka, postgres.url, home / "storage.log", f"storage-{plant_name}")
    with running(postgres), running(process):
        send(kafka, frames[:1000])
        wait_for(lambda: count_rows(postgres.url) > 0, SETTLED_S, "it stores")
        postgres.stop()
        send(kafka, frames[1000:2000])
        wait_for(lambda: process.probe() is not None, SETTLED_S, "it says that the database is away")
        assert "database" in str(process.ask("/readyz")["reasons"])
        assert process.ask("/healthz") == {"status": "alive"}
        send(kafka, frames[2000:])
        postgres.start()
        postgres.wait_ready(READY_TIMEOUT_S)
        wanted = len(samples_of(frames))
        wait_for(lambda: _stored(postgres.url, plant_name) == wanted, SETTLED_S, "all of it is stored")
        wait_for(lambda: process.probe() is None, SETTLED_S, "it is ready again")
        assert process.ended() is None
        assert_truth(postgres.url, plant_name, frames)


def test_what_cannot_be_read_is_a_dead_letter_and_the_next_frame_is_stored(
    kafka: str, plain_database: str, servers_home: Path, plant_name: str
) -> None:
    group = f"storage-{plant_name}"
    garbage = b"\xff" + plant_name.encode()
    good = frames_of(plant_name, range(10))
    process = StorageProcess(kafka, plain_database, servers_home / f"{group}.log", group)
    with running(process):
        began_s = time.monotonic()
        send(kafka, [garbage, *good], key=f"{plant_name}-0")
        wait_for(lambda: _stored(plain_database, plant_name) == 20, SETTLED_S, "the frames are stored")
        assert time.monotonic() - began_s < SETTLED_S
        dead = Topic(kafka, topics.TELEMETRY_DLQ)
        letters = dead.read_until(lambda messages: any(one.value() == garbage for one in messages))
        dead.close()
        headers = dict(next(one for one in letters if one.value() == garbage).headers() or ())
        assert headers[topics.HEADER_REASON] == b"undecodable"
        assert headers[topics.HEADER_SOURCE].startswith(b"storage:")
        assert process.metric('frames_refused_total{reason="undecodable"}') >= 1
        process.stop()
        assert "part_away" not in process.log_file.read_text()


def _stored(database: str, name: str) -> int:
    with connect(keeping_for_ever(database)) as connection:
        return len(of_plant(read_raw(connection), name))

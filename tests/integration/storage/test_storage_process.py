"""The storage as a process, between a real Kafka and a real database: killed, cut off, started again."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path

import pytest

from plantwire.schemas import topics
from plantwire.schemas.records import Metric, TelemetryFrame
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.postgres import Postgres
from tests.conftest import READY_TIMEOUT_S, running
from tests.integration.gateway.gateway_rig import Topic, create_topics
from tests.integration.storage.storage_process import SETTLED_S, StorageProcess, send
from tests.integration.storage.storage_rig import (
    connect,
    count_rows,
    keeping_for_ever,
    read_raw,
    read_tiers,
    settle_tiers,
    wait_for,
)
from tests.telemetry_truth import frame, samples_of, tiers


@pytest.fixture(scope="session")
def kafka(kafka_bootstrap: str) -> str:
    """Kafka with the topics of telemetry."""
    create_topics(kafka_bootstrap)
    return kafka_bootstrap


@pytest.fixture
def plant_name() -> str:
    """Begins the id of every device of one test: all tests share the topic."""
    return f"plant{secrets.token_hex(4)}"


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
        found = connection.execute(
            "SELECT count(*) FROM device_telemetry WHERE starts_with(device_id, %s)", (f"{name}-",)
        ).fetchone()
    return int(found[0]) if found is not None else 0

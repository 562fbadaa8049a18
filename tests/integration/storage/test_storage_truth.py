"""A day of a hundred devices through Kafka and the storage, while all is restarted: the truth, twice."""

from __future__ import annotations

import os
import secrets
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg

from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka
from plantwire.stack.servers.postgres import Postgres
from tests.conftest import READY_TIMEOUT_S, running
from tests.integration.gateway.gateway_rig import create_topics
from tests.integration.storage.storage_process import StorageProcess, send
from tests.integration.storage.storage_rig import (
    connect,
    count_rows,
    keeping_for_ever,
    read_raw,
    read_tiers,
    settle_tiers,
    wait_for,
)
from tests.telemetry_truth import Series, plant, record, samples_of, tiers

DEVICES = 100
SETTLED_S = 60


def tables_of(database: str) -> tuple[list[tuple[Any, ...]], dict[str, Series]]:
    """All raw samples, and every row of every tier."""
    settings = keeping_for_ever(database)
    with connect(settings) as connection:
        settle_tiers(connection, settings)
        return read_raw(connection), read_tiers(connection)


def test_restarts_change_nothing_and_neither_does_a_second_run(tmp_path: Path) -> None:
    frames = plant(seed=5, devices=DEVICES)
    keys = {(f.device_id, m.name, f.event_time_ms) for f in frames for m in f.metrics}
    ports = free_ports(3)
    kafka = Kafka(tmp_path / "kafka", ports[0], ports[1], tmp_path / "kafka.log")
    postgres = Postgres(tmp_path / "postgres", ports[2], tmp_path / "postgres.log", secrets.token_urlsafe(32))
    storage = StorageProcess(kafka.bootstrap, postgres.url, tmp_path / "storage.log", "first")
    third = len(frames) // 3
    with running(kafka), running(postgres):
        create_topics(kafka.bootstrap)
        with running(storage):
            send(kafka.bootstrap, frames[:third])
            wait_for(lambda: count_rows(postgres.url) > 0, SETTLED_S, "it stores")
            postgres.stop()
            send(kafka.bootstrap, frames[third : 2 * third])
            postgres.start()
            kafka.stop()
            kafka.start()
            kafka.wait_ready(READY_TIMEOUT_S)
            assert storage.pid is not None
            os.kill(storage.pid, signal.SIGKILL)
            storage.clear_away()
            storage.start()
            send(kafka.bootstrap, frames[2 * third :])
            wait_for(lambda: count_rows(postgres.url) == len(keys), SETTLED_S, "all of it is stored")
        raw, found = tables_of(postgres.url)
        assert found == tiers(samples_of(frames))
        assert len(raw) == len(keys)

        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA second")
        again = f"{postgres.url}?options=-csearch_path%3Dsecond"
        second = StorageProcess(kafka.bootstrap, again, tmp_path / "second.log", "second")
        with running(second):
            wait_for(lambda: count_rows(again) == len(keys), SETTLED_S, "the second run is through")
        assert tables_of(again) == (raw, found)


def test_the_generated_day_has_what_a_day_has() -> None:
    """Or the test above would prove little."""
    frames = plant(seed=5, devices=DEVICES)
    times: dict[str, list[int]] = {}
    for one in frames:
        times.setdefault(one.device_id, []).append(one.event_time_ms)
    assert len(times) == DEVICES
    assert sum(later < earlier for t in times.values() for earlier, later in pairwise(t)) > 500
    assert sum(len(t) - len(set(t)) for t in times.values()) >= 50  # duplicates
    assert {m.quality for f in frames for m in f.metrics} == {0, 192}
    assert (
        max(map(max, times.values())) - min(map(min, times.values())) > 400 * 86_400_000
    )  # clocks that jump
    assert len(record(frames[0]).body) > 50

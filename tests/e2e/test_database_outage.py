"""A database that stays away: alarms and checkpoints go on, nothing is lost, and the storage catches up."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.conftest import Stack
from tests.e2e.test_spine import Plant, apply_rule, operator
from tests.e2e.test_stored import database, rows

ALARM_S = 5.0
CHECKPOINT_S = 30.0
CAUGHT_UP_S = 60.0
PACE_S = 0.5


@contextmanager
def database_away(stack: Stack) -> Iterator[None]:
    """The database is killed, and its port taken, so that each new start of it fails."""
    port = urlsplit(stack.address("database")).port
    assert port is not None
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        os.kill(stack.part("database")["pid"], signal.SIGKILL)
        deadline_s = time.monotonic() + 10
        while True:
            try:
                taken.bind(("127.0.0.1", port))
                break
            except OSError:  # the dead server's socket is not closed yet
                assert time.monotonic() < deadline_s
                time.sleep(0.001)
        # From here on nobody else can bind it; as nobody listens, connections are refused.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield


def complete_checkpoint(flink: str, job_id: str) -> None:
    """One checkpoint, asked for now."""
    url = f"{flink}/jobs/{job_id}/checkpoints"
    trigger = httpx.post(url, json={"checkpointType": "FULL"}, timeout=10).json()["request-id"]
    deadline_s = time.monotonic() + CHECKPOINT_S
    while (answer := httpx.get(f"{url}/{trigger}", timeout=10).json())["status"]["id"] != "COMPLETED":
        assert time.monotonic() < deadline_s, "the checkpoint does not end"
        time.sleep(0.1)  # paces the question
    assert "failureCause" not in answer["operation"], answer


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("away_s", [30, pytest.param(600, marks=pytest.mark.long)])
def test_alarms_and_checkpoints_go_on_without_the_database_and_nothing_is_lost(
    stack: Stack, tmp_path: Path, away_s: int
) -> None:
    url, flink = database(stack), stack.address("flink")
    name = f"away{time.time_ns()}"
    assert apply_rule(stack, tmp_path, name, f"{name}-*", 100).returncode == 0
    jobs = [
        job["jid"] for job in httpx.get(f"{flink}/jobs/overview").json()["jobs"] if job["state"] == "RUNNING"
    ]
    restarts = stack.part("storage")["restarts"]
    count = "SELECT count(*) FROM device_telemetry WHERE starts_with(device_id, %s)"

    with operator(stack) as client, closing(Plant(stack)) as plant:

        def raise_alarm(number: int) -> None:
            device, began_s = f"{name}-{number}", time.monotonic()
            plant.send(device, 101)
            while client.next("alarm")["deviceId"] != device:
                pass
            assert time.monotonic() - began_s < ALARM_S, "the alarm waited"

        raise_alarm(0)
        with database_away(stack):
            ends_s, number = time.monotonic() + away_s, 0
            for job in jobs:
                complete_checkpoint(flink, job)
            while time.monotonic() < ends_s:
                raise_alarm(number := number + 1)
                time.sleep(PACE_S)  # paces the plant
            for job in jobs:
                complete_checkpoint(flink, job)
            assert rows(url, count, name) == []
            assert stack.part("storage")["healthy"] is False
        raise_alarm(number + 1)
        sent = len(plant.acknowledged)
    assert sent >= 10
    deadline_s = time.monotonic() + CAUGHT_UP_S
    while rows(url, count, name) != [(sent,)]:
        assert time.monotonic() < deadline_s, f"{rows(url, count, name)} of {sent} are stored"
        time.sleep(0.2)  # paces the question
    assert stack.status(wait_s=CAUGHT_UP_S)["healthy"]
    assert stack.part("storage")["restarts"] == restarts

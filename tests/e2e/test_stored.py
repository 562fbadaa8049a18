"""What the gateway accepted is in the database, also when that was away; `plantwire database` finds it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import psycopg

from tests.e2e.conftest import Stack

STORED_S = 30


def database(stack: Stack) -> str:
    """The address of the stack's own database, with its password."""
    password = (stack.home / "secrets" / "database.password").read_text().strip()
    scheme, _, place = str(stack.status()["addresses"]["database"]).partition("://")
    return f"{scheme}://plantwire:{quote(password, safe='')}@{place}"


def rows(url: str, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    """What a query finds; nothing while the database is away."""
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            return connection.execute(query.encode(), arguments).fetchall()
    except psycopg.OperationalError:
        return []


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + STORED_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {STORED_S} s: {what}"
        time.sleep(0.1)  # paces the question


def post(stack: Stack, device: str, frames: list[dict[str, Any]]) -> None:
    answer = httpx.post(
        f"{stack.address('gateway')}/api/v1/devices/{device}/telemetry",
        json=frames,
        headers={"Authorization": f"Bearer {stack.token(role='device')}"},
        timeout=20,
    )
    assert answer.status_code == 202, answer.text


def test_accepted_frames_are_stored_and_summed_up_by_the_second(stack: Stack) -> None:
    url, device = database(stack), f"stored-{time.time_ns()}"
    second_ms = time.time_ns() // 1_000_000_000 * 1000
    post(stack, device, [{"timestamp": second_ms + n, "metrics": {"t": n, "s": "on"}} for n in range(3)])
    wait_for(
        lambda: (
            rows(url, "SELECT avg, min, max, sum, count FROM telemetry_1s WHERE device_id = %s", device)
            == [(1.0, 0.0, 2.0, 3.0, 3)]
        ),
        "the second is summed up",
    )
    raw = rows(
        url, "SELECT metric, number, text FROM device_telemetry WHERE device_id = %s ORDER BY 1, 2", device
    )
    assert raw == [("s", None, "on")] * 3 + [("t", 0.0, None), ("t", 1.0, None), ("t", 2.0, None)]
    status = stack.command("database", "status")
    assert status.returncode == 0, status.stderr
    assert stack.command("database", "refresh").returncode == 0
    assert rows(url, "SELECT count FROM telemetry_1d WHERE device_id = %s", device) == [(3,)]


def test_a_database_that_dies_loses_nothing_and_stops_nobody(stack: Stack) -> None:
    url, device = database(stack), f"stored-{time.time_ns()}"
    pid = stack.part("database")["pid"]
    os.kill(pid, signal.SIGKILL)
    post(stack, device, [{"metrics": {"t": 1.5}}])
    wait_for(
        lambda: rows(url, "SELECT number FROM device_telemetry WHERE device_id = %s", device) == [(1.5,)],
        "the frame is stored once the database is back",
    )
    assert stack.status(wait_s=60)["healthy"]
    assert stack.part("storage")["restarts"] == 0

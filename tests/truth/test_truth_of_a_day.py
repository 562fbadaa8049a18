"""A day of a hundred devices through Kafka, the storage and the job of live windows, while all of them are
killed and restarted: every row of every table is the offline one, in both kinds of database, however often
the topic is read; and windows of the part of the plant that is live are those of what it sent.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from plantwire.jobs import telemetry_aggregation
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.postgres import Postgres
from tests.conftest import running
from tests.history_tables import timescale_database
from tests.topology.cluster import running_cluster
from tests.truth.generated_plant import DAY, plant
from tests.truth.live_plant import SIZES_MS, LivePlant, differs, live_plant, offline_windows
from tests.truth.offline_tables import Offline, offline
from tests.truth.pipeline import killed, restarted, send_all, until
from tests.truth.storage_groups import Group, in_schema

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PER_S = 4_000
THROUGH_S = 300.0
QUIET_MS = 12_000


class Run(NamedTuple):
    """What the run with all faults left; Kafka and the database are still there."""

    kafka: str
    group: Group
    expected: Offline
    live: LivePlant
    quiet: list[tuple[int, int]]
    """From and until when windows have to be told whole: at first, and at last, where all but a TaskManager
    is let alone. By the ends of windows of 1 s."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    home = tmp_path_factory.mktemp("truth")
    password = secrets.token_urlsafe(32)
    postgres = Postgres(home / "postgres", *free_ports(1), home / "postgres.log", password)
    with running_cluster(home / "cluster") as cluster, running(postgres):
        bootstrap = cluster.kafka.bootstrap
        group = Group(bootstrap, postgres.url, "first", home)
        cluster.submit(telemetry_aggregation.NAME)
        with running(group.process):
            with live_plant(bootstrap, cluster.redis_server.url) as live:
                until(lambda: live.newest_ms("1s"), 60, "the first window is told")
                first_ms = live.newest_ms("1s")
                day = plant(DAY, seed=5)
                until(lambda: live.newest_ms("5m"), 90, "a window of five minutes is told")
                quiet = [(first_ms, live.newest_ms("1s"))]
                faults = (
                    killed(group.process),
                    restarted(postgres),
                    restarted(cluster.kafka),
                    lambda: killed(cluster.worker_of(telemetry_aggregation.NAME))(),
                    killed(postgres),
                )
                send_all(bootstrap, day, PER_S, faults)
                group.wait_until_through(THROUGH_S)
                begin_ms = quiet_time(live)
                killed(cluster.worker_of(telemetry_aggregation.NAME))()
                quiet_time(live)
                quiet.append((begin_ms, live.newest_ms("1s")))
            assert live.errors == []
            group.wait_until_through(THROUGH_S)
        for server in (*cluster.task_managers, cluster.job_manager):
            server.stop()
        yield Run(bootstrap, group, offline([*day, *live.records]), live, quiet)


def quiet_time(live: LivePlant) -> int:
    """Return once windows have been told in time for a while; since when, by their ends."""
    until(lambda: live.newest_ms("1s") > time.time_ns() // 1_000_000 - 3_000, 120, "windows are told in time")
    begin_ms = live.newest_ms("1s")
    until(lambda: live.newest_ms("1s") >= begin_ms + QUIET_MS, 60, "windows are told for a while")
    return begin_ms


def test_every_row_is_the_offline_one(run: Run) -> None:
    run.group.assert_is(run.expected)


def test_windows_are_told_of_what_is_live_and_of_nothing_else(run: Run) -> None:
    sent = offline_windows(run.live.records)
    for window, values in run.live.told.items():
        numbers = sent.get(window)
        assert numbers is not None, f"{window} is of nothing that is live"
        assert values["count"] <= len(numbers), f"{window} holds more than was sent: {values}"
        if values["count"] == len(numbers):
            assert differs(values, numbers) is None, window
    assert run.live.told_twice == []


def test_every_window_is_told_and_whole_also_when_a_task_manager_was_killed(run: Run) -> None:
    sent = offline_windows(run.live.records)
    for begin_ms, end_ms in run.quiet:
        windows = [w for w in sent if w.size == "1s" and begin_ms <= w.start_ms < end_ms]
        assert len(windows) > 0
        for window in windows:
            assert window in run.live.told, f"{window} was not told"
            assert differs(run.live.told[window], sent[window]) is None, window


def test_five_minutes_are_made_of_their_seconds(run: Run) -> None:
    """Until the first fault, since what was told of a second before is what minutes are made of."""
    told = run.live.told
    minutes = [w for w in told if w.size == "5m" and w.start_ms + SIZES_MS["5m"] <= run.quiet[0][1]]
    assert len(minutes) > 0
    for window in minutes:
        starts = range(window.start_ms, window.start_ms + SIZES_MS["5m"], 1_000)
        seconds = [told[s] for at in starts if (s := window._replace(size="1s", start_ms=at)) in told]
        values = told[window]
        assert values["count"] == sum(s["count"] for s in seconds)
        assert values["min"] == min(s["min"] for s in seconds)
        assert values["max"] == max(s["max"] for s in seconds)
        assert values["sum"] == pytest.approx(sum(s["sum"] for s in seconds), rel=1e-9)


def test_a_second_run_from_the_start_of_the_topic_makes_the_same_tables(run: Run, tmp_path: Path) -> None:
    second = Group(run.kafka, in_schema(run.group.database, "second"), "second", tmp_path)
    second.run_through(THROUGH_S)
    assert second.digests() == run.group.digests()


def test_a_replay_into_the_same_tables_changes_nothing(run: Run, tmp_path: Path) -> None:
    before = run.group.digests()
    Group(run.kafka, run.group.database, "replay", tmp_path).run_through(THROUGH_S)
    assert run.group.digests() == before


@pytest.mark.timescaledb
def test_with_timescaledb_the_tables_are_the_same(run: Run, tmp_path: Path) -> None:
    names = (f"timescale-{n}" for n in count())
    with timescale_database() as database:
        group = Group(run.kafka, database, next(names), tmp_path)
        with running(group.process):
            for fault in (killed(group.process), lambda: turn_away(database)):
                rows = raw_rows(database)
                until(lambda rows=rows: raw_rows(database) > rows, 60, "it stores", 0.5)
                fault()
            group.wait_until_through(THROUGH_S)
        group.assert_is(run.expected)
        before = group.digests()
        assert before == run.group.digests()
        compress(database)
        Group(run.kafka, database, next(names), tmp_path).run_through(THROUGH_S)
        assert group.digests() == before


def compress(database: str) -> None:
    """What the policies do in time: into the columnstore, where a replay has to find it."""
    with psycopg.connect(database, autocommit=True) as connection:
        for table in ("device_telemetry", "telemetry_1s"):
            chunks = connection.execute(
                "SELECT compress_chunk(chunk, if_not_compressed => true) FROM show_chunks(%s) AS chunk",
                (table,),
            ).fetchall()
            assert len(chunks) > 1


def turn_away(database: str) -> None:
    """End all connections of the storage's role, as a restart of the server would, which is not ours."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
        )


def raw_rows(database: str) -> int:
    try:
        with psycopg.connect(database) as connection:
            row = connection.execute("SELECT count(*) FROM device_telemetry").fetchone()
    except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
        return 0
    return 0 if row is None else int(row[0])

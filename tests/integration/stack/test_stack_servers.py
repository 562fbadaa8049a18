"""Each embedded server starts, answers, keeps its data over a restart and leaves no process behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from confluent_kafka.admin import AdminClient, NewTopic

from plantwire.stack.errors import StackError
from plantwire.stack.health import probe_database, probe_kafka, probe_mqtt, probe_redis
from plantwire.stack.ports import free_ports, is_free
from plantwire.stack.servers import postgres_program
from plantwire.stack.servers.kafka import Kafka
from plantwire.stack.servers.postgres import Postgres
from plantwire.stack.servers.process import ServerProcess
from plantwire.stack.servers.redis import Redis

READY_TIMEOUT_S = 60
PASSWORD = "the-password-of-these-tests"


def _up(server: ServerProcess) -> None:
    server.prepare()
    server.start()
    server.wait_ready(READY_TIMEOUT_S)


def test_kafka_keeps_topics_over_a_restart(tmp_path: Path) -> None:
    port, controller_port = free_ports(2)
    kafka = Kafka(tmp_path / "kafka", port, controller_port, tmp_path / "kafka.log")
    _up(kafka)
    try:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        admin.create_topics([NewTopic("kept", num_partitions=2)])["kept"].result(10)
        kafka.stop()
        assert is_free(port)
        _up(kafka)
        assert probe_kafka(kafka.bootstrap, frozenset({"kept"})) is None
        assert probe_kafka(kafka.bootstrap, frozenset({"kept", "never-made"})) == "topics missing: never-made"
    finally:
        kafka.stop()
    assert kafka.pid is None


def _postgres(tmp_path: Path, password: str = PASSWORD) -> Postgres:
    return Postgres(tmp_path / "postgres", free_ports(1)[0], tmp_path / "postgres.log", password)


def test_postgres_has_role_and_database_and_keeps_rows(tmp_path: Path) -> None:
    postgres = _postgres(tmp_path)
    _up(postgres)
    try:
        with psycopg.connect(postgres.url) as connection:
            connection.execute("CREATE TABLE kept (n int)")
            connection.execute("INSERT INTO kept VALUES (7)")
        postgres.stop()
        _up(postgres)
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
    finally:
        postgres.stop()
    assert probe_database(postgres.url) is not None


def test_postgres_takes_its_role_with_the_password_only(tmp_path: Path) -> None:
    postgres = _postgres(tmp_path)
    _up(postgres)
    try:
        for user, password, database, refusal in [
            ("plantwire", "", "plantwire", "no password supplied"),
            ("plantwire", "wrong", "plantwire", "password authentication failed"),
            ("plantwire", PASSWORD, "postgres", "no pg_hba.conf entry"),
            ("postgres", PASSWORD, "plantwire", "no pg_hba.conf entry"),
        ]:
            address = f"host=127.0.0.1 port={postgres.port} user={user} dbname={database}"
            with pytest.raises(psycopg.OperationalError, match=refusal):
                psycopg.connect(address, password=password)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls "
                "FROM pg_roles WHERE rolname = current_user"
            )
            assert found.fetchone() == (False,) * 5
            connection.execute("CREATE TABLE mine (n int)")
            for statement in (
                "COPY mine TO PROGRAM 'id'",
                "COPY mine FROM '/etc/passwd'",
                "CREATE ROLE other",
                "SELECT pg_read_file('/etc/passwd')",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
    finally:
        postgres.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_postgres_has_no_capability_and_is_not_root(tmp_path: Path) -> None:
    postgres = _postgres(tmp_path)
    _up(postgres)
    try:
        lines = Path(f"/proc/{postgres.pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        assert set(status["Uid"].split()) == {str((tmp_path / "postgres").stat().st_uid)} != {"0"}
        sets = [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")]
        if os.geteuid() == 0:
            assert sets == [0, 0, 0, 0]
            assert status["NoNewPrivs"].strip() == "1"
    finally:
        postgres.stop()


def test_postgres_takes_a_new_password_and_keeps_rows(tmp_path: Path) -> None:
    postgres = _postgres(tmp_path)
    _up(postgres)
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    postgres.stop()
    odd = _postgres(tmp_path, "it's an odd one/\\@%")
    _up(odd)
    try:
        with psycopg.connect(odd.url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    finally:
        odd.stop()
    assert PASSWORD not in (tmp_path / "postgres.log").read_text()


def test_postgres_of_an_earlier_version_is_one_clear_line(tmp_path: Path) -> None:
    postgres = _postgres(tmp_path)
    postgres.prepare()
    (tmp_path / "postgres" / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n")
    with pytest.raises(StackError, match="earlier version, whose database asked for no password"):
        postgres.prepare()


def test_postgres_leaves_nothing_half_made_and_nothing_of_others(tmp_path: Path) -> None:
    left = tmp_path / "postgres.new"
    left.mkdir()
    (left / "PG_VERSION").write_text("18\n")
    postgres = _postgres(tmp_path)
    postgres.prepare()
    assert not left.exists()
    foreign = tmp_path / "foreign"
    (foreign / "postgres").mkdir(parents=True)
    (foreign / "postgres" / "mine.txt").write_text("not Plantwire's")
    with pytest.raises(StackError, match="not PostgreSQL's"):
        _postgres(foreign).prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")
def test_postgres_runs_for_root_from_an_environment_that_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    for part in postgres_program.PARTS:
        shutil.copytree(postgres_program._installed() / part, closed / part, symlinks=True)
    closed.chmod(0o700)
    monkeypatch.setattr(postgres_program, "_installed", lambda: closed)
    # Not in tmp_path, which is closed to others itself.
    with tempfile.TemporaryDirectory() as public:
        Path(public).chmod(0o755)
        monkeypatch.setattr(postgres_program, "PUBLIC_CACHE", Path(public) / "plantwire")
        postgres = _postgres(tmp_path)
        _up(postgres)
        try:
            assert psutil.Process(postgres.pid).exe().startswith(public)
            copies = list((Path(public) / "plantwire").iterdir())
            postgres_program.make_readable()
            assert list((Path(public) / "plantwire").iterdir()) == copies
        finally:
            postgres.stop()


def test_redis_keeps_data_over_an_orderly_stop_only(tmp_path: Path) -> None:
    server = Redis(tmp_path / "redis", *free_ports(1), tmp_path / "redis.log")
    _up(server)
    try:
        with redis.Redis.from_url(server.url) as client:
            client.set("epoch", "1")
            server.stop()
            _up(server)
            assert client.get("epoch") == b"1"
            client.set("seq:device:press-1", "7")
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            server.clear_away()
            _up(server)
            # Not the state of the orderly stop either: its sequence would go back under the same epoch.
            assert client.dbsize() == 0
    finally:
        server.stop()
    assert probe_redis(server.url) is not None


async def test_mqtt_carries_a_message(mqtt_url: str) -> None:
    import aiomqtt

    port = int(mqtt_url.rpartition(":")[2])
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("devices/+/telemetry", qos=1)
        await client.publish("devices/press-1/telemetry", b"{}", qos=1)
        message = await asyncio.wait_for(anext(client.messages), 10)
    assert (str(message.topic), message.payload) == ("devices/press-1/telemetry", b"{}")


@pytest.mark.parametrize("probe", [probe_kafka, probe_redis, probe_mqtt, probe_database])
def test_a_probe_says_why_where_nothing_listens(probe) -> None:  # type: ignore[no-untyped-def]
    (port,) = free_ports(1)
    address = {
        probe_kafka: f"127.0.0.1:{port}",
        probe_redis: f"redis://127.0.0.1:{port}/0",
        probe_mqtt: f"mqtt://127.0.0.1:{port}",
        probe_database: f"postgresql://plantwire@127.0.0.1:{port}/plantwire",
    }[probe]
    reason = probe(address)
    assert reason is not None
    assert str(port) in reason


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    first = Redis(tmp_path / "first", port, tmp_path / "first.log")
    second = Redis(tmp_path / "second", port, tmp_path / "second.log")
    _up(first)
    try:
        second.prepare()
        second.start()
        second._process.wait(30)  # type: ignore[union-attr]
        with pytest.raises(
            StackError, match=r"redis did not start: it ended with exit code 1\..*second\.log"
        ):
            second.wait_ready(30)
    finally:
        second.stop()
        first.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
@pytest.mark.parametrize("kind", ["redis.Redis", "postgres.Postgres", "mqtt.Mqtt"])
def test_a_server_dies_with_a_killed_parent(tmp_path: Path, kind: str) -> None:
    module, name = kind.split(".")
    (port,) = free_ports(1)
    more = [PASSWORD] if name == "Postgres" else []
    program = f"""
        from pathlib import Path
        from plantwire.stack.servers.{module} import {name}
        server = {name}(Path({str(tmp_path / "data")!r}), {port}, Path({str(tmp_path / "log")!r}), *{more})
        server.prepare(); server.start(); server.wait_ready(60)
        print(server.pid, flush=True)
        input()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    server = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    parent.stdin.close()
    gone, alive = psutil.wait_procs([server], timeout=10)
    assert not alive, gone
    assert is_free(port)

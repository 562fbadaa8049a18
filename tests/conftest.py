"""Real servers for the tests, each started once per session on a free port, in a temporary folder.

They are the embedded servers of the stack itself, so every run proves those too.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from plantwire.stack.flink_jobs import FlinkJobs
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.flink import JobManager, TaskManager
from plantwire.stack.servers.flink_installation import FlinkInstallation
from plantwire.stack.servers.kafka import Kafka
from plantwire.stack.servers.mqtt import Mqtt
from plantwire.stack.servers.postgres import Postgres
from plantwire.stack.servers.process import ServerProcess
from plantwire.stack.servers.redis import Redis

READY_TIMEOUT_S = 60


S = TypeVar("S", bound=ServerProcess)


@contextmanager
def running(server: S) -> Iterator[S]:
    """The server, ready; stopped at the end."""
    server.prepare()
    server.start()
    try:
        server.wait_ready(READY_TIMEOUT_S)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def servers_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's servers keep data and logs."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def kafka_bootstrap(servers_home: Path) -> Iterator[str]:
    """`host:port` of a Kafka broker without topics (auto-creation is off)."""
    port, controller_port = free_ports(2)
    kafka = Kafka(servers_home / "kafka", port, controller_port, servers_home / "kafka.log")
    with running(kafka):
        yield kafka.bootstrap


@pytest.fixture(scope="session")
def redis_url(servers_home: Path) -> Iterator[str]:
    """URL of a Redis server that all tests share: use your own keys, or flush it first."""
    redis = Redis(servers_home / "redis", *free_ports(1), servers_home / "redis.log")
    with running(redis):
        yield redis.url


@pytest.fixture(scope="session")
def mqtt_url(servers_home: Path) -> Iterator[str]:
    """`mqtt://host:port` of a broker that takes anyone."""
    mqtt = Mqtt(servers_home / "mqtt", *free_ports(1), servers_home / "mqtt.log")
    with running(mqtt):
        yield mqtt.url


@pytest.fixture(scope="session")
def database_url(servers_home: Path) -> Iterator[str]:
    """URL of an empty PostgreSQL database, with its password."""
    password = secrets.token_urlsafe(32)
    postgres = Postgres(servers_home / "postgres", *free_ports(1), servers_home / "postgres.log", password)
    with running(postgres):
        yield postgres.url


@dataclass(frozen=True)
class FlinkCluster:
    """A session cluster: where its REST is, and how jobs get there (`jobs.submit`, `jobs.stop`)."""

    rest: str
    jobs: FlinkJobs
    task_managers: tuple[TaskManager, ...]


@pytest.fixture(scope="session")
def flink_cluster(servers_home: Path) -> Iterator[FlinkCluster]:
    """A JobManager and two TaskManagers of one slot each, with our flink-conf/."""
    rest_port, rpc_port = free_ports(2)
    folder = servers_home / "flink"
    installation = FlinkInstallation(folder, folder / "logs", rest_port, rpc_port)
    manager = JobManager(installation, rest_port, folder / "jobmanager.out")
    workers = tuple(TaskManager(installation, n, {}, folder / f"taskmanager-{n}.out") for n in (1, 2))
    manager.prepare()
    with ExitStack() as ending:
        for server in (manager, *workers):
            ending.callback(server.stop)
            server.start()
        for server in (manager, *workers):
            server.wait_ready(READY_TIMEOUT_S)
        jobs = FlinkJobs(installation, installation.rest, folder / "jobs.json")
        yield FlinkCluster(installation.rest, jobs, workers)

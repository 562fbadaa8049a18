"""Which parts the stack has, what each is told, and what each needs first: the composition root.

In: settings and the token key. Out: parts with their needs. Nothing is started here.
Not here: how a part works (servers/, parts.py), who starts it (supervisor.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from plantwire.stack.flink_jobs import FlinkJobs
from plantwire.stack.health import probe_database, probe_flink, probe_kafka, probe_mqtt, probe_redis
from plantwire.stack.parts import ExternalServer, Job, Part, Rules, Service, Simulator, Topics
from plantwire.stack.servers.flink import JobManager, TaskManager
from plantwire.stack.servers.flink_installation import FlinkInstallation
from plantwire.stack.servers.kafka import Kafka
from plantwire.stack.servers.mqtt import Mqtt
from plantwire.stack.servers.postgres import Postgres
from plantwire.stack.servers.redis import Redis
from plantwire.stack.settings import PROJECT, StackSettings

JOBS = ("alarm-detection", "live-state")
JOBS_SCRIPT = PROJECT / "plantwire" / "jobs" / "main.py"

Assembly = list[tuple[Part, frozenset[str]]]


def assemble(settings: StackSettings, secret: str | None, *, simulator: bool) -> Assembly:
    """Every part with the names of those that must be well before it starts.

    `secret` may be None where nothing is started (status only asks).
    """
    home, logs = settings.home, settings.home / "logs"
    addresses = settings.addresses()
    variables = settings.variables()
    trusted = variables if secret is None else {**variables, "PLANTWIRE_TOKEN_SECRET": secret}
    ports = (settings.kafka_port, settings.kafka_controller_port)

    def server(name: str, own: Callable[[], Part], probe: Callable[[], str | None]) -> Part:
        return ExternalServer(name, probe) if settings.is_external(name) else own()

    kafka = server(
        "kafka",
        lambda: Kafka(home / "kafka", *ports, logs / "kafka.log"),
        partial(probe_kafka, addresses.kafka),
    )
    redis = server(
        "redis",
        lambda: Redis(home / "redis", settings.redis_port, logs / "redis.log"),
        partial(probe_redis, addresses.redis),
    )
    database = server(
        "database",
        lambda: Postgres(home / "postgres", settings.database_port, logs / "postgres.log"),
        partial(probe_database, addresses.database),
    )
    mqtt = server(
        "mqtt",
        lambda: Mqtt(home / "mqtt", settings.mqtt_port, logs / "mqtt.log"),
        partial(probe_mqtt, addresses.mqtt),
    )
    flink, workers, jobs = _flink(settings)
    gateway = Service("gateway", "plantwire.gateway", settings.gateway_port, trusted, logs / "gateway.log")
    distribution = Service(
        "distribution",
        "plantwire.distribution",
        settings.distribution_port,
        trusted,
        logs / "distribution.log",
    )
    nothing: frozenset[str] = frozenset()
    parts: Assembly = [(part, nothing) for part in (kafka, redis, database, mqtt, *flink)]
    parts.append((Topics(addresses.kafka), frozenset({kafka.name})))
    parts.append((Rules(addresses.kafka, PROJECT / "rules"), frozenset({"topics"})))
    parts.append((gateway, frozenset({"topics", mqtt.name})))
    parts.append((distribution, frozenset({"topics", redis.name})))
    # The jobs take the rules along when they are submitted, and a slot each.
    job_needs = frozenset({"rules", redis.name, flink[0].name, *workers[: len(JOBS)]})
    parts += [(job, job_needs) for job in jobs]
    if simulator:
        device = Simulator(trusted, logs / "simulator.log")
        parts.append((device, frozenset({"gateway", *(job.name for job in jobs)})))
    return parts


def flink_installation(settings: StackSettings) -> FlinkInstallation:
    """The cluster's files: HOME/flink, with logs in HOME/logs/flink."""
    home = settings.home
    return FlinkInstallation(
        home / "flink", home / "logs" / "flink", settings.flink_port, settings.flink_rpc_port
    )


def flink_jobs(settings: StackSettings, installation: FlinkInstallation) -> FlinkJobs:
    """The cluster's jobs, with the memory of where each goes on from."""
    return FlinkJobs(installation, settings.addresses().flink, settings.home / "flink" / "jobs.json")


def _flink(settings: StackSettings) -> tuple[list[Part], list[str], list[Job]]:
    """The cluster's parts (the one to ask first), the names of its TaskManagers, and the jobs."""
    logs = settings.home / "logs"
    addresses, variables = settings.addresses(), settings.variables()
    installation = flink_installation(settings)
    parts: list[Part]
    workers: list[str] = []
    if settings.is_external("flink"):
        slots = len(JOBS)
        parts = [ExternalFlink(installation, partial(probe_flink, addresses.flink, slots))]
    else:
        numbers = range(1, len(JOBS) + settings.flink_spare_task_managers + 1)
        managers = [
            TaskManager(installation, number, variables, logs / f"taskmanager-{number}.log")
            for number in numbers
        ]
        workers = [manager.name for manager in managers]
        parts = [JobManager(installation, settings.flink_port, logs / "jobmanager.log"), *managers]
    known = flink_jobs(settings, installation)
    jobs = [
        Job(
            name,
            known,
            JOBS_SCRIPT,
            variables,
            settings.savepoint_timeout_s,
            installation.logs / f"submit-{name}.log",
        )
        for name in JOBS
    ]
    return parts, workers, jobs


class ExternalFlink(ExternalServer):
    """Someone else's cluster; the local installation is its client."""

    def __init__(self, installation: FlinkInstallation, probe: Callable[[], str | None]) -> None:
        super().__init__("flink", probe)
        self._installation = installation

    def prepare(self) -> None:
        self._installation.prepare()

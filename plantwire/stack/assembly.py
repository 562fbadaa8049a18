"""Which parts the stack has, what each is told, and what each needs first: the composition root.

In: settings and secrets. Out: parts with their needs. Nothing is started here.
Not here: how a part works (servers/, parts.py), who starts it (supervisor.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from pydantic import SecretStr

from plantwire.stack.environment import grant, secrets_here
from plantwire.stack.errors import StackError
from plantwire.stack.flink_jobs import FlinkJobs
from plantwire.stack.health import probe_database, probe_flink, probe_kafka, probe_mqtt, probe_redis
from plantwire.stack.parts import Export, ExternalServer, Job, Part, Rules, Service, Simulator, Topics
from plantwire.stack.secret import Secrets
from plantwire.stack.servers.flink import JobManager, TaskManager
from plantwire.stack.servers.flink_installation import FlinkInstallation
from plantwire.stack.servers.kafka import Kafka
from plantwire.stack.servers.mqtt import Mqtt
from plantwire.stack.servers.postgres import Postgres
from plantwire.stack.servers.redis import Redis
from plantwire.stack.settings import LIGHT, PROJECT, StackSettings

JOBS = ("alarm-detection", "live-state", "telemetry-aggregation")
SCORING_JOB = "anomaly-scoring"
PATTERNS_JOB = "telemetry-patterns"
JOBS_SCRIPT = PROJECT / "plantwire" / "jobs" / "main.py"

Assembly = list[tuple[Part, frozenset[str]]]


def assemble(settings: StackSettings, secrets: Secrets, *, simulator: bool) -> Assembly:
    """Every part with the names of those that must be well before it starts, and what it is told."""
    home, logs = settings.home, settings.home / "logs"
    addresses = settings.addresses()
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
        lambda: _postgres(settings, secrets),
        partial(probe_database, addresses.database),
    )
    mqtt = server(
        "mqtt",
        lambda: Mqtt(home / "mqtt", settings.mqtt_port, logs / "mqtt.log"),
        partial(
            probe_mqtt,
            addresses.mqtt,
            settings.mqtt_username,
            _shown(settings.mqtt_password),
            settings.mqtt_tls_ca,
        ),
    )
    told = _told(settings, secrets)
    flink, engine = _light(settings, told) if settings.engine == LIGHT else _flink(settings, told)
    gateway = Service(
        "gateway",
        "plantwire.gateway",
        settings.gateway_port,
        grant(told, "PLANTWIRE_TOKEN_SECRET", "PLANTWIRE_MQTT", "PLANTWIRE_MQTT_PASSWORD"),
        logs / "gateway.log",
    )
    distribution = Service(
        "distribution",
        "plantwire.distribution",
        settings.distribution_port,
        grant(told, "PLANTWIRE_TOKEN_SECRET", "PLANTWIRE_REDIS", "PLANTWIRE_DATABASE"),
        logs / "distribution.log",
    )
    storage = Service(
        "storage",
        "plantwire.storage",
        settings.storage_port,
        grant(told, "PLANTWIRE_DATABASE"),
        logs / "storage.log",
    )
    nothing: frozenset[str] = frozenset()
    parts: Assembly = [(part, nothing) for part in (kafka, redis, database, mqtt, *flink)]
    parts.append((Topics(addresses.kafka), frozenset({kafka.name})))
    parts.append((Rules(addresses.kafka, PROJECT / "rules"), frozenset({"topics"})))
    parts.append((gateway, frozenset({"topics", mqtt.name})))
    parts.append((distribution, frozenset({"topics", redis.name})))
    parts.append((storage, frozenset({"topics", database.name})))
    if settings.influx_url is not None:
        influx = Export(
            "influx",
            "plantwire.storage.influx",
            settings.influx_status_port,
            grant(told, "PLANTWIRE_INFLUX_TOKEN", "PLANTWIRE_INFLUX_PASSWORD"),
            logs / "influx.log",
        )
        parts.append((influx, frozenset({"topics"})))
    # Both engines take up the rules when they start.
    parts += [(part, needs | {"rules", redis.name}) for part, needs in engine]
    if simulator:
        variables = grant(
            told, "PLANTWIRE_TOKEN_SECRET", "PLANTWIRE_TOKEN", "PLANTWIRE_MQTT", "PLANTWIRE_MQTT_PASSWORD"
        )
        device = Simulator(variables, logs / "simulator.log")
        parts.append((device, frozenset({"gateway", *(part.name for part, _ in engine)})))
    return parts


def job_names(settings: StackSettings) -> tuple[str, ...]:
    """The jobs, in the order in which they take their slots."""
    wanted = {SCORING_JOB: settings.scoring_file, PATTERNS_JOB: settings.patterns}
    return (*JOBS, *(name for name, file in wanted.items() if file is not None))


def flink_installation(settings: StackSettings) -> FlinkInstallation:
    """The cluster's files: HOME/flink, with logs in HOME/logs/flink."""
    home = settings.home
    return FlinkInstallation(
        home / "flink", home / "logs" / "flink", settings.flink_port, settings.flink_rpc_port
    )


def flink_jobs(settings: StackSettings, installation: FlinkInstallation) -> FlinkJobs:
    """The cluster's jobs, with the memory of where each goes on from."""
    return FlinkJobs(installation, settings.addresses().flink, settings.home / "flink" / "jobs.json")


def database_url(settings: StackSettings, secrets: Secrets) -> str:
    """Where the telemetry's database is, with the password of ours."""
    return settings.addresses().database if secrets.database is None else _postgres(settings, secrets).url


def _postgres(settings: StackSettings, secrets: Secrets) -> Postgres:
    if secrets.database is None:
        raise StackError("The embedded database has no password")
    folder, log_file = settings.home / "postgres", settings.home / "logs" / "postgres.log"
    return Postgres(folder, settings.database_port, log_file, secrets.database)


def _told(settings: StackSettings, secrets: Secrets) -> dict[str, str]:
    """Everything that some process has to know; none is told all of it."""
    told = {**secrets_here(), **settings.variables()}
    if secrets.token is not None:
        told["PLANTWIRE_TOKEN_SECRET"] = secrets.token
    if not settings.is_external("database"):
        told["PLANTWIRE_DATABASE"] = database_url(settings, secrets)
    return told


def _shown(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _light(settings: StackSettings, told: Mapping[str, str]) -> tuple[list[Part], Assembly]:
    """No servers, and the light engine's processes, by the names of the jobs whose work they do."""
    ports = {"alarm-detection": settings.light_detection_port, "live-state": settings.light_live_port}
    variables = grant(told, "PLANTWIRE_REDIS")
    processes: Assembly = [
        (
            Service(name, "plantwire.light", port, variables, settings.home / "logs" / f"{name}.log", [name]),
            frozenset(),
        )
        for name, port in ports.items()
    ]
    return [], processes


def _flink(settings: StackSettings, told: Mapping[str, str]) -> tuple[list[Part], Assembly]:
    """The cluster's parts, and the jobs, with what of it each needs."""
    logs = settings.home / "logs"
    addresses = settings.addresses()
    installation = flink_installation(settings)
    parts: list[Part]
    workers: list[str] = []
    names = job_names(settings)
    if settings.is_external("flink"):
        parts = [ExternalFlink(installation, partial(probe_flink, addresses.flink, len(names)))]
    else:
        numbers = range(1, len(names) + settings.flink_spare_task_managers + 1)
        managers = [
            TaskManager(installation, number, grant(told), logs / f"taskmanager-{number}.log")
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
            grant(told, "PLANTWIRE_REDIS", "PLANTWIRE_DATABASE"),
            settings.savepoint_timeout_s,
            installation.logs / f"submit-{name}.log",
        )
        for name in names
    ]
    # A slot each.
    cluster = frozenset({parts[0].name, *workers[: len(jobs)]})
    return parts, [(job, cluster) for job in jobs]


class ExternalFlink(ExternalServer):
    """Someone else's cluster; the local installation is its client."""

    def __init__(self, installation: FlinkInstallation, probe: Callable[[], str | None]) -> None:
        super().__init__("flink", probe)
        self._installation = installation

    def prepare(self) -> None:
        self._installation.prepare()

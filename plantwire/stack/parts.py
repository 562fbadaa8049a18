"""The parts of the stack that are not servers: external servers, topics, rules, services, jobs.

Every part, server or not, has one interface, so that the supervisor treats all alike: `prepare` makes what
it needs (may take seconds, runs in a worker thread), `start` returns at once, `probe` tells whether it does
its work, `ended` whether it has to be started anew, `stop` ends it.
Not here: which parts there are and what each needs (assembly.py), and their lives (child.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from plantwire.platform.rule_topic import publish_rules, read_rules
from plantwire.platform.topic_reader import TopicError
from plantwire.schemas.rule_files import Refused
from plantwire.schemas.topics import TOPICS
from plantwire.stack.errors import StackError
from plantwire.stack.flink_jobs import FlinkJobs
from plantwire.stack.health import probe_http, probe_kafka, silent_logger
from plantwire.stack.rule_plan import plan_rules
from plantwire.stack.rule_sources import load_rules
from plantwire.stack.servers.process import ServerProcess

KAFKA_TIMEOUT_S = 15.0
TOPIC_NAMES = frozenset(topic.name for topic in TOPICS)


class Part(Protocol):
    """What the supervisor knows of a part."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def port(self) -> int | None:
        """The port that it listens on, where there is one."""

    @property
    def log_file(self) -> Path | None:
        """Where it, or its submission, writes what happens."""

    @property
    def probe_interval_s(self) -> float:
        """How often to ask `probe` while it is well."""

    @property
    def pid(self) -> int | None:
        """The process id, where the part is a process that runs."""

    def prepare(self) -> None:
        """Make what the part needs; raises StackError with advice. Safe to repeat."""

    def start(self) -> None:
        """Start; returns at once."""

    def probe(self) -> str | None:
        """None when it does its work, else why not."""

    def ended(self) -> str | None:
        """How it ended, so that it has to be started again; None while it lives."""

    def clear_away(self) -> None:
        """Remove what is left of one that ended by itself, before it is started again."""

    def stop(self) -> None:
        """End it; returns when it is gone. Safe to repeat, and when it never started."""


class Fixture:
    """A part without a process: the base of those below."""

    port: int | None = None
    log_file: Path | None = None
    probe_interval_s = 5.0
    pid: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self) -> None:
        """Nothing to make."""

    def start(self) -> None:
        """Nothing to start."""

    def ended(self) -> str | None:
        """It does not end."""
        return None

    def clear_away(self) -> None:
        """Nothing is left."""

    def stop(self) -> None:
        """Nothing to stop."""


class ExternalServer(Fixture):
    """A server that someone else runs: asked, never started or stopped."""

    def __init__(self, name: str, probe: Callable[[], str | None]) -> None:
        super().__init__(name)
        self._probe = probe

    def probe(self) -> str | None:
        return self._probe()


class Topics(Fixture):
    """The Kafka topics; missing ones are made, existing ones left as they are."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__("topics")
        self._bootstrap = bootstrap

    def prepare(self) -> None:
        admin = AdminClient({"bootstrap.servers": self._bootstrap}, logger=silent_logger)
        wanted = [
            NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=-1,  # the broker's default: 1 for ours, more for a cluster
                config={"cleanup.policy": "compact"}
                if topic.compacted
                else {"cleanup.policy": "delete", "retention.ms": str(topic.retention_ms)},
            )
            for topic in TOPICS
        ]
        for name, made in admin.create_topics(wanted, request_timeout=KAFKA_TIMEOUT_S).items():
            try:
                made.result(KAFKA_TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise StackError(f"Kafka cannot make the topic {name}: {error.args[0].str()}") from None

    def probe(self) -> str | None:
        return probe_kafka(self._bootstrap, TOPIC_NAMES)


class Rules(Fixture):
    """The rules of the project's rules/ folder, published when the topic has none yet."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        super().__init__("rules")
        self._bootstrap = bootstrap
        self._folder = folder

    def prepare(self) -> None:
        try:
            in_force = read_rules(self._bootstrap, KAFKA_TIMEOUT_S)
            if in_force or not any(self._folder.glob("*.y*ml")):
                return
            wanted = load_rules([self._folder])
            if isinstance(wanted, Refused):
                raise StackError("; ".join(str(problem) for problem in wanted.problems))
            plan = plan_rules(in_force, wanted, prune=False)
            publish_rules(self._bootstrap, [change.rule for change in plan.changes], KAFKA_TIMEOUT_S)
        except TopicError as error:
            raise StackError(f"The alarm rules cannot be published: {error}") from None

    def probe(self) -> str | None:
        return None


class Service(ServerProcess):
    """A process of the project with `/readyz`: the gateway, the distribution. `words` go on its command
    line.
    """

    stop_timeout_s = 15.0

    def __init__(
        self,
        name: str,
        module: str,
        port: int,
        variables: Mapping[str, str],
        log_file: Path,
        words: Sequence[str] = (),
    ) -> None:
        super().__init__(name, port, log_file)
        self.url = f"http://127.0.0.1:{port}"
        self._module = module
        self._words = tuple(words)
        self._variables = dict(variables)

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", self._module, *self._words]

    def environment(self) -> Mapping[str, str]:
        return self._variables

    def probe(self) -> str | None:
        return probe_http(f"{self.url}/readyz")


class Export(Service):
    """A service that writes to a server of someone else's: the stack's start does not wait for that server,
    but the health tells of it.
    """

    _answered = True

    def start(self) -> None:
        self._answered = False
        super().start()

    def probe(self) -> str | None:
        if self._answered:
            return super().probe()
        reason = probe_http(f"{self.url}/healthz")
        self._answered = reason is None
        return reason


class Simulator(ServerProcess):
    """The simulated plant; it is well while it runs (it counts and reports a gateway that is away)."""

    def __init__(self, variables: Mapping[str, str], log_file: Path) -> None:
        super().__init__("simulator", None, log_file)
        self._variables = dict(variables)

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "plantwire.stack.cli", "simulate"]

    def environment(self) -> Mapping[str, str]:
        return self._variables

    def probe(self) -> str | None:
        return None


class Job(Fixture):
    """A Flink job, submitted where it left off, and again when the cluster has lost it."""

    probe_interval_s = 1.0

    def __init__(
        self,
        name: str,
        jobs: FlinkJobs,
        script: Path,
        variables: Mapping[str, str],
        savepoint_timeout_s: float,
        log_file: Path,
    ) -> None:
        super().__init__(name)
        self.log_file = log_file
        self._jobs = jobs
        self._script = script
        self._variables = dict(variables)
        self._savepoint_timeout_s = savepoint_timeout_s
        self._ended: str | None = None
        self._supervised = False

    def prepare(self) -> None:
        self._supervised = True
        job = self._jobs.find(self.name)
        if isinstance(job, dict):
            self._jobs.adopt(self.name, job)
        elif job is None:
            self._jobs.submit(self.name, self._script, [self.name], self._variables)
        self._ended = None

    def probe(self) -> str | None:
        job = self._jobs.find(self.name)
        if isinstance(job, str):
            return job
        if job is None:
            self._ended = f"{self.name} is not among Flink's running jobs"
            return self._ended
        if self._supervised:  # others who ask change nothing
            self._jobs.adopt(self.name, job)
        tasks = job["tasks"]
        # A task that reads something once, when the job starts, is finished soon.
        if job["state"] == "RUNNING" and tasks["running"] + tasks["finished"] == tasks["total"]:
            return None
        return f"{job['state'].lower()}, {tasks['running']} of {tasks['total']} tasks run"

    def ended(self) -> str | None:
        return self._ended

    def stop(self) -> None:
        self._jobs.stop(self.name, self._savepoint_timeout_s)

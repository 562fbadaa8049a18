"""A Flink cluster, Kafka and Redis of their own, with the production jobs on them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import plantwire.jobs.main
from plantwire.platform.rule_topic import publish_rules
from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC, FRAME_CODEC
from plantwire.schemas.records import QUALITY_GOOD, AlarmEvent, AlarmRule, Metric, TelemetryFrame
from plantwire.stack.flink_jobs import FlinkJobs
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.flink import JobManager, TaskManager
from plantwire.stack.servers.flink_installation import FlinkInstallation
from plantwire.stack.servers.kafka import Kafka
from plantwire.stack.servers.process import ServerProcess
from plantwire.stack.servers.redis import Redis

READY_TIMEOUT_S = 90
MAIN = Path(plantwire.jobs.main.__file__)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Cluster:
    """Handles for a test: send frames, publish rules, read alarms, stop and resume jobs."""

    def __init__(self, home: Path) -> None:
        ports = free_ports(5)
        self.kafka = Kafka(home / "kafka", ports[0], ports[1], home / "kafka.log")
        self.redis_server = Redis(home / "redis", ports[2], home / "redis.log")
        self._installation = FlinkInstallation(home / "flink", home / "logs", ports[3], ports[4])
        self._variables = {
            "PLANTWIRE_KAFKA": self.kafka.bootstrap,
            "PLANTWIRE_REDIS": self.redis_server.url,
            "PLANTWIRE_LIVE_INTERVAL_MS": "300",
        }
        self.job_manager = JobManager(self._installation, ports[3], home / "jobmanager.log")
        self._home = home
        self.task_managers = [self._task_manager(number) for number in (1, 2)]
        self.jobs = FlinkJobs(self._installation, self._installation.rest, home / "jobs.json")

    @property
    def servers(self) -> list[ServerProcess]:
        return [self.kafka, self.redis_server, self.job_manager, *self.task_managers]

    def start(self) -> None:
        for server in self.servers:
            server.prepare()
            server.start()
        for server in self.servers:
            server.wait_ready(READY_TIMEOUT_S)
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        made = admin.create_topics([NewTopic(t.name, t.partitions, 1) for t in topics.TOPICS])
        for future in made.values():
            future.result(30)
        self._producer = Producer({"bootstrap.servers": self.kafka.bootstrap, "linger.ms": 0})
        self.redis = redis.Redis.from_url(self.redis_server.url, decode_responses=True)

    def stop(self) -> None:
        for server in reversed(self.servers):
            server.stop()

    def add_task_manager(self) -> TaskManager:
        """One more slot."""
        added = self._task_manager(len(self.task_managers) + 1)
        self.task_managers.append(added)
        added.start()
        added.wait_ready(READY_TIMEOUT_S)
        return added

    def _task_manager(self, number: int) -> TaskManager:
        log_file = self._home / f"taskmanager-{number}.log"
        return TaskManager(self._installation, number, self._variables, log_file)

    def submit(self, job: str, variables: Mapping[str, str] | None = None) -> None:
        """Submit, resuming where the job left off, and wait until all its tasks run."""
        self.jobs.submit(job, MAIN, [job], {**self._variables, **(variables or {})})
        self.until(lambda: self.is_running(job), 60, f"{job} runs")

    def submit_from(self, savepoint: str, job: str) -> None:
        """Submit, resuming from a savepoint of whatever job, and wait until all its tasks run."""
        memory = self._home / "foreign.json"
        memory.write_text(json.dumps({job: {"savepoint": savepoint}}))
        FlinkJobs(self._installation, self._installation.rest, memory).submit(
            job, MAIN, [job], self._variables
        )
        self.until(lambda: self.is_running(job), 60, f"{job} runs")

    def is_running(self, job: str) -> bool:
        found = self.jobs.find(job)
        if not isinstance(found, dict):
            return False
        tasks = found.get("tasks", {})
        at_work = tasks.get("running", 0) + tasks.get("finished", 0)
        return found.get("state") == "RUNNING" and at_work == tasks.get("total") != 0

    def checkpoint(self, job: str) -> None:
        """A checkpoint of the job now, instead of within a minute."""
        checkpoints = f"{self._of_job(job)}/checkpoints"
        trigger = httpx.post(checkpoints, json={"checkpointType": "FULL"}).json()["request-id"]
        self.until(
            lambda: httpx.get(f"{checkpoints}/{trigger}").json()["status"]["id"] == "COMPLETED",
            30,
            f"a checkpoint of {job}",
        )

    def has_recovered(self, job: str) -> bool:
        """Whether the job has failed since it was submitted, and runs again from a checkpoint."""
        restored = httpx.get(f"{self._of_job(job)}/checkpoints").json()["latest"]["restored"]
        return restored is not None and not restored["is_savepoint"] and self.is_running(job)

    def worker_of(self, job: str) -> TaskManager:
        """The TaskManager that runs the job."""
        url = self._of_job(job)
        vertex = httpx.get(url).json()["vertices"][0]["id"]
        (subtask,) = httpx.get(f"{url}/vertices/{vertex}").json()["subtasks"]
        return next(worker for worker in self.task_managers if worker.name == subtask["taskmanager-id"])

    def counters(self, job: str) -> Counter[str]:
        """The job's own counters, summed over its operators. Flink reports them with some delay."""
        url = self._of_job(job)
        found: Counter[str] = Counter()
        for vertex in httpx.get(url).json()["vertices"]:
            metrics = f"{url}/vertices/{vertex['id']}/subtasks/metrics"
            names = [entry["id"] for entry in httpx.get(metrics).json() if ".plantwire." in entry["id"]]
            for start in range(0, len(names), 20):
                some = ",".join(names[start : start + 20])
                for entry in httpx.get(metrics, params={"get": some}).json():
                    found[entry["id"].rpartition(".")[2]] += int(entry["sum"])
        return found

    def _of_job(self, job: str) -> str:
        found = self.jobs.find(job)
        assert isinstance(found, dict), f"{job}: {found}"
        return f"{self.job_manager.url}/jobs/{found['jid']}"

    def publish_rules(self, *rules: AlarmRule) -> None:
        publish_rules(self.kafka.bootstrap, list(rules))

    def send(
        self,
        device_id: str,
        at_ms: int | None = None,
        historical: bool = False,
        quality: int = QUALITY_GOOD,
        edge_state: bytes = b"",
        **values: float | None,
    ) -> int:
        """Send a frame and wait for the broker; returns its event time."""
        at_ms = now_ms() if at_ms is None else at_ms
        frame = TelemetryFrame(
            device_id,
            "hall",
            None,
            at_ms,
            at_ms,
            "http",
            historical,
            tuple(Metric(name, value, quality=quality) for name, value in values.items()),
            at_ms * 1000,
            at_ms * 1000,
            edge_state,
        )
        self.send_bytes(device_id, FRAME_CODEC.encode(frame), at_ms)
        return at_ms

    def send_bytes(self, key: str | None, body: bytes | None, at_ms: int | None = None) -> None:
        """Put any bytes where frames are expected."""
        self.produce(topics.TELEMETRY_RAW, key, body, at_ms)

    def produce(self, topic: str, key: str | None, body: bytes | None, at_ms: int | None = None) -> None:
        """Write one record and wait for the broker."""
        errors: list[object] = []
        self._producer.produce(
            topic,
            body,
            key=key,
            timestamp=now_ms() if at_ms is None else at_ms,
            on_delivery=lambda error, _: errors.append(error and str(error)),
        )
        self._producer.flush(10)
        assert errors == [None]

    def produce_all(self, topic: str, records: Iterable[tuple[str | None, bytes | None, int]]) -> None:
        """Write records of (key, body, time in ms) at one go, and wait for the broker."""
        errors: list[object] = []
        for key, body, at_ms in records:
            self._producer.produce(
                topic,
                body,
                key=key,
                timestamp=at_ms,
                on_delivery=lambda error, _: error and errors.append(error),
            )
        assert self._producer.flush(20) == 0
        assert errors == []

    def read(self, topic: str) -> list[tuple[str | None, bytes, dict[str, bytes]]]:
        """All records of a topic up to its present end, as (key, body, headers)."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap,
                "group.id": "test-reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        try:
            partitions = consumer.list_topics(topic, 10).topics[topic].partitions
            consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
            open_partitions, records = set(partitions), []
            while open_partitions:
                message = consumer.poll(10)
                assert message is not None, f"{topic} was not read to its end"
                if message.error():
                    open_partitions.discard(message.partition())
                    continue
                key = message.key()
                headers = {name: value or b"" for name, value in message.headers() or []}
                records.append((key.decode() if key is not None else None, message.value() or b"", headers))
            return records
        finally:
            consumer.close()

    def alarms(self, device_id: str) -> list[AlarmEvent]:
        """A device's events in alarms.fire, each (alarm, revision) once, in order of appearance."""
        seen: dict[tuple[str, int], AlarmEvent] = {}
        for key, body, headers in self.read(topics.ALARMS_FIRE):
            if key == device_id:
                event = ALARM_CODEC.decode(body, headers[topics.HEADER_FINGERPRINT].decode())
                seen.setdefault((event.alarm_id, event.revision), event)
        return list(seen.values())

    def until(self, condition: Callable[[], object], timeout_s: float, what: str) -> None:
        """Poll until `condition` holds."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
            time.sleep(0.05)

    def wait_for_kinds(self, device_id: str, kinds: list[str], timeout_s: float = 20) -> list[AlarmEvent]:
        """The device's events once their kinds are `kinds`."""
        self.until(
            lambda: [e.kind for e in self.alarms(device_id)] == kinds, timeout_s, f"{device_id}: {kinds}"
        )
        return self.alarms(device_id)


@contextmanager
def running_cluster(home: Path) -> Iterator[Cluster]:
    cluster = Cluster(home)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()

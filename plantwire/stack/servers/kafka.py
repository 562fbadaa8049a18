"""Kafka: one KRaft node, broker and controller in one process, from Maven's jars.

In: a folder and two ports. Out: a broker on the loopback address. Guarantees: the log is kept between
starts; topics are made by us only (no auto-creation).
Not here: topics (stack/topics.py). Durability is that of one machine: an acknowledged record survives
kill -9 of the broker, and a power cut only as far as the page cache was written.
"""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path

from plantwire.stack import java
from plantwire.stack.commands import run_command
from plantwire.stack.errors import StackError
from plantwire.stack.health import probe_kafka
from plantwire.stack.ports import LOOPBACK
from plantwire.stack.servers.process import ServerProcess

FORMAT_TIMEOUT_S = 60

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# A broker that was killed is let in again only when its old session is over.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
log.segment.bytes=134217728
log.cleaner.dedupe.buffer.size=16777216
"""

LOGGING = """\
Configuration:
  status: WARN
  Appenders:
    Console:
      name: out
      PatternLayout:
        pattern: "%d %p %c{1}: %m%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        ref: out
    Logger:
      - name: kafka.server.KafkaRaftServer
        level: INFO
"""


class Kafka(ServerProcess):
    """The broker; `bootstrap` is its address."""

    def __init__(self, folder: Path, port: int, controller_port: int, log_file: Path) -> None:
        super().__init__("kafka", port, log_file)
        self.bootstrap = f"{LOOPBACK}:{port}"
        self._folder = folder
        self._controller_port = controller_port

    def prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        data = self._folder / "data"
        self._properties.write_text(
            PROPERTIES.format(host=LOOPBACK, port=self.port, controller_port=self._controller_port, data=data)
        )
        self._logging.write_text(LOGGING)
        if (data / "meta.properties").exists():
            java.jars("kafka")
            return
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # As one word: an id may begin with a dash.
        arguments = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c"]
        result = run_command(
            [*self._java("-Xmx128m", "-XX:TieredStopAtLevel=1"), *arguments, str(self._properties)],
            FORMAT_TIMEOUT_S,
        )
        if result.code != 0:
            reason = result.output.strip().splitlines()[-1:]
            raise StackError(f"Kafka's storage in {data} cannot be formatted: {' '.join(reason)}")

    def command(self) -> Sequence[str]:
        # G1 with a short pause target, as Kafka's own scripts have it: a pause is a latency of every alarm.
        memory = ("-Xms256m", "-Xmx512m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20")
        return [*self._java(*memory), "kafka.Kafka", str(self._properties)]

    def probe(self) -> str | None:
        return probe_kafka(self.bootstrap)

    def _java(self, *options: str) -> list[str]:
        return [
            java.java_executable(),
            *options,
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self._logging}",
            "-cp",
            f"{java.jars('kafka')}/*",
        ]

    @property
    def _properties(self) -> Path:
        return self._folder / "server.properties"

    @property
    def _logging(self) -> Path:
        return self._folder / "log4j2.yaml"

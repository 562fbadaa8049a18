"""The MQTT broker: HiveMQ Community Edition, from Maven's jars.

In: a folder and a port. Out: a broker on the loopback address that takes local clients without a password.
Guarantees: what it acknowledged for a persistent session is on disk until that session acknowledges it, over
kill -9 of the subscriber and of the broker itself; nothing outside of this machine reaches it, and it calls
nobody. A full queue drops the new message; the first hundred drops are logged.
Not here: TLS and credentials, which an external broker brings (setting PLANTWIRE_MQTT); the Java that starts
HiveMQ (jars/mqtt).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plantwire.stack import java
from plantwire.stack.health import probe_mqtt
from plantwire.stack.ports import LOOPBACK
from plantwire.stack.servers.process import ServerProcess

# Both bound the disk: a session that nobody comes back to keeps its queue until it expires.
QUEUE_MAX_MESSAGES = 1_000_000
SESSION_EXPIRY_S = 7 * 86_400
# Above the gateway's largest payload, so that the gateway can refuse with a reason; far below the heap.
PACKET_MAX_BYTES = 8 * 1024 * 1024

CONFIGURATION = """\
<?xml version="1.0"?>
<hivemq>
  <listeners>
    <tcp-listener><port>{port}</port><bind-address>{host}</bind-address></tcp-listener>
  </listeners>
  <mqtt>
    <queued-messages><max-queue-size>{queue}</max-queue-size><strategy>discard</strategy></queued-messages>
    <session-expiry><max-interval>{expiry}</max-interval></session-expiry>
    <packets><max-packet-size>{packet}</max-packet-size></packets>
  </mqtt>
  <persistence><mode>file</mode></persistence>
  <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
</hivemq>
"""

LOGGING = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %p %c{0}: %m%n%ex{short}</pattern></encoder>
  </appender>
  <!-- No message more often than that, or a full queue would fill the disk with its drops. -->
  <turboFilter class="ch.qos.logback.classic.turbo.DuplicateMessageFilter">
    <AllowedRepetitions>100</AllowedRepetitions>
  </turboFilter>
  <logger name="com.hivemq.embedded" level="INFO"/>
  <logger name="event.message-dropped" level="DEBUG"/>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
"""


class Mqtt(ServerProcess):
    """The broker; `url` is its address."""

    stop_timeout_s = 5.0

    def __init__(self, folder: Path, port: int, log_file: Path) -> None:
        super().__init__("mqtt", port, log_file)
        self.url = f"mqtt://{LOOPBACK}:{port}"
        self._folder = folder

    def prepare(self) -> None:
        configuration = self._folder / "conf"
        for folder in (configuration, self._folder / "data", self._folder / "extensions"):
            folder.mkdir(parents=True, exist_ok=True)
        (configuration / "config.xml").write_text(
            CONFIGURATION.format(
                port=self.port,
                host=LOOPBACK,
                queue=QUEUE_MAX_MESSAGES,
                expiry=SESSION_EXPIRY_S,
                packet=PACKET_MAX_BYTES,
            )
        )
        (configuration / "logback.xml").write_text(LOGGING)
        java.jars("mqtt")

    def command(self) -> Sequence[str]:
        # Small and quick to start rather than fast under a load that a plant never makes.
        memory = ("-Xms32m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        return [
            java.java_executable(),
            *memory,
            "-Djava.awt.headless=true",
            "-cp",
            f"{java.jars('mqtt')}/*",
            "plantwire.MqttBroker",
            str(self._folder),
        ]

    def probe(self) -> str | None:
        return probe_mqtt(self.url)

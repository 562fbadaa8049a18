"""The MQTT broker: mosquitto where it is on PATH, else amqtt as a process of its own.

In: a folder and a port. Out: a broker on the loopback address that takes local clients without a password.
Guarantees: nothing outside of this machine reaches it. Not here: TLS and credentials, which an external
broker brings (setting PLANTWIRE_MQTT).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from plantwire.stack.health import probe_mqtt
from plantwire.stack.ports import LOOPBACK
from plantwire.stack.servers.process import ServerProcess

MOSQUITTO_CONFIGURATION = """\
listener {port} {host}
allow_anonymous true
persistence false
max_queued_messages 10000
log_type error
log_type warning
log_type notice
connection_messages false
"""


class Mqtt(ServerProcess):
    """The broker; `url` is its address."""

    stop_timeout_s = 5.0

    def __init__(self, folder: Path, port: int, log_file: Path) -> None:
        super().__init__("mqtt", port, log_file)
        self.url = f"mqtt://{LOOPBACK}:{port}"
        self._folder = folder

    def prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "mosquitto.conf").write_text(
            MOSQUITTO_CONFIGURATION.format(port=self.port, host=LOOPBACK)
        )
        (self._folder / "amqtt.yaml").write_text(
            yaml.safe_dump(
                {
                    "listeners": {"default": {"type": "tcp", "bind": f"{LOOPBACK}:{self.port}"}},
                    "plugins": {
                        "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
                    },
                }
            )
        )

    def command(self) -> Sequence[str]:
        # Debian keeps daemons in /usr/sbin, which is not on everyone's PATH.
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
        if (mosquitto := shutil.which("mosquitto", path=path)) is not None:
            return [mosquitto, "-c", str(self._folder / "mosquitto.conf")]
        configuration = str(self._folder / "amqtt.yaml")
        return [sys.executable, "-m", "plantwire.stack.servers.amqtt_broker", configuration]

    def probe(self) -> str | None:
        return probe_mqtt(self.url)

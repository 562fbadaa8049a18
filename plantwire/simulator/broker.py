"""The MQTT broker of the simulated devices: where it is, and a connection that is kept up.

In: a URL and settings. Out: clients for it; a `BrokerLink` to publish by.
Guarantees: while the broker is away it is tried again with growing pauses; no password is logged.
Not here: what is published (`simulator.mqtt_outlet`, `simulator.lorawan`, `simulator.sparkplug`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
import time
from typing import Final
from urllib.parse import unquote, urlsplit

import aiomqtt
import structlog

from plantwire.simulator.outlet import Accepted, Dropped, Gate, Outcome
from plantwire.simulator.settings import SimulatorSettings

TIMEOUT_S: Final = 10.0
# Each device waits for its own acknowledgement, so this is never reached by a plant of sensible size.
IN_FLIGHT_MAX: Final = 1_000
INCOMING_MAX: Final = 1_000
"""Messages received and not yet looked at; what comes beyond is lost."""
_DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}

_log = structlog.get_logger(__name__)


class BrokerAddress:
    """Where the broker is and how to get in; raises ValueError for a URL that is no MQTT URL."""

    def __init__(self, url: str, settings: SimulatorSettings) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError("an MQTT URL is mqtt://host[:port] or mqtts://host[:port]")
        self.host = parts.hostname
        self.port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self.username = settings.mqtt_username or (unquote(parts.username) if parts.username else None)
        password = settings.mqtt_password.get_secret_value() if settings.mqtt_password else None
        self.password = password or (unquote(parts.password) if parts.password else None)
        self.is_tls = parts.scheme == "mqtts"
        self.ca_file = str(settings.mqtt_tls_ca) if settings.mqtt_tls_ca else None


def new_client(address: BrokerAddress, will: aiomqtt.Will | None = None) -> aiomqtt.Client:
    """A client with a clean session; it connects when its context is entered."""
    quiet = logging.getLogger("plantwire.simulator.aiomqtt")
    quiet.setLevel(logging.CRITICAL)
    return aiomqtt.Client(
        address.host,
        address.port,
        username=address.username,
        password=address.password,
        tls_context=ssl.create_default_context(cafile=address.ca_file) if address.is_tls else None,
        will=will,
        timeout=TIMEOUT_S,
        max_queued_incoming_messages=INCOMING_MAX,
        max_queued_outgoing_messages=IN_FLIGHT_MAX,
        # Nagle's algorithm would hold a frame back, by 40 ms at worst, while the last one is under way.
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        logger=quiet,
    )


class BrokerLink:
    """One connection to publish by, which `run` keeps up."""

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._client: aiomqtt.Client | None = None
        self._gate = Gate()

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        while True:
            try:
                async with new_client(self._address) as client:
                    self._client = client
                    self._gate.succeed()
                    _log.info("broker-connected", host=self._address.host, port=self._address.port)
                    # Nothing is subscribed: this ends only when the connection does.
                    async for _ in client.messages:
                        pass
            except (aiomqtt.MqttError, OSError) as error:
                note_away(self._gate, error)
            finally:
                self._client = None
            await asyncio.sleep(self._gate.wait_s(time.monotonic()))

    async def publish(self, topic: str, body: bytes) -> Outcome:
        """Publish at QoS 1; accepted means that the broker acknowledged it."""
        client = self._client
        if client is None:
            return Dropped("broker-away")
        try:
            await client.publish(topic, body, qos=1, timeout=TIMEOUT_S)
        except (aiomqtt.MqttError, OSError):
            return Dropped("no-acknowledgement")
        return Accepted()


def note_away(gate: Gate, error: Exception) -> None:
    """Close the gate for a while and log why."""
    gate.fail(time.monotonic(), random.random())  # noqa: S311 - spreads retries
    _log.warning("broker-away", reason=str(error), next_try_s=round(gate.wait_s(time.monotonic()), 1))

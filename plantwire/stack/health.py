"""Whether a server does its work, asked in its own protocol.

In: an address. Out: None, or why not, in a few words. Guarantees: no probe takes more than about 2 s, none
raises on a server's account, none changes anything. They serve embedded and external servers alike.
Not here: whether a process of ours is alive (servers/process.py).
"""

from __future__ import annotations

import functools
import logging
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import psycopg
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from paho.mqtt.client import Client as MqttClient
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

PROBE_TIMEOUT_S = 1.0

# librdkafka reports every refused connection; the probe's answer says it once.
silent_logger = logging.getLogger("plantwire.stack.health.kafka")
silent_logger.addHandler(logging.NullHandler())
silent_logger.propagate = False


def probe_port(host: str, port: int) -> str | None:
    """Whether something listens at the address."""
    try:
        with socket.create_connection((host, port), PROBE_TIMEOUT_S):
            return None
    except OSError as error:
        return f"nothing answers at {host}:{port} ({error.strerror or error})"


def probe_kafka(bootstrap: str, topics: frozenset[str] = frozenset()) -> str | None:
    """Whether a broker is up and holds `topics`."""
    refusals = [probe_port(host, int(port)) for host, port in _addresses(bootstrap)]
    if all(refusals):
        return refusals[0]
    admin = AdminClient({"bootstrap.servers": bootstrap}, logger=silent_logger)
    try:
        metadata = admin.list_topics(timeout=PROBE_TIMEOUT_S)
    except KafkaException as error:
        return f"Kafka does not answer: {error.args[0].str()}"
    if not metadata.brokers:
        return "Kafka has no broker yet"
    missing = sorted(topics - metadata.topics.keys())
    return f"topics missing: {', '.join(missing)}" if missing else None


def probe_redis(url: str) -> str | None:
    """Whether Redis answers a PING (and is not still loading)."""
    client: redis.Redis = redis.Redis.from_url(
        url, socket_timeout=PROBE_TIMEOUT_S, socket_connect_timeout=PROBE_TIMEOUT_S
    )
    try:
        client.ping()
    except redis.RedisError as error:
        return f"Redis does not answer: {error}"
    finally:
        client.close()
    return None


def probe_database(url: str) -> str | None:
    """Whether PostgreSQL lets us in and answers a query."""
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        return f"PostgreSQL does not answer: {_first_line(error)}"
    return None


def probe_mqtt(
    url: str, username: str | None = None, password: str | None = None, tls_ca: Path | None = None
) -> str | None:
    """Whether the broker accepts a connection (clean session, nothing published).

    `username` and `password` go before those of the URL, `tls_ca` before the system's authorities.
    """
    parts = urlsplit(url)
    tls = parts.scheme == "mqtts"
    host, port = parts.hostname or "127.0.0.1", parts.port or (8883 if tls else 1883)
    if (refusal := probe_port(host, port)) is not None:
        return refusal
    client = MqttClient(CallbackAPIVersion.VERSION2)
    answers: list[str] = []
    client.on_connect = lambda _client, _userdata, _flags, reason, _properties: answers.append(str(reason))
    client.connect_timeout = PROBE_TIMEOUT_S
    username = username or (unquote(parts.username) if parts.username else None)
    password = password or (unquote(parts.password) if parts.password else None)
    if username is not None:
        client.username_pw_set(username, password)
    if tls:
        try:
            client.tls_set_context(ssl.create_default_context(cafile=tls_ca))
        except OSError as error:
            return f"the authorities in {tls_ca} cannot be used: {error.strerror or error}"
    try:
        client.connect(host, port)
        for _ in range(10):
            if answers or client.loop(PROBE_TIMEOUT_S / 10) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
        client.disconnect()
    except OSError as error:
        return f"MQTT broker does not answer: {error}"
    if not answers:
        return "MQTT broker does not answer CONNECT"
    return None if answers[0] == "Success" else f"MQTT broker refuses us: {answers[0]}"


def probe_http(url: str) -> str | None:
    """Whether a GET of `url` answers 200; else with the reasons that a `/readyz` gives."""
    try:
        response = _http().get(url)
    except httpx.HTTPError as error:
        return f"{url} does not answer ({error})"
    if response.status_code == httpx.codes.OK:
        return None
    try:
        reasons = response.json()["reasons"]
    except (ValueError, KeyError, TypeError):
        reasons = []
    said = "; ".join(map(str, reasons)) if isinstance(reasons, list) else ""
    return f"{url} answers {response.status_code}{': ' if said else ''}{said}"


def probe_flink(rest: str, slots: int = 0) -> str | None:
    """Whether the JobManager is up and at least `slots` slots are registered with it."""
    overview = flink_overview(rest)
    if isinstance(overview, str):
        return overview
    registered = int(overview["slots-total"])
    return None if registered >= slots else f"{registered} of {slots} Flink slots registered"


def flink_overview(rest: str) -> dict[str, Any] | str:
    """The cluster's `/overview`, or why there is none."""
    return _flink(rest, "/overview")


def flink_task_managers(rest: str) -> frozenset[str] | str:
    """The ids of the registered TaskManagers, or why they are not known."""
    answer = _flink(rest, "/taskmanagers")
    return answer if isinstance(answer, str) else frozenset(entry["id"] for entry in answer["taskmanagers"])


def flink_jobs(rest: str) -> list[dict[str, Any]] | str:
    """The cluster's jobs, each with `jid`, `name` and `state`, or why they are not known."""
    answer = _flink(rest, "/jobs/overview")
    return answer if isinstance(answer, str) else list(answer["jobs"])


@functools.cache
def _http() -> httpx.Client:
    # One client, because each new one loads the system's certificates; no idle connections to leave open.
    return httpx.Client(timeout=PROBE_TIMEOUT_S, limits=httpx.Limits(max_keepalive_connections=0))


def _flink(rest: str, path: str) -> dict[str, Any] | str:
    try:
        response = _http().get(f"{rest}{path}")
        response.raise_for_status()
    except httpx.HTTPError as error:
        return f"JobManager does not answer at {rest} ({_first_line(error)})"
    answer: dict[str, Any] = response.json()
    return answer


def _addresses(bootstrap: str) -> list[tuple[str, str]]:
    pairs = (entry.strip().rpartition(":") for entry in bootstrap.split(","))
    return [(host, port) for host, _, port in pairs]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

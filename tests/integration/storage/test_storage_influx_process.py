"""The InfluxDB sink as a process, between a real Kafka and a real InfluxDB 1: cut off, killed, started."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import Metric, TelemetryFrame
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.process import ServerProcess
from plantwire.storage.influx_client import InfluxAwayError, InfluxClient
from plantwire.storage.influx_settings import InfluxSettings
from tests.conftest import running
from tests.integration.gateway.gateway_rig import create_topics
from tests.telemetry_truth import frame

USER, PASSWORD, DATABASE = "plantwire", "for-tests-only", "plant"
DEADLINE_S = 60


class InfluxServer(ServerProcess):
    """InfluxDB 1 that lets nobody in without a password."""

    def __init__(self, folder: Path) -> None:
        port, self._rpc_port = free_ports(2)
        super().__init__("influxdb", port, folder / "influxdb.log")
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder

    def command(self) -> Sequence[str]:
        found = shutil.which("influxd")
        assert found is not None
        (self._folder / "influxdb.conf").touch()
        return [found, "run", "-config", str(self._folder / "influxdb.conf")]

    def environment(self) -> Mapping[str, str]:
        return {
            "INFLUXDB_REPORTING_DISABLED": "true",
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{self._rpc_port}",
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{self.port}",
            "INFLUXDB_HTTP_AUTH_ENABLED": "true",
            "INFLUXDB_META_DIR": str(self._folder / "meta"),
            "INFLUXDB_DATA_DIR": str(self._folder / "data"),
            "INFLUXDB_DATA_WAL_DIR": str(self._folder / "wal"),
        }

    def probe(self) -> str | None:
        try:
            return None if httpx.get(f"{self.url}/ping", timeout=2).status_code == 204 else "no ping"
        except httpx.HTTPError as error:
            return str(error)

    def ask(self, query: str, **parameters: str) -> list[dict[str, Any]]:
        """The rows that a query gives, each with its tags."""
        answer = httpx.post(
            f"{self.url}/query",
            params={"q": query, "epoch": "ms", **parameters},
            auth=(USER, PASSWORD),
            timeout=10,
        )
        (result,) = answer.json()["results"]
        assert "error" not in result, result
        return [
            dict(zip(series["columns"], values, strict=True)) | series.get("tags", {})
            for series in result.get("series", ())
            for values in series["values"]
        ]


class Sink(ServerProcess):
    """`python -m plantwire.storage.influx` on a free port, in a consumer group of its own."""

    def __init__(self, kafka: str, influx: str, log_file: Path, **settings: str) -> None:
        (port,) = free_ports(1)
        super().__init__("influx", port, log_file)
        self.url = f"http://127.0.0.1:{port}"
        self._environment = {
            "PLANTWIRE_KAFKA": kafka,
            "PLANTWIRE_INFLUX_URL": influx,
            "PLANTWIRE_INFLUX_DATABASE": DATABASE,
            "PLANTWIRE_INFLUX_USER": USER,
            "PLANTWIRE_INFLUX_PASSWORD": PASSWORD,
            "PLANTWIRE_INFLUX_STATUS_PORT": str(port),
            "PLANTWIRE_INFLUX_GROUP": f"influx-{secrets.token_hex(4)}",
            "PLANTWIRE_INFLUX_RETRY_MAX_S": "0.5",
            "PLANTWIRE_INFLUX_BATCH_MS": "50",
            **{f"PLANTWIRE_INFLUX_{name.upper()}": value for name, value in settings.items()},
        }

    def command(self) -> Sequence[str]:
        return [sys.executable, "-W", "error", "-m", "plantwire.storage.influx"]

    def environment(self) -> Mapping[str, str]:
        return self._environment

    def probe(self) -> str | None:
        reasons = self.reasons()
        return None if reasons == [] else str(reasons)

    def reasons(self) -> list[str]:
        """What stands in its way."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:  # noqa: S310 - our own URL
                body = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                body = json.load(error)
        except OSError as error:
            return [str(error)]
        found: list[str] = body["reasons"]
        return found

    def metric(self, name: str) -> float:
        """A metric's value, named with its labels as Prometheus writes them."""
        text = httpx.get(f"{self.url}/metrics", timeout=5).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


@pytest.fixture(scope="module")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """A server with a database and its user."""
    if shutil.which("influxd") is None:
        pytest.skip("InfluxDB is not installed (Debian: apt install influxdb)")
    with running(InfluxServer(tmp_path_factory.mktemp("influxdb"))) as server:
        server.ask(f"CREATE USER {USER} WITH PASSWORD '{PASSWORD}' WITH ALL PRIVILEGES")
        server.ask(f"CREATE DATABASE {DATABASE}")
        yield server


@pytest.fixture(scope="module")
def kafka(kafka_bootstrap: str) -> str:
    """Kafka with the topics of telemetry."""
    create_topics(kafka_bootstrap)
    return kafka_bootstrap


@pytest.fixture
def device() -> str:
    """The device of one test: all tests share the topic."""
    return f"press-{secrets.token_hex(4)}"


def send(kafka: str, frames: Sequence[TelemetryFrame]) -> None:
    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"})
    for one in frames:
        producer.produce(topics.TELEMETRY_RAW, value=FRAME_CODEC.encode(one), key=one.device_id)
    assert producer.flush(20) == 0


def wait_for(condition: Any, what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not in time: {what}"
        time.sleep(0.05)  # paces the question


def numbers_of(influx: InfluxServer, device: str) -> list[tuple[int, float]]:
    query = f"SELECT value FROM telemetry WHERE device = '{device}' AND metric = 'n'"  # noqa: S608 - ours
    rows = influx.ask(query, db=DATABASE)
    return [(row["time"], row["value"]) for row in rows]


def numbered(device: str, start_ms: int, *numbers: int) -> list[TelemetryFrame]:
    return [frame(device, start_ms + 100 * n, Metric("n", n / 3, None)) for n in numbers]


def expected(start_ms: int, *numbers: int) -> list[tuple[int, float]]:
    return [(start_ms + 100 * n, n / 3) for n in numbers]


def test_every_kind_of_sample_is_in_influxdb_as_it_was_sent(
    kafka: str, influx: InfluxServer, device: str, tmp_path: Path
) -> None:
    now_ms = time.time_ns() // 1_000_000
    strange = 'Node Control/Öl, a=b \\ c"d'
    text = 'läuft "gut"\n\\ mit, a=b'
    sent = [
        frame(device, now_ms, Metric("n", 0.1 + 0.2, None), Metric("mode", None, text), site="hall 1"),
        frame(device, now_ms + 1, Metric(strange, -1e-300, None), Metric("n", 1e300, None, 500)),
        frame(device, now_ms - 40 * 86_400_000, Metric("n", 7.0, None), historical=True),
        frame(device, now_ms + 2, Metric("ends\\", 1.0, None)),
    ]
    with running(Sink(kafka, influx.url, tmp_path / "sink.log")) as sink:
        send(kafka, sent)
        wait_for(lambda: len(numbers_of(influx, device)) == 3, "three numbers are written")
        query = f"SELECT * FROM telemetry WHERE device = '{device}'"  # noqa: S608 - ours
        rows = influx.ask(query, db=DATABASE)
        dropped = 'plantwire_influx_left_out_total{reason="name-ends-with-backslash"}'
        wait_for(lambda: sink.metric(dropped) == 1, "what has no line is counted")
    found = {
        (row["metric"], row["time"]): (row["value"], row["text"], row["quality"], row["site"]) for row in rows
    }
    assert found == {
        ("n", now_ms): (0.1 + 0.2, None, 192, "hall 1"),
        ("mode", now_ms): (None, text, 192, "hall 1"),
        (strange, now_ms + 1): (-1e-300, None, 192, "hall-1"),
        ("n", now_ms + 1): (1e300, None, 500, "hall-1"),
        ("n", now_ms - 40 * 86_400_000): (7.0, None, 192, "hall-1"),
    }


def test_an_outage_and_a_kill_lose_nothing_and_a_replay_changes_nothing(
    kafka: str, influx: InfluxServer, device: str, tmp_path: Path
) -> None:
    start_ms = time.time_ns() // 1_000_000
    with running(Sink(kafka, influx.url, tmp_path / "sink.log", batch_samples="10")) as sink:
        send(kafka, numbered(device, start_ms, *range(100)))
        wait_for(lambda: len(numbers_of(influx, device)) == 100, "all are written")
        influx.stop()
        send(kafka, numbered(device, start_ms, *range(100, 200)))
        wait_for(lambda: any("influxdb" in reason for reason in sink.reasons()), "the outage is told")
        sink.clear_away()
        sink.start()
        wait_for(lambda: any("influxdb" in reason for reason in sink.reasons()), "and told after a restart")
        send(kafka, numbered(device, start_ms, *range(200, 300)))
        influx.start()
        wait_for(lambda: influx.probe() is None, "InfluxDB is back")
        wait_for(lambda: len(numbers_of(influx, device)) == 300, "what came meanwhile is written")
        wait_for(lambda: sink.reasons() == [], "the sink is ready")
    assert numbers_of(influx, device) == expected(start_ms, *range(300))

    with running(Sink(kafka, influx.url, tmp_path / "replay.log")) as again:
        wait_for(lambda: again.metric("plantwire_influx_frames_total") >= 300, "all is read again")
        wait_for(lambda: again.metric("plantwire_influx_lag_records") == 0, "to the end")
    assert numbers_of(influx, device) == expected(start_ms, *range(300))


def test_a_refused_login_waits_and_says_so_without_the_password(
    kafka: str, influx: InfluxServer, device: str, tmp_path: Path
) -> None:
    sink = Sink(kafka, influx.url, tmp_path / "sink.log", password="not-the-one")
    start_ms = time.time_ns() // 1_000_000
    sink.start()
    try:
        send(kafka, numbered(device, start_ms, 1))
        wait_for(lambda: any("401" in reason for reason in sink.reasons()), "the refusal is told")
    finally:
        sink.stop()
    assert numbers_of(influx, device) == []
    assert "not-the-one" not in (tmp_path / "sink.log").read_text("utf-8")


def client(influx: InfluxServer, database: str = DATABASE) -> InfluxClient:
    return InfluxClient(
        InfluxSettings(
            influx_url=influx.url,
            influx_database=database,
            influx_user=USER,
            influx_password=PASSWORD,  # type: ignore[arg-type]
        )
    )


def test_the_server_s_own_words_for_partial_writes_are_understood(influx: InfluxServer, device: str) -> None:
    influx.ask(f"CREATE DATABASE hour_{device.replace('-', '_')} WITH DURATION 1h")
    now_ms = time.time_ns() // 1_000_000
    series = f"telemetry,device={device},metric=n value=".encode()
    short = client(influx, f"hour_{device.replace('-', '_')}")
    lines = [series + b"%d %d" % (n, now_ms - hours * 3_600_000) for n, hours in enumerate((0, 5, 9))]
    assert short.write(lines) == 2
    short.close()

    one = client(influx)
    odd = f"odd_{device.replace('-', '_')}".encode()
    assert one.write([odd + b",a=b value=1i 1"]) == 0
    assert one.write([odd + b",a=b value=1i 2", odd + b",a=b value=2.5 3"]) == 1
    found = influx.ask(f"SELECT value FROM {odd.decode()}", db=DATABASE)  # noqa: S608 - ours
    assert [row["value"] for row in found] == [1, 1]
    one.close()

    absent = client(influx, "absent")
    with pytest.raises(InfluxAwayError, match=r"404.*database not found"):
        absent.write(lines)
    absent.close()

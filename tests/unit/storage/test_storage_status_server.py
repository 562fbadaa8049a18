"""The storage's HTTP: alive, ready, metrics, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

from plantwire.platform.health import Health
from plantwire.platform.status_server import StatusServer
from plantwire.storage.metrics import StorageMetrics


@pytest.fixture
def health() -> Health:
    return Health(("database", "kafka"))


@pytest.fixture
def url(health: Health) -> Iterator[str]:
    server = StatusServer("127.0.0.1", 0, health.obstacles, StorageMetrics().text)
    yield f"http://127.0.0.1:{server.start()}"
    server.close()


def test_it_is_ready_when_every_part_has_said_so(url: str, health: Health) -> None:
    assert httpx.get(f"{url}/readyz").status_code == 503
    assert health.report("database", None)
    assert health.report("kafka", None)
    ready = httpx.get(f"{url}/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "reasons": []})
    assert not health.report("kafka", None)
    assert health.report("kafka", "it is away")
    away = httpx.get(f"{url}/readyz")
    assert (away.status_code, away.json()["reasons"]) == (503, ["kafka: it is away"])
    assert httpx.get(f"{url}/healthz").json() == {"status": "alive"}


def test_metrics_and_nothing_else(url: str) -> None:
    metrics = httpx.get(f"{url}/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "plantwire_storage_lag_records" in metrics.text
    assert httpx.get(f"{url}/").status_code == 404
    assert httpx.post(f"{url}/healthz").status_code == 501
    assert "python" not in metrics.headers["server"].lower()


def test_a_client_that_goes_away_leaves_it_alone(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n")
    assert httpx.get(f"{url}/healthz").status_code == 200

"""The HTTP contract."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from plantwire.platform.live_state import LiveState
from plantwire.schemas.severity import Severity
from plantwire.schemas.wire import alarm_to_wire
from tests.builders import alarm_event, token
from tests.integration.distribution.conftest import Distribution, wait_for


def get(distribution: Distribution, path: str, access: str | None = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {access}"} if access is not None else {}
    return httpx.get(distribution.url + path, headers=headers, timeout=10)


def test_latest_values_are_those_the_token_may_see(live: LiveState, distribution: Distribution) -> None:
    live.publish_telemetry("press-1", 1000, {"n": 1.5})
    live.publish_telemetry("press-2", 2000, {"text": "läuft"})
    path = "/api/devices/telemetry/latest"
    wait_for(lambda: len(get(distribution, path, token()).json()) == 2)
    answer = get(distribution, path, token("press-1", "absent"))
    assert answer.json() == [{"deviceId": "press-1", "seq": 1, "timestamp": 1000, "data": {"n": 1.5}}]
    assert answer.headers["plantwire-live"] == "true"
    assert answer.headers["content-type"] == "application/json"
    wait_for(lambda: "plantwire-epoch" in get(distribution, path, token()).headers)
    answer = get(distribution, path, token())
    assert answer.headers["plantwire-epoch"] == get(distribution, "/readyz").json()["epoch"]


def test_values_that_are_not_good_say_so_until_they_are(live: LiveState, distribution: Distribution) -> None:
    path = "/api/devices/telemetry/latest"

    def latest() -> dict[str, object]:
        answer = get(distribution, path, token()).json()
        return answer[0] if answer else {}

    live.publish_telemetry("press-1", 1000, {"n": 1.5, "m": 2}, {"n": 500})
    wait_for(
        lambda: (
            latest()
            == {
                "deviceId": "press-1",
                "seq": 1,
                "timestamp": 1000,
                "data": {"n": 1.5, "m": 2},
                "quality": {"n": 500},
            }
        )
    )
    live.publish_telemetry("press-1", 2000, {}, {"m": 0})
    wait_for(lambda: latest().get("quality") == {"n": 500, "m": 0})
    live.publish_telemetry("press-1", 3000, {"n": 1.5, "m": 3})
    wait_for(lambda: latest().get("seq") == 3)
    assert "quality" not in latest()


def test_alarms_are_sorted_and_filtered(live: LiveState, distribution: Distribution) -> None:
    alarms = {
        name: alarm_event(alarm_id=name, device_id=device, severity=severity.value, event_time_ms=time_ms)
        for name, device, severity, time_ms in [
            ("old", "press-1", Severity.CRITICAL, 1),
            ("low", "press-1", Severity.LOW, 9),
            ("new", "press-2", Severity.CRITICAL, 2),
        ]
    }
    for alarm in alarms.values():
        live.publish_alarm(alarm)

    def found(query: str = "", access: str | None = None) -> list[str]:
        answer = get(distribution, "/api/alarms" + query, access or token())
        return [alarm["alarmId"] for alarm in answer.json()["alarms"]]

    wait_for(lambda: len(found()) == 3)
    assert found() == ["new", "old", "low"]
    assert found("?severity=critical") == ["new", "old"]
    assert found("?severity=LOW&severity=CRITICAL&deviceId=press-1") == ["old", "low"]
    assert found(access=token("press-2")) == ["new"]
    (one,) = get(distribution, "/api/alarms", token("press-2")).json()["alarms"]
    assert one == alarm_to_wire(alarms["new"])


@pytest.mark.parametrize(
    ("path", "access", "status", "reason"),
    [
        ("/api/alarms", None, 401, "unauthorized"),
        ("/api/alarms", "nonsense", 401, "unauthorized"),
        ("/api/devices/telemetry/latest", token(lifetime_s=-5), 401, "unauthorized"),
        ("/api/alarms?severity=dreadful", token(), 400, "invalid-parameter"),
        ("/api/alarms?deviceId=press-2", token("press-1"), 403, "forbidden"),
        ("/no-such-page", None, 404, "not-found"),
        ("/../../settings.py", None, 404, "not-found"),
        ("/%2e%2e/%2e%2e/settings.py", None, 404, "not-found"),
    ],
)
def test_errors_are_problems(
    steady: Distribution, path: str, access: str | None, status: int, reason: str
) -> None:
    answer = get(steady, path, access)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["reason"] == reason
    assert answer.json()["status"] == status


def test_every_answer_carries_the_security_headers(steady: Distribution) -> None:
    for path in ("/", "/healthz", "/docs", "/no-such-page", "/api/alarms", "/socket.io/"):
        headers = get(steady, path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
    assert "unsafe-inline" not in get(steady, "/").headers["content-security-policy"]


def test_health_metrics_and_the_interface_description(steady: Distribution) -> None:
    assert get(steady, "/healthz").json() == {"status": "ok"}
    ready = get(steady, "/readyz").json()
    assert ready["status"] == "ready"
    assert ready.keys() == {"status", "epoch", "devices", "alarms", "alarmsComplete"}
    assert "websocket_connections 0.0" in get(steady, "/metrics").text
    assert get(steady, "/docs").status_code == 200
    paths = get(steady, "/openapi.json").json()["paths"]
    assert {"/api/alarms", "/api/devices/telemetry/latest", "/readyz"} <= paths.keys()


def test_the_dashboard_is_served_and_its_absence_explained(
    live: LiveState, start_distribution: Callable[..., Distribution], tmp_path: Path
) -> None:
    folder = tmp_path / "dist"
    distribution = start_distribution(dashboard=str(folder))
    missing = get(distribution, "/")
    assert missing.status_code == 503
    assert "make setup" in missing.text
    folder.mkdir()
    (folder / "index.html").write_text("<title>Plant</title>")
    (folder / "app.js").write_text("1")
    assert get(distribution, "/").text == "<title>Plant</title>"
    assert "javascript" in get(distribution, "/app.js").headers["content-type"]
    assert get(distribution, "/none.js").status_code == 404


def test_a_port_in_use_is_one_clear_line(steady: Distribution) -> None:
    environment = {
        "PLANTWIRE_DISTRIBUTION_PORT": str(steady.port),
        "PLANTWIRE_TOKEN_SECRET": "0" * 32,
    }
    second = subprocess.run(
        [sys.executable, "-m", "plantwire.distribution"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 69
    assert "PLANTWIRE_DISTRIBUTION_PORT" in second.stderr
    assert len(second.stderr.splitlines()) == 1

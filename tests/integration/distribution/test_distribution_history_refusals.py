"""History that the database does not give, or not now: which answer says what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest

from plantwire.platform.live_state import LiveState
from tests.builders import token
from tests.history_tables import make_tables, schema
from tests.integration.distribution.conftest import Distribution, wait_for


@pytest.fixture
def tables(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a database with empty tables, which processes started here read."""
    with schema(database_url) as url:
        make_tables(url)
        monkeypatch.setenv("PLANTWIRE_DATABASE", url)
        yield url


def ask(distribution: Distribution, resolution: str = "1s") -> httpx.Response:
    query = {"metric": "temperature", "resolution": resolution}
    headers = {"Authorization": f"Bearer {token()}"}
    url = f"{distribution.url}/api/devices/press-1/history"
    return httpx.get(url, params=query, headers=headers, timeout=30)


def test_a_request_that_waits_in_vain_for_a_connection_is_told_that_all_are_busy(
    tables: str, live: LiveState, start_distribution: Callable[..., Distribution]
) -> None:
    settings = {"connections_max": "1", "waiting_max": "9", "wait_s": "1", "statement_timeout_s": "3"}
    distribution = start_distribution(**{f"history_{name}": value for name, value in settings.items()})
    wait_for(lambda: ask(distribution).status_code == 200)
    with psycopg.connect(tables) as connection:
        connection.execute("LOCK TABLE telemetry_1s")
        with ThreadPoolExecutor(3) as threads:
            answers = list(threads.map(lambda _: ask(distribution), range(3)))
    assert {answer.status_code for answer in answers} == {503}
    assert sorted(answer.json()["reason"] for answer in answers) == ["busy", "busy", "timeout"]
    assert sum("within 1 s" in answer.json()["detail"] for answer in answers) == 2


def test_a_role_that_may_not_read_is_told_so_and_answered_once_it_may(
    tables: str, live: LiveState, start_distribution: Callable[..., Distribution]
) -> None:
    with psycopg.connect(tables, autocommit=True) as owner:
        owner.execute("REVOKE SELECT ON telemetry_1s, telemetry_1m FROM CURRENT_USER")
        distribution = start_distribution()
        answers = [ask(distribution, tier) for tier in ("1s", "1m", "1s")]
        assert {(one.status_code, one.json().get("reason")) for one in answers} == {(503, "unavailable")}
        assert all("does not let this server's role read" in one.json()["detail"] for one in answers)
        assert distribution.log().count("history.refused") == 1
        owner.execute("GRANT SELECT ON telemetry_1s TO CURRENT_USER")
        answer = ask(distribution)
    assert (answer.status_code, answer.json()["points"]) == (200, [])

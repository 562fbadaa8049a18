"""History is answered from a tier only where nothing was deleted from it, whatever the settings say."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import psycopg
import pytest

from plantwire.platform.live_state import LiveState
from tests.builders import token
from tests.history_tables import make_tables, schema
from tests.integration.distribution.conftest import Distribution, wait_for

HOUR_MS = 3_600_000


def tier_of_an_hour(distribution: Distribution, hours_ago: int) -> str | None:
    start_ms = int(time.time() * 1000) - hours_ago * HOUR_MS
    answer = httpx.get(
        f"{distribution.url}/api/devices/press-1/history",
        params={"metric": "temperature", "from": start_ms, "to": start_ms + HOUR_MS},
        headers={"Authorization": f"Bearer {token()}"},
        timeout=30,
    )
    return str(answer.json()["resolution"]) if answer.status_code == 200 else None


def test_a_tier_that_is_to_be_kept_longer_is_not_taken_for_what_it_has_lost(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    live: LiveState,
    start_distribution: Callable[..., Distribution],
) -> None:
    with schema(database_url) as url:
        make_tables(url)
        with psycopg.connect(url) as connection:
            connection.execute(
                "INSERT INTO storage_retention VALUES ('telemetry_1s', now() - INTERVAL '30 hours')"
            )
        monkeypatch.setenv("PLANTWIRE_DATABASE", url)
        distribution = start_distribution()
        wait_for(lambda: tier_of_an_hour(distribution, 20) == "1s")
        assert tier_of_an_hour(distribution, 40) == "1m"
